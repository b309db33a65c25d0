"""The engine without HTTP around it."""

import asyncio
import gc
import time
import weakref

import numpy as np
import pytest
from numpy.typing import NDArray

from export.format.artifact import Artifact, Outputs
from service.errors import InferenceFailedError
from service.inference.backends import Backend, Device, open_backend
from service.inference.engine import TURN_S, Engine, Turns
from service.repository.startup import load_models
from service.settings import load_settings
from tests.service.pictures import ARTIFACT, GOLDEN_PICTURES


class Moody:
    """A model that fails when it sees a white picture."""

    def __init__(self, backend: Backend) -> None:
        self.device = backend.device
        self._backend = backend

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        if (images == 255).all():
            raise ValueError("too bright")
        return self._backend.run(images)


def open_moody(artifact: Artifact, device: Device, threads: int) -> Backend:
    return Moody(open_backend(artifact, device, threads))


def test_pictures_of_a_request_that_failed_are_gone_at_once() -> None:
    settings = load_settings(["--models", str(ARTIFACT.model_file), "--device", "cpu"], {})

    async def fail() -> bool:
        models = load_models(settings, open_moody)
        engine = Engine(models, settings)
        pictures = np.full_like(GOLDEN_PICTURES, 255)
        watched = weakref.ref(pictures)
        with pytest.raises(InferenceFailedError):
            await engine.infer(models.find(None, None), pictures, time.perf_counter() + 60)
        del pictures
        await asyncio.sleep(0)
        gone = watched() is None
        await engine.close()
        return gone

    gc.disable()
    try:
        assert asyncio.run(fail()), "only a search for circles would find them"
    finally:
        gc.enable()


@pytest.mark.parametrize(("work_s", "turns"), [(2 * TURN_S, 10), (0.6 * TURN_S, 5), (0.0, 1)])
def test_much_work_is_spread_over_turns_of_the_event_loop(work_s: float, turns: int) -> None:
    async def run() -> set[int]:
        shared, turn, worked = Turns(), 0, []

        async def work() -> None:
            await shared.wait()
            shared.record(work_s)
            worked.append(turn)

        workers = [asyncio.create_task(work()) for _ in range(10)]
        while len(worked) < len(workers):
            await asyncio.sleep(0)
            turn += 1
        return set(worked)

    assert len(asyncio.run(run())) == turns
