"""Requests that wait before anything is done for them; with the real process: test_queueing.py."""

import asyncio
import time

import pytest

from service.inference.admission import CapacityLimiter
from service.server.fast_path.admission_queue import TICK_S, AdmissionQueue
from service.server.http_request import HTTPRequest
from tests.service.loops import on_a_loop
from tests.service.server.connections import turns

AT_ONCE = 2
MOST = 4
SIZE = 4
PATIENCE_S = 0.1


class Waiting:
    """A request that waits; it takes room for itself when it is started, as a task does that begins."""

    def __init__(self, entrance: "Entrance") -> None:
        self.request = HTTPRequest(None)  # type: ignore[arg-type]  # its body is not asked for
        self.waited_s: float | None = None
        self._entrance = entrance
        entrance.queue.add(self.request, entrance.limiter, SIZE, self._start)

    def _start(self, waited_s: float) -> None:
        self.waited_s = waited_s
        asyncio.get_running_loop().call_soon(self._entrance.limiter.take, 1, SIZE)


class Entrance:
    """A queue before a model that works on some requests already."""

    def __init__(self, working: int) -> None:
        self.limiter = CapacityLimiter(MOST, 1000, AT_ONCE)
        self.limiter.take(working, SIZE * working)
        self.queue = AdmissionQueue(open_below=AT_ONCE, patience_s=PATIENCE_S)

    def answer_one(self) -> None:
        """One of the requests in progress has been answered."""
        self.limiter.give_back(1, SIZE)
        self.queue.advance()


def test_with_little_in_progress_everybody_is_admitted() -> None:
    queue = Entrance(0).queue
    assert queue.is_open(AT_ONCE - 1)
    assert not queue.is_open(AT_ONCE)


@on_a_loop
async def test_requests_are_admitted_in_the_order_in_which_they_came() -> None:
    entrance = Entrance(AT_ONCE)
    first, second = Waiting(entrance), Waiting(entrance)
    await turns()
    assert (first.waited_s, second.waited_s, entrance.limiter.queued) == (None, None, 2)
    assert not entrance.queue.is_open(0), "nobody overtakes those that wait"
    entrance.answer_one()
    await turns()
    assert first.waited_s is not None
    assert first.waited_s > 0
    assert second.waited_s is None
    entrance.answer_one()
    await turns()
    assert second.waited_s is not None
    assert entrance.limiter.pictures == AT_ONCE
    assert entrance.queue.is_open(0)


@on_a_loop
async def test_requests_that_come_in_one_turn_are_not_admitted_all_at_once() -> None:
    entrance = Entrance(0)
    many = [Waiting(entrance) for _ in range(MOST)]
    for _ in range(10):
        await asyncio.sleep(0)
        assert entrance.limiter.pictures - entrance.limiter.queued <= AT_ONCE
    assert [each.waited_s is not None for each in many] == [True] * AT_ONCE + [False] * (MOST - AT_ONCE)


@on_a_loop
async def test_the_room_of_those_that_have_just_been_admitted_is_taken() -> None:
    entrance = Entrance(AT_ONCE)
    first, _ = [Waiting(entrance) for _ in range(MOST - AT_ONCE)]
    entrance.answer_one()
    await asyncio.sleep(0)
    assert first.waited_s is not None
    assert entrance.limiter.fits(1, SIZE), "one has ended, so there is room for one"
    assert not entrance.limiter.fits(2, SIZE)
    await turns()
    assert entrance.limiter.pictures == MOST - 1


@on_a_loop
async def test_room_that_was_given_back_without_notice_is_found() -> None:
    entrance = Entrance(AT_ONCE)
    waiting = Waiting(entrance)
    await turns()
    entrance.limiter.give_back(1, SIZE)
    await asyncio.sleep(2 * TICK_S)
    assert waiting.waited_s is not None
    assert waiting.waited_s < PATIENCE_S


@on_a_loop
async def test_a_request_whose_client_leaves_takes_no_room() -> None:
    entrance = Entrance(AT_ONCE)
    gone, other = Waiting(entrance), Waiting(entrance)
    assert entrance.queue.remove(gone.request) is not None
    assert entrance.queue.remove(gone.request) is None
    assert entrance.limiter.pictures == AT_ONCE + 1
    entrance.answer_one()
    await turns()
    assert gone.waited_s is None
    assert other.waited_s is not None


@on_a_loop
async def test_nobody_waits_longer_than_is_allowed() -> None:
    entrance = Entrance(AT_ONCE)
    waiting = Waiting(entrance)
    await asyncio.sleep(PATIENCE_S / 2)
    assert waiting.waited_s is None
    await asyncio.sleep(PATIENCE_S)
    assert waiting.waited_s is not None
    assert waiting.waited_s >= PATIENCE_S


@on_a_loop
async def test_a_request_that_fails_at_once_is_followed_by_the_next() -> None:
    def fail(_: float) -> None:
        raise ValueError("it cannot begin")

    entrance = Entrance(AT_ONCE)
    entrance.queue.add(HTTPRequest(None), entrance.limiter, SIZE, fail)  # type: ignore[arg-type]
    good = Waiting(entrance)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    entrance.answer_one()
    await turns()
    assert good.waited_s is not None
    assert (entrance.limiter.pictures, entrance.limiter.queued) == (AT_ONCE, 0)


@on_a_loop
async def test_however_often_a_request_waits_there_is_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = 0
    tick = AdmissionQueue._tick

    def counted(queue: AdmissionQueue) -> None:
        nonlocal ticks
        ticks += 1
        tick(queue)

    monkeypatch.setattr(AdmissionQueue, "_tick", counted)
    entrance = Entrance(AT_ONCE)
    until = time.perf_counter() + 5 * TICK_S
    while time.perf_counter() < until:
        waiting = Waiting(entrance)
        await asyncio.sleep(0)
        entrance.queue.remove(waiting.request)
    assert ticks <= 5
