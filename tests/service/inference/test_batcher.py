import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from export.format.artifact import Outputs
from service.errors import InferenceFailedError, NotReadyError
from service.inference.batcher import CUT_MS, Batcher, Inference
from service.metrics.recorder import ModelMetrics

Run = Callable[[NDArray[np.uint8]], Outputs]
IN_PLACE_AND_THREAD = pytest.mark.parametrize("picture_ms", [0.0, 1000.0], ids=["in place", "in a thread"])
SLOW = 1000.0
"""Milliseconds that make the batcher use its thread."""


def double(images: NDArray[np.uint8]) -> Outputs:
    """A model that answers each picture with twice its first pixel."""
    return {"twice": images[:, 0, 0, :1].astype(np.float32) * 2}


class Recorder:
    """The same model; it takes its time and remembers the sizes of its batches."""

    def __init__(self, seconds: float = 0) -> None:
        self.sizes: list[int] = []
        self.started = threading.Event()
        self._seconds = seconds

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(images))
        self.started.set()
        time.sleep(self._seconds)
        return double(images)


def picture(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 1), value, np.uint8)


def numbers(outputs: Outputs) -> list[float]:
    return [number for (number,) in outputs["twice"].tolist()]


def batcher(
    run: Run, *, max_batch: int = 8, inference_timeout_s: float = 60, picture_ms: float = 0.0
) -> Batcher[float]:
    return Batcher(
        run,
        numbers,
        max_batch=max_batch,
        inference_timeout_s=inference_timeout_s,
        picture_ms=picture_ms,
        metrics=ModelMetrics(("doubles", "1")),
    )


async def ask(batches: Batcher[float], *values: int) -> list[Inference[float] | BaseException]:
    return await asyncio.gather(*(batches.submit(picture(value)) for value in values), return_exceptions=True)


def answered(results: list[Inference[float] | BaseException]) -> list[Inference[float]]:
    return [result for result in results if isinstance(result, Inference)]


@IN_PLACE_AND_THREAD
def test_everyone_gets_the_answer_to_their_own_picture(picture_ms: float) -> None:
    answers = answered(asyncio.run(ask(batcher(double, picture_ms=picture_ms), *range(100))))
    assert [answer.value for answer in answers] == [2 * value for value in range(100)]


@IN_PLACE_AND_THREAD
def test_what_waits_together_shares_an_inference_up_to_the_maximum(picture_ms: float) -> None:
    model = Recorder()
    answers = answered(asyncio.run(ask(batcher(model, max_batch=8, picture_ms=picture_ms), *range(20))))
    assert model.sizes == [8, 8, 4]
    assert [answer.batch_size for answer in answers] == [8] * 16 + [4] * 4


@IN_PLACE_AND_THREAD
def test_a_batch_that_cannot_be_put_together_fails_alone(picture_ms: float) -> None:
    async def run() -> None:
        batches = batcher(double, picture_ms=picture_ms)
        odd = np.zeros((3, 3, 1), np.uint8)
        found = await asyncio.gather(*map(batches.submit, (picture(1), odd)), return_exceptions=True)
        assert [type(result) for result in found] == [InferenceFailedError] * 2
        assert [answer.value for answer in answered(await ask(batches, 3, 4))] == [6, 8]
        await batches.close()

    asyncio.run(run())


def test_where_pictures_come_together_a_batch_begins_when_no_more_come() -> None:
    async def come(batches: Batcher[float], first: int) -> list[Inference[float]]:
        """The first together, then one in each turn of the event loop, and none for a while."""
        answers = [batches.submit(picture(0)) for _ in range(first)]
        for _ in range(3):
            await asyncio.sleep(0)
            answers.append(batches.submit(picture(0)))
        return await asyncio.gather(*answers)

    async def sizes(first: int, model: Recorder) -> list[int]:
        batches = batcher(model)
        for _ in range(2):
            await come(batches, first)
        return model.sizes

    assert asyncio.run(sizes(2, Recorder())) == [5, 5]
    assert asyncio.run(sizes(7, Recorder()))[0] == 8, "never more than the maximum"
    alone, *_ = asyncio.run(sizes(1, Recorder()))
    assert alone == 1, "one alone waits for nobody"


def test_a_picture_that_is_alone_is_answered_in_the_same_turn_and_only_by_an_idle_batcher() -> None:
    model = Recorder()

    async def run() -> None:
        batches = batcher(model)
        assert batches.submit(picture(1), is_alone=True).done()
        first = batches.submit(picture(2))
        second = batches.submit(picture(3), is_alone=True)
        assert not second.done(), "another one waits"
        await asyncio.gather(first, second)
        await batches.close()

    asyncio.run(run())
    assert model.sizes == [1, 2]


@pytest.mark.parametrize(("spare_core", "one_ms"), [(False, 4), (False, 20), (True, 4)])
def test_without_a_spare_core_batches_are_cut_to_what_may_hold_the_loop(spare_core: bool, one_ms: int) -> None:
    sizes: list[int] = []
    threads: set[int] = set()

    def run(images: NDArray[np.uint8]) -> Outputs:
        time.sleep(len(images) * one_ms / 1000)
        sizes.append(len(images))
        threads.add(threading.get_ident())
        return double(images)

    batches = Batcher(
        run,
        numbers,
        max_batch=8,
        inference_timeout_s=60,
        picture_ms=one_ms,
        metrics=ModelMetrics(("doubles", "1")),
        spare_core=spare_core,
    )
    answers = answered(asyncio.run(ask(batches, *range(9))))
    assert [answer.value for answer in answers] == [2 * value for value in range(9)]
    in_place = threads == {threading.get_ident()}
    if spare_core:
        assert sizes == [8, 1]
        assert not in_place
    elif one_ms < CUT_MS:
        assert max(sizes) <= CUT_MS / one_ms
        assert in_place
    else:
        assert set(sizes) == {1}, "one that alone takes too long has the thread"
        assert not in_place


def test_one_that_waits_alone_starts_at_once() -> None:
    async def turns() -> int:
        """Of the event loop, until it is answered."""
        answer = batcher(double).submit(picture(1))
        taken = 0
        while not answer.done():
            await asyncio.sleep(0)
            taken += 1
        return taken

    assert asyncio.run(turns()) <= 3, "thousands if it waited for anything"


def test_what_arrives_during_an_inference_makes_the_next_batch() -> None:
    model = Recorder(seconds=0.05)

    async def scenario() -> None:
        batches = batcher(model, picture_ms=SLOW)
        first = batches.submit(picture(1))
        await asyncio.to_thread(model.started.wait)
        await asyncio.gather(first, *(batches.submit(picture(value)) for value in (2, 3, 4)))

    asyncio.run(scenario())
    assert model.sizes == [1, 3]


def test_times_are_true() -> None:
    results = asyncio.run(ask(batcher(Recorder(seconds=0.05), max_batch=1, picture_ms=SLOW), 1, 2))
    first, second = answered(results)
    assert min(first.inference_ms, second.inference_ms) >= 50
    assert second.queue_ms >= 50
    assert second.queue_ms > first.queue_ms


def test_the_event_loop_stays_free_during_a_long_inference() -> None:
    async def scenario() -> int:
        turns = 0
        answer = batcher(Recorder(seconds=0.1), picture_ms=SLOW).submit(picture(1))
        while not answer.done():
            turns += 1
            await asyncio.sleep(0.001)
        return turns

    assert asyncio.run(scenario()) > 10


def test_a_client_that_left_is_not_computed() -> None:
    model = Recorder()

    async def scenario() -> None:
        batches = batcher(model)
        stays, leaves = batches.submit(picture(1)), batches.submit(picture(2))
        leaves.cancel()
        assert (await stays).value == 2

    asyncio.run(scenario())
    assert model.sizes == [1]


@IN_PLACE_AND_THREAD
def test_a_failing_inference_fails_its_own_batch_alone(picture_ms: float) -> None:
    def fails_on_seven(images: NDArray[np.uint8]) -> Outputs:
        if (images == 7).any():
            raise ValueError("out of memory")
        return double(images)

    answers = asyncio.run(ask(batcher(fails_on_seven, max_batch=2, picture_ms=picture_ms), 1, 2, 7, 3, 4, 5))
    assert [isinstance(answer, InferenceFailedError) for answer in answers] == [False, False, True, True, False, False]


def test_too_few_answers_reach_nobody_as_anothers() -> None:
    def forgets_one(images: NDArray[np.uint8]) -> Outputs:
        return {name: output[1:] for name, output in double(images).items()}

    assert all(isinstance(answer, InferenceFailedError) for answer in asyncio.run(ask(batcher(forgets_one), 1, 2)))


def test_closing_answers_what_waits_and_takes_nothing_new() -> None:
    async def scenario() -> list[Inference[float]]:
        batches = batcher(Recorder(seconds=0.01), max_batch=1, picture_ms=SLOW)
        waiting = [batches.submit(picture(value)) for value in range(5)]
        closing = asyncio.create_task(batches.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError):
            batches.submit(picture(9))
        await closing
        return [answer.result() for answer in waiting]

    assert len(asyncio.run(scenario())) == 5


@IN_PLACE_AND_THREAD
def test_views_are_inferred_but_not_observed(picture_ms: float) -> None:
    seen: list[list[float]] = []
    batches = Batcher(
        double,
        numbers,
        max_batch=3,
        inference_timeout_s=60,
        picture_ms=picture_ms,
        metrics=ModelMetrics(("doubles", "1")),
        observe=lambda outputs: seen.append(numbers(outputs)),
    )

    async def ask() -> list[float]:
        views = [False, True, True, True, True, True, True, False]
        answers = [batches.submit(picture(value), is_view=view) for value, view in enumerate(views)]
        return [answer.value for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [value for batch in seen for value in batch] == [0, 14]
    assert [] not in seen
