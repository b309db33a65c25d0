"""The process that shadows: it has both versions of a model, and only the time that nobody else wants.

It runs on the CPU with one thread, whatever device the service has, so that it takes nothing from live pictures there.
A crash or a hang of the new version ends this process alone.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import ArtifactError, Manifest, read_artifact
from service.errors import ModelLoadError, StartError
from service.inference.loading import digest, warm_up
from service.inference.outputs import Points, class_probabilities, is_finite, regions
from service.inference.preprocessing import Upload, examine_picture, preprocess, preprocess_regions
from service.inference.process_pool import NICE, end_with_parent
from service.repository.startup import find_folders
from service.rollout.messages import Compared, Failed, Job, Outcome, Said, Shown

LOWEST = 19
"""Niceness for comparisons where the system has no class for idle work."""


def work(pipe: Connection, job: Job) -> None:
    """Load the versions of ``job``, report None or the reason why not, and compare lists of pictures until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    with suppress(OSError):
        os.nice(NICE)
    try:
        pair = Pair(job)
    except (ArtifactError, StartError, OSError) as error:
        pipe.send(str(error))
        return
    give_way()
    pipe.send(None)
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send([pair.compare(shown) for shown in pipe.recv()])


def give_way() -> None:
    """Run only while the processors have nothing else to do."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        with suppress(OSError):
            os.nice(LOWEST)


class Version:
    """One version of a model."""

    def __init__(self, job: Job, version: int, expected: str) -> None:
        """Load it.

        Raises:
            ArtifactError: it cannot be read.
            StartError: it cannot be loaded, or differs from the one with the hash ``expected``.
        """
        folder = find_folders(job.models, lambda _, __: None).get((job.name, version))
        if folder is None:
            raise ModelLoadError(f"there is no {job.name}/{version} in {job.models} any more; put it back")
        artifact = read_artifact(folder)
        if digest(artifact) != expected:
            raise ModelLoadError(f"{folder} differs from the version that is served; load {job.name} again")
        self.manifest = artifact.manifest
        self._backend = job.opener(artifact, "cpu", 1)
        warm_up(self._backend, artifact)

    def say(self, pixels: NDArray[np.uint8]) -> tuple[Said, NDArray[np.float32]]:
        """Return what it says of ``pixels`` ``(H, W, C)``, and the probabilities ``(K,)`` or ``(T, K)``.

        Raises:
            ValueError: an output is not finite.
        """
        started = time.thread_time()
        outputs = self._backend.run(pixels[np.newaxis])
        seconds = time.thread_time() - started
        if not is_finite(outputs).all():
            raise ValueError("it returned values that are not finite")
        probabilities = class_probabilities(outputs, self.manifest)[0]
        manifest = self.manifest
        theta = outputs[manifest.transforms[manifest.main].theta][0].tolist() if manifest.transforms else None
        names, probability = best(probabilities, manifest)
        return Said(names, probability, theta, seconds), probabilities


class Pair:
    """The default version and the new one."""

    def __init__(self, job: Job) -> None:
        """Load both; see `Version`."""
        self._default = Version(job, job.default, job.default_digest)
        self._version = Version(job, job.version, job.version_digest)
        self._limits = job.limits

    def compare(self, shown: Shown) -> Outcome:
        """Compare what both say of a picture."""
        try:
            return self._compare(shown)
        except Exception as error:  # noqa: BLE001 - whatever the new version does, the next picture is compared
            return Failed(f"{type(error).__name__}: {error}")

    def _compare(self, shown: Shown) -> Compared:
        default, version = self._default.manifest, self._version.manifest
        said, probabilities = self._version.say(self._pixels(shown, version))
        again, _ = self._default.say(self._pixels(shown, default))  # for its time; what it said live is compared
        names, probability = best(shown.probabilities, default)
        answered = Said(names, probability, shown.theta, again.seconds)
        change = 0.0
        if names and said.names:
            change = probability_of(names, probabilities, version) - answered.probability
        corners_px = None
        if answered.theta is not None and said.theta is not None:
            corners_px = corner_distance(answered.theta, said.theta, shown.width, shown.height)
        return Compared(answered, said, change, corners_px)

    def _pixels(self, shown: Shown, manifest: Manifest) -> NDArray[np.uint8]:
        """Return the picture as the input of a version.

        Raises:
            RequestError: it cannot be decoded, although it has been.
        """
        if shown.pixels is not None:
            return shown.pixels
        examined = examine_picture(Upload(shown.file, None), self._limits)
        if shown.part is None and not shown.turn:
            return preprocess(examined, manifest.input).pixels
        parts = [] if shown.part is None else [shown.part]
        (picture,) = preprocess_regions(examined, manifest.input, False, parts, self._limits.max_pixels, shown.turn)
        return picture.pixels


def best(probabilities: NDArray[np.float32], manifest: Manifest) -> tuple[tuple[str, ...], float]:
    """Return the most probable class of each object, and the probability of all; no classes if there are none.

    ``probabilities`` are ``(K,)``, or ``(T, K)`` of a sequence.
    """
    if not len(probabilities):
        return (), 0.0
    rows = probabilities.reshape(-1, len(manifest.classes))
    return tuple(manifest.classes[index] for index in rows.argmax(axis=1)), float(rows.max(axis=1).prod())


def probability_of(names: tuple[str, ...], probabilities: NDArray[np.float32], manifest: Manifest) -> float:
    """Return the probability of the classes ``names``; 0 if they are no answer of the model. See `best`."""
    rows = probabilities.reshape(-1, len(manifest.classes))
    if len(names) != len(rows) or not {*names} <= {*manifest.classes}:
        return 0.0
    return float(rows[np.arange(len(rows)), [manifest.classes.index(name) for name in names]].prod())


def corner_distance(one: Points, other: Points, width: float, height: float) -> float:
    """Return the mean distance of the corners of two regions in a ``width`` x ``height`` picture, in its pixels."""
    first, second = regions(np.array([one, other], np.float32))
    return float(np.hypot(*((first - second) * (width, height)).T).mean())
