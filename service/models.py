"""The models that are served: loaded, warmed up and found by name and version."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from export.artifact import Artifact, ArtifactError, Manifest, find_artifacts, read_artifact
from service.backends import Backend, Device, open_backend
from service.batcher import Batcher
from service.errors import ModelLoadError, UnknownModelError
from service.exchange import note_model
from service.readings import Reading, read
from service.room import Room
from service.settings import Settings

WARM_UPS = 3
"""Runs before the one that is timed: runtimes compile and allocate in their first ones."""

Opener = Callable[[Artifact, Device, int], Backend]

log = structlog.get_logger(__name__)


class Model(NamedTuple):
    """One version of one model, ready to answer."""

    name: str
    version: int
    manifest: Manifest
    device: str
    batcher: Batcher[Reading]
    room: Room


class Models:
    """All that are served, by name and version."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._versions: dict[str, dict[int, Model]] = {}
        for model in models:
            self._versions.setdefault(model.name, {})[model.version] = model

    def __iter__(self) -> Iterator[Model]:
        return (model for versions in self._versions.values() for model in versions.values())

    def find(self, name: str | None, version: int | None) -> Model:
        """The model asked for: the first by name, the highest version, unless said otherwise.

        Raises:
            UnknownModelError: there is none; the message lists those that are.
        """
        versions = self._versions.get(min(self._versions) if name is None else name)
        if versions is None:
            raise UnknownModelError(f"no model is called {name!r}; there are: {', '.join(sorted(self._versions))}")
        model = versions.get(max(versions) if version is None else version)
        if model is None:
            there = ", ".join(map(str, sorted(versions)))
            raise UnknownModelError(f"{next(iter(versions.values())).name} has no version {version}; it has: {there}")
        note_model(model.name, model.version)
        return model


def load_models(settings: Settings, opener: Opener | None = None) -> Models:
    """Load and warm up everything in the models folder, each model through ``opener`` (`open_backend`).

    Raises:
        ModelLoadError: there is nothing, or something cannot be loaded or answers wrongly.
        DeviceError: the device asked for cannot be used.
    """
    try:
        found = [(name, version, read_artifact(folder)) for name, version, folder in find_artifacts(settings.models)]
    except ArtifactError as error:
        raise ModelLoadError(str(error)) from error
    if not found:
        raise ModelLoadError(f"there is no model in {settings.models}; it must hold NAME/VERSION/manifest.json")
    opener = opener or partial(open_backend, cuda_graphs=settings.cuda_graphs)
    return Models(load_model(name, version, artifact, settings, opener) for name, version, artifact in found)


def load_model(name: str, version: int, artifact: Artifact, settings: Settings, opener: Opener) -> Model:
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
    batcher = Batcher(
        backend.run,
        partial(read, manifest=artifact.manifest),
        max_batch=settings.max_batch,
        hang_s=settings.hang_s,
        picture_ms=picture_ms,
        in_place=backend.device == "cpu",  # a GPU infers while the next pictures are decoded
    )
    room = Room(settings.max_queue, settings.max_queue_bytes)
    return Model(name, version, artifact.manifest, backend.device, batcher, room)


def warm_up(backend: Backend, artifact: Artifact) -> float:
    """Replay the golden pictures; returns the milliseconds that one picture takes.

    Raises:
        ModelLoadError: the model does not answer as it did when it was exported.
    """
    try:
        images, expected = artifact.golden()
        for _ in range(WARM_UPS):
            found = backend.run(images)
            backend.run(images[:1])
        started = time.perf_counter()
        backend.run(images[:1])
        picture_ms = (time.perf_counter() - started) * 1000
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
