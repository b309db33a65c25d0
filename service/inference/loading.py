"""Loads a model: opens its backend, replays its golden pictures and measures how long an inference takes."""

import hashlib
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from export.format.artifact import Artifact, ArtifactError
from service.errors import ModelLoadError
from service.inference.admission import CapacityLimiter
from service.inference.backends import Backend, Device, open_backend
from service.inference.batcher import Batcher
from service.inference.outputs import read
from service.inference.registry import Model
from service.metrics.drift import Window
from service.metrics.recorder import Recorder
from service.settings import Settings

WARM_UPS = 4
"""Timed inferences of which the shortest counts: in the first ones a runtime compiles and allocates."""
BATCHES_AT_ONCE = 2
"""One batch in inference and one that gathers meanwhile."""

Opener = Callable[[Artifact, Device, int], Backend]

log = structlog.get_logger(__name__)


def load_model(
    name: str, version: int, artifact: Artifact, settings: Settings, opener: Opener, recorder: Recorder
) -> Model:
    """Load one version and replay its golden pictures.

    Raises:
        ModelLoadError: it cannot be loaded, or its outputs differ from those at its export.
        DeviceError: the requested device cannot be used.
    """
    started = time.perf_counter()
    if artifact.manifest.runtime == "torchscript" and not settings.torchscript:
        raise ModelLoadError(
            f"{artifact.folder} is TorchScript, which can run arbitrary code; export it to ONNX, or set "
            "--torchscript true if you trust its author"
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
    spare_core = has_spare_core(settings)
    batcher = Batcher(
        backend.run,
        partial(read, manifest=manifest),
        max_batch=settings.max_batch,
        inference_timeout_s=settings.inference_timeout_s,
        picture_ms=picture_ms,
        metrics=recorder.of_model((name, version)),
        observe=None if window is None else window.observe,
        in_place=backend.device == "cpu",  # while a GPU infers, the CPU decodes the next pictures
        spare_core=spare_core,
    )
    in_turns = backend.device == "cpu" and not spare_core
    concurrency = settings.max_batch * (1 if in_turns else BATCHES_AT_ONCE)
    limiter = CapacityLimiter(settings.max_queue, settings.max_queue_bytes, concurrency)
    return Model(name, version, manifest, backend.device, batcher, limiter, digest(artifact), window, artifact.signer)


def default_opener(settings: Settings) -> Opener:
    """Return `open_backend` with the options of the settings."""
    return partial(open_backend, cuda_graphs=settings.cuda_graphs, openvino=settings.openvino)


def has_spare_core(settings: Settings) -> bool:
    """Whether a thread and the event loop of a worker can run at the same time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > settings.workers


def digest(artifact: Artifact) -> str:
    """Hash the manifest of ``artifact``, which holds the hashes of all of its files."""
    return hashlib.sha256(artifact.manifest.model_dump_json().encode()).hexdigest()


def warm_up(backend: Backend, artifact: Artifact) -> float:
    """Replay the golden pictures and return the milliseconds of an inference of one picture.

    Raises:
        ModelLoadError: the outputs differ from those at the export.
    """
    try:
        images, expected = artifact.golden()
        picture_ms = math.inf  # the shortest one, as others may have been interrupted
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
    tolerance = manifest.tolerance
    allowed = dict.fromkeys(manifest.outputs, tolerance.probabilities)
    for transform in manifest.transforms:
        allowed |= dict.fromkeys((transform.theta, transform.parameters), tolerance.parameters)
        allowed[transform.rectified] = tolerance.rectified
    wrong = [name for name, answer in expected.items() if not same(answer, found.get(name), allowed[name])]
    if wrong:
        raise ModelLoadError(
            f"the outputs of {artifact.folder} differ from those at its export ({', '.join(wrong)}); export it again"
        )
    return picture_ms


def same(expected: NDArray[Any], found: NDArray[Any] | None, tolerance: float) -> bool:
    """Whether ``found`` equals ``expected`` within a tolerance for the rounding of other devices."""
    if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    return bool(np.allclose(expected.astype(np.float64), found.astype(np.float64), rtol=0, atol=tolerance))
