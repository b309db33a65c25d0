"""The models that are served: loaded, warmed up and found by name and version."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from export.format.artifact import Artifact, ArtifactError, Manifest, Outputs, find_artifacts, read_artifact
from service.errors import ModelLoadError, ModelNotFoundError
from service.inference.admission import CapacityLimiter
from service.inference.backends import Backend, Device, open_backend
from service.inference.batcher import Batcher
from service.inference.outputs import ModelOutput, read
from service.metrics.drift import Window
from service.metrics.recorder import Recorder
from service.repository.version_policy import Selection
from service.settings import Settings

WARM_UPS = 4
"""Rounds, of which the shortest tells how long a picture takes: in the first ones runtimes compile and allocate."""

BATCHES_AT_ONCE = 2
"""One that is inferred and one that gathers meanwhile."""

Opener = Callable[[Artifact, Device, int], Backend]

log = structlog.get_logger(__name__)


class Model(NamedTuple):
    """One version of one model, ready to answer; who has found it keeps it until the answer is sent."""

    name: str
    version: int
    manifest: Manifest
    device: str
    batcher: Batcher[ModelOutput]
    room: CapacityLimiter
    digest: str
    """Of the artifact that it was loaded from: the same for the same content."""
    window: Window | None
    """What its last pictures showed; None where there is nothing to compare it with."""


class Models:
    """All that are served, by name and version; they come and go all at once (`serve`)."""

    def __init__(
        self,
        models: Iterable[Model],
        defaults: Mapping[str, tuple[int, ...]] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """``defaults`` is as in `Selection`; ``recorder`` counts the inferences of ``models``."""
        self.recorder = recorder or Recorder()
        self._defaults = defaults or {}
        self._served: tuple[Model, ...] = ()
        self._found: dict[tuple[str | None, int | None], Model] = {}
        self.changes = 0
        """How often there have been others."""
        self._leaving: WeakKeyDictionary[Batcher[ModelOutput], tuple[str, int]] = WeakKeyDictionary()
        self.serve(models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._served)

    def serve(self, models: Iterable[Model]) -> None:
        """From now on serve ``models`` and no others.

        Nothing refers to those that go but the requests that use them: with the last one's answer they are gone, and
        their memory with them.
        """
        before, self._served = self._served, tuple(sorted(models, key=lambda model: (model.name, model.version)))
        self._found = self._index()
        self.changes += 1
        batchers = set(self.batchers)
        for model in before:
            if model.batcher not in batchers:
                self._leaving[model.batcher] = (model.name, model.version)

    @property
    def batchers(self) -> list[Batcher[ModelOutput]]:
        """Of the models that are served."""
        return [model.batcher for model in self._served]

    @property
    def leaving(self) -> dict[Batcher[ModelOutput], tuple[str, int]]:
        """Name and version of those that requests still use although they are not served any more."""
        return dict(self._leaving)

    @property
    def default_name(self) -> str | None:
        """The model that answers where none is named: the first of ``defaults``, else the first by name."""
        return next(iter(self._defaults), self._served[0].name if self._served else None)

    def find(self, name: str | None, version: int | None) -> Model:
        """The model asked for; left out, the default model's or the model's default version.

        Raises:
            ModelNotFoundError: there is none; the message lists those that are.
        """
        model = self._found.get((name, version))
        if model is None:
            raise self._unknown(self.default_name if name is None else name, version)
        return model

    def is_default(self, model: Model) -> bool:
        """Whether ``model`` answers where its name is given without a version."""
        return self._found.get((model.name, None)) is model

    def _index(self) -> dict[tuple[str | None, int | None], Model]:
        found: dict[tuple[str | None, int | None], Model] = {}
        for model in self._served:
            found[model.name, model.version] = found[model.name, None] = model
        for name, versions in self._defaults.items():
            for version in versions:
                if model_pinned := found.get((name, version)):
                    found[name, None] = model_pinned
        default = self.default_name
        return found | {(None, version): model for (name, version), model in found.items() if name == default}

    def _unknown(self, name: str | None, version: int | None) -> ModelNotFoundError:
        if not self._served:
            return ModelNotFoundError("no model is served at present; ask again later, or ask for one to be loaded")
        there = ", ".join(str(model.version) for model in self._served if model.name == name)
        if there:
            return ModelNotFoundError(f"{name} has no version {version}; it has: {there}")
        names = ", ".join(sorted({model.name for model in self._served}))
        return ModelNotFoundError(f"no model is called {name!r}; there are: {names}")


def load_models(
    settings: Settings,
    opener: Opener | None = None,
    present: Mapping[str, Mapping[int, str]] | None = None,
    recorder: Recorder | None = None,
) -> Models:
    """Load and warm up what is to be served from the start, each model through ``opener`` (`open_backend`).

    ``present`` says instead what others serve already: the digests by name and version. ``recorder`` counts inferences.

    Raises:
        ModelLoadError: there is nothing, or something is missing, cannot be loaded or answers wrongly.
        DeviceError: the device asked for cannot be used.
    """
    selection = Selection(settings)
    try:
        folders = find_folders(settings.models)
        if not folders and present is None:
            raise ModelLoadError(f"there is no model in {settings.models}; it must hold NAME/VERSION/manifest.json")
        wanted = selection.choose(folders) if present is None else [(n, v) for n in present for v in present[n]]
        for name, version in wanted:
            if (name, version) not in folders:
                there = ", ".join(f"{name}/{version}" for name, version in folders)
                raise ModelLoadError(f"there is no {name}/{version} in {settings.models}; there are: {there}")
        found = [(name, version, read_artifact(folders[name, version])) for name, version in wanted]
    except ArtifactError as error:
        raise ModelLoadError(str(error)) from error
    opener = opener or default_opener(settings)
    recorder = recorder or Recorder()
    models = []
    for name, version, artifact in found:
        if present is not None and digest(artifact) != present[name][version]:
            raise ModelLoadError(f"{artifact.folder} is not what the other workers serve; load {name} anew")
        models.append(load_model(name, version, artifact, settings, opener, recorder))
    return Models(models, selection.defaults, recorder)


def find_folders(
    models: Path, on_error: Callable[[str, ArtifactError], None] | None = None
) -> dict[tuple[str, int], Path]:
    """The folder of each name and version; ``on_error`` is as in `find_artifacts`.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    return {(name, version): folder for name, version, folder in find_artifacts(models, on_error)}


def load_model(
    name: str, version: int, artifact: Artifact, settings: Settings, opener: Opener, recorder: Recorder
) -> Model:
    """Load one version and replay its golden pictures.

    Raises:
        ModelLoadError: it cannot be loaded, or does not answer as it did when it was exported.
        DeviceError: the device asked for cannot be used.
    """
    started = time.perf_counter()
    if artifact.manifest.runtime == "torchscript" and not settings.torchscript:
        raise ModelLoadError(
            f"{artifact.folder} is TorchScript, which is a program and not only numbers; export it to ONNX, or set "
            "--torchscript true if you trust whoever made it"
        )
    backend = opener(artifact, settings.device, settings.threads)
    picture_ms = warm_up(backend, artifact)
    log.info(
        "model_ready",
        model=name,
        version=version,
        runtime=artifact.manifest.runtime,
        device=backend.device,
        load_ms=round((time.perf_counter() - started) * 1000, 1),
        picture_ms=round(picture_ms, 3),
    )
    manifest = artifact.manifest
    window = None
    if manifest.reference is not None and settings.drift_window:
        window = Window(manifest, manifest.reference, settings.drift_window)
    spare_core = cores() > settings.workers
    batcher = Batcher(
        backend.run,
        partial(read_and_record, manifest=manifest, window=window),
        max_batch=settings.max_batch,
        inference_timeout_s=settings.inference_timeout_s,
        picture_ms=picture_ms,
        meter=recorder.of_model((name, version)),
        in_place=backend.device == "cpu",  # a GPU infers while the next pictures are decoded
        spare_core=spare_core,
    )
    in_turns = backend.device == "cpu" and not spare_core
    at_once = settings.max_batch * (1 if in_turns else BATCHES_AT_ONCE)
    room = CapacityLimiter(settings.max_queue, settings.max_queue_bytes, at_once)
    return Model(name, version, manifest, backend.device, batcher, room, digest(artifact), window)


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_opener(settings: Settings) -> Opener:
    """Opens backends as the settings say."""
    return partial(open_backend, cuda_graphs=settings.cuda_graphs)


def digest(artifact: Artifact) -> str:
    """What tells ``artifact`` from others: the manifest, which holds the hashes of all files."""
    return hashlib.sha256(artifact.manifest.model_dump_json().encode()).hexdigest()


def read_and_record(outputs: Outputs, manifest: Manifest, window: Window | None) -> list[ModelOutput]:
    """`read`, and note what there is to compare of a batch."""
    if window is not None:
        window.observe(outputs)
    return read(outputs, manifest)


def warm_up(backend: Backend, artifact: Artifact) -> float:
    """Replay the golden pictures; returns the milliseconds that one picture takes.

    Raises:
        ModelLoadError: the model does not answer as it did when it was exported.
    """
    try:
        images, expected = artifact.golden()
        picture_ms = math.inf  # the shortest: nothing that held the process up once is the model's
        for _ in range(WARM_UPS):
            found = backend.run(images)
            started = time.perf_counter()
            backend.run(images[:1])
            picture_ms = min(picture_ms, (time.perf_counter() - started) * 1000)
    except ArtifactError as error:
        raise ModelLoadError(str(error)) from error
    except Exception as error:
        raise ModelLoadError(f"{artifact.folder} does not run: {error}") from error
    manifest = artifact.manifest
    rectified = {transform.rectified for transform in manifest.transforms}
    tolerance = manifest.tolerance
    allowed = dict.fromkeys(manifest.outputs, tolerance.parameters) | dict.fromkeys(rectified, tolerance.rectified)
    allowed[manifest.probabilities] = tolerance.probabilities
    wrong = [name for name, answer in expected.items() if not same(answer, found.get(name), allowed[name])]
    if wrong:
        raise ModelLoadError(
            f"{artifact.folder} does not answer as it did when it was exported ({', '.join(wrong)} differ); "
            "export it again"
        )
    return picture_ms


def same(expected: NDArray[Any], found: NDArray[Any] | None, tolerance: float) -> bool:
    """Whether ``found`` is what was expected, but for what another device may round otherwise."""
    if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    return bool(np.allclose(expected.astype(np.float64), found.astype(np.float64), rtol=0, atol=tolerance))
