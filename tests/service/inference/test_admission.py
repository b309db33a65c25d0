import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.errors import QueueFullError, RequestTimeoutError, TooLargeError
from service.inference import admission
from service.inference.admission import CapacityLimiter, Permit


def test_a_permit_gives_back_what_it_has_taken() -> None:
    limiter = CapacityLimiter(4, 100, 1)
    with Permit(limiter) as permit:
        permit.take(size=60)
        permit.take(pictures=2)
        assert (limiter.pictures, limiter.bytes) == (2, 60)
        with pytest.raises(QueueFullError, match="60 bytes"), Permit(limiter) as other:
            other.take(size=60)
        with pytest.raises(QueueFullError, match="2 pictures"), Permit(limiter) as other:
            other.take(pictures=3)
    assert (limiter.pictures, limiter.bytes) == (0, 0)


@pytest.mark.parametrize("too_much", [{"pictures": 3}, {"size": 51}])
def test_what_would_never_fit_is_not_told_to_come_again(too_much: dict[str, int]) -> None:
    with Permit(CapacityLimiter(4, 100, 1)) as permit:
        permit.take(pictures=2, size=50)
        with pytest.raises(TooLargeError, match="exceeds the capacity"):
            permit.take(**too_much)


def test_a_permit_moves_to_another_model_with_all_that_it_has_taken() -> None:
    first, second = CapacityLimiter(4, 100, 1), CapacityLimiter(4, 50, 1)
    with Permit(first) as permit:
        permit.take(pictures=1, size=50)
        permit.move_to(second)
        assert (first.pictures, first.bytes, second.pictures, second.bytes) == (0, 0, 1, 50)
        with Permit(first) as other, pytest.raises(QueueFullError):
            other.take(size=10)
            other.move_to(second)
        assert first.bytes == 0
    assert (second.pictures, second.bytes) == (0, 0)


class Body:
    """A body that arrives in pieces of given sizes, and then no further until it is told to."""

    def __init__(self, limiter: CapacityLimiter, *sizes: int) -> None:
        self.limiter = limiter
        self.sizes = sizes
        self.rest = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with Permit(self.limiter) as permit:
            async with permit.arrival() as arrival:
                for size in self.sizes:
                    arrival.add(size)
                    await asyncio.sleep(0)
                await self.rest.wait()

    async def was_dropped(self) -> bool:
        """Whether it had to give way; it has ended then."""
        for _ in range(5):
            await asyncio.sleep(0)
        return self.task.done() and isinstance(self.task.exception(), RequestTimeoutError)

    async def end(self) -> None:
        """Let the rest arrive."""
        self.rest.set()
        await self.task


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the rates of bodies are told by, which a test turns on."""
    now = [0.0]
    monkeypatch.setattr(admission, "monotonic", lambda: now[0])
    return now


def run(test: Callable[[CapacityLimiter], Coroutine[Any, Any, None]]) -> None:
    """Run a test over a limiter of 100 bytes; everything must have been given back in the end."""
    limiter = CapacityLimiter(9, 100, 1)
    asyncio.run(test(limiter))
    assert (limiter.bytes, limiter.arriving, limiter.pictures) == (0, 0, 0)


def test_the_slowest_arriving_body_gives_way(clock: list[float]) -> None:
    async def test(limiter: CapacityLimiter) -> None:
        stalled = Body(limiter, 25)
        assert not await stalled.was_dropped()
        clock[0] = 5
        steady = Body(limiter, 25)
        assert not await steady.was_dropped()
        clock[0] = 6
        newest = Body(limiter, 20)
        assert await stalled.was_dropped()
        assert not await newest.was_dropped()
        assert limiter.arriving == 45
        await steady.end()
        await newest.end()

    run(test)


def test_bodies_that_never_end_leave_half_of_the_bytes_to_others(clock: list[float]) -> None:
    async def test(limiter: CapacityLimiter) -> None:
        stalled = [Body(limiter, 24) for _ in range(4)]
        dropped = [await body.was_dropped() for body in stalled]
        assert dropped.count(False) == 2
        with Permit(limiter) as permit:
            permit.take(pictures=1, size=50)
        for body, gone in zip(stalled, dropped, strict=True):
            if not gone:
                await body.end()

    run(test)


def test_a_body_that_arrives_alone_may_have_it_all_until_it_is_needed(clock: list[float]) -> None:
    async def test(limiter: CapacityLimiter) -> None:
        alone = Body(limiter, *[10] * 10)
        for _ in range(20):
            await asyncio.sleep(0)
        assert limiter.bytes == 100
        await alone.end()
        large = Body(limiter, 90)
        assert not await large.was_dropped()
        assert limiter.fits(1, 20)
        with Permit(limiter) as permit:
            permit.take(pictures=1, size=20)
            assert await large.was_dropped()
            assert limiter.bytes == 20

    run(test)


def test_a_body_that_is_the_slowest_itself_gives_way(clock: list[float]) -> None:
    async def test(limiter: CapacityLimiter) -> None:
        with Permit(limiter) as permit, pytest.raises(RequestTimeoutError):
            async with permit.arrival() as arrival:
                arrival.add(30)
                clock[0] = 9
                fresh = Body(limiter, 15)
                assert not await fresh.was_dropped()
                arrival.add(10)
        assert limiter.arriving == 15
        await fresh.end()

    run(test)


def test_a_body_in_full_takes_no_share_of_those_that_arrive(clock: list[float]) -> None:
    async def test(limiter: CapacityLimiter) -> None:
        with Permit(limiter) as permit:
            async with permit.arrival() as arrival:
                arrival.add(40)
            assert (limiter.bytes, limiter.arriving) == (40, 0)
            other = Body(limiter, 50)
            assert not await other.was_dropped()
            await other.end()

    run(test)
