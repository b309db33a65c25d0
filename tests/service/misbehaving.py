"""The service over models that misbehave on purpose: ``python -m tests.service.misbehaving KIND FLAGS``.

A picture whose first pixel is 128 or more makes them raise, sleep or kill the process; to others they answer as always,
all after a time of their own.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Artifact, Outputs
from service.app import create_app
from service.cli import announcement
from service.inference.backends import Backend, Device, open_backend
from service.logging import configure_logs
from service.middleware.auth import AccessPolicy
from service.repository.startup import load_models
from service.server.listening import listen
from service.server.server import Server
from service.settings import load_settings

BAD = 128
LONG_S = 60.0


def fail() -> None:
    raise ValueError("out of memory")


def hang() -> None:
    time.sleep(LONG_S)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


KINDS: dict[str, tuple[float, Callable[[], None]]] = {
    "slow": (0.1, fail),
    "crawling": (0.7, fail),
    "failing": (0.0, fail),
    "hanging": (0.01, hang),
    "hanging in place": (0.0, hang),
    "recovering": (0.01, lambda: time.sleep(3)),
}
"""Seconds that each batch takes, and what a bad picture does. From two milliseconds on models run in a thread."""


class Misbehaving:
    """A backend around a real one."""

    def __init__(self, kind: str, backend: Backend) -> None:
        self.device = backend.device
        self._seconds, self._misbehave = KINDS[kind]
        self._backend = backend

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        if self._seconds:  # to sleep for no time is to let others go first
            time.sleep(self._seconds)
        if (images[:, 0, 0, 0] >= BAD).any():
            self._misbehave()
        return self._backend.run(images)


def main(kind: str, flags: list[str]) -> NoReturn:
    settings = load_settings(flags)
    log_writer = configure_logs(settings, AccessPolicy(settings).redactor())

    def opener(artifact: Artifact, device: Device, threads: int) -> Backend:
        return Misbehaving(kind, open_backend(artifact, device, threads))

    models = load_models(settings, opener)
    listener = listen(settings)
    line = announcement(settings, models, listener)
    app = create_app(settings, models=models, log_writer=log_writer)
    Server(app, partial(print, line, flush=True)).serve_on(listener)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
