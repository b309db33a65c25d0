"""What waits or is refused before it is parsed, and what does not; by the real process: test_held.py."""

import asyncio
import json
import time
from typing import Any

import pytest

from service.errors import ModelNotFoundError
from service.inference.admission import CapacityLimiter
from service.inference.registry import Models
from service.middleware.access_log import AccessLog
from service.middleware.auth import EVERYBODY
from service.request_context import RequestContext
from service.responses import RawResponse
from service.server.fast_path.admission_queue import TICK_S, AdmissionQueue, QueuedRequest
from service.server.fast_path.heads import Arrival, Heads
from service.settings import Settings
from tests.service.loops import on_a_loop

PATH = "/predict"
TARGET = b"/predict?model=digits"
PLAIN = b"POST /predict?model=digits HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
AT_ONCE = 2
MOST = 4
PATIENCE_S = 0.1


class Served(Models):
    """One model, of which only the room matters."""

    def __init__(self, room: CapacityLimiter) -> None:
        self._room: CapacityLimiter | None = room
        self.changes = 1

    def find(self, name: str | None, version: int | None) -> Any:
        if self._room is None:
            raise ModelNotFoundError("it has gone")
        return self

    def go(self) -> None:
        """From now on there is no model."""
        self._room = None

    @property
    def room(self) -> CapacityLimiter:
        assert self._room is not None
        return self._room


class Connection:
    """A connection on which requests come; those that are let in take room for themselves."""

    def __init__(self, entrance: "Entrance") -> None:
        self.held: QueuedRequest | None = None
        self.client: tuple[str, int] | None = ("127.0.0.1", 1)
        self.answers: list[RawResponse] = []
        self.held_s: float | None = None
        self._entrance = entrance

    def send(self, data: bytes = PLAIN) -> bool:
        """Whether it is worked on at once."""
        arrival = self._entrance.heads.read(data)
        assert arrival is not None
        return self._entrance.turnstile.admits(self, arrival)

    def reply(self, reply: RawResponse, request_id: str) -> None:
        self.answers.append(reply)

    def go_on(self, arrival: Arrival, held_s: float) -> None:
        assert arrival.data == PLAIN
        self.held_s = held_s
        asyncio.get_running_loop().call_soon(self._entrance.room.take, 1, 4)  # as a task does that begins

    def answer(self) -> None:
        """Its request has been answered."""
        self._entrance.room.give_back(1, 4)
        self._entrance.turnstile.ended(PATH, TARGET, answered())


def answered() -> RequestContext:
    exchange = RequestContext("1")
    exchange.status, exchange.model, exchange.version = 200, "digits", 1
    return exchange


class Entrance:
    """A turnstile before the room of a model that answers, on which several requests are worked already."""

    def __init__(self, worked_on: int, max_bytes: int = 1000) -> None:
        self.room = CapacityLimiter(MOST, max_bytes, AT_ONCE)
        self.room.take(worked_on, min(max_bytes, 4 * worked_on))
        self.models = Served(self.room)
        self.lines = AccessLog(Settings(access_log="none"))
        self.heads = Heads([PATH], lambda _: EVERYBODY, {b"origin"})
        self.turnstile = AdmissionQueue(self.models, self.lines, open_below=AT_ONCE, patience_s=PATIENCE_S)
        self.turnstile.ended(PATH, TARGET, answered())

    def connections(self, count: int) -> list[Connection]:
        return [Connection(self) for _ in range(count)]


async def turns() -> None:
    """Of the event loop, enough for all that is to happen at once."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_with_little_under_way_everybody_is_let_in() -> None:
    entrance = Entrance(0)
    assert entrance.turnstile.is_open(AT_ONCE - 1)
    assert not entrance.turnstile.is_open(AT_ONCE)


@on_a_loop
async def test_what_there_is_room_for_waits_and_is_let_in_by_turns() -> None:
    entrance = Entrance(AT_ONCE)
    first, second = entrance.connections(2)
    assert not first.send()
    assert not second.send()
    await turns()
    assert (first.held_s, second.held_s, entrance.room.held) == (None, None, 2)
    assert not entrance.turnstile.is_open(0), "nobody overtakes those who wait"
    Connection(entrance).answer()
    await turns()
    assert first.held_s is not None
    assert first.held_s > 0
    assert second.held_s is None
    first.answer()
    await turns()
    assert second.held_s is not None
    assert entrance.room.pictures == AT_ONCE
    assert entrance.turnstile.is_open(0)
    assert not first.answers + second.answers


@on_a_loop
async def test_those_that_come_in_one_turn_are_not_let_in_all_at_once() -> None:
    entrance = Entrance(0)
    many = entrance.connections(MOST)
    for connection in many:
        connection.send()
    for _ in range(10):
        await asyncio.sleep(0)
        assert entrance.room.pictures - entrance.room.held <= AT_ONCE
    assert [connection.held_s is not None for connection in many] == [True] * AT_ONCE + [False] * (MOST - AT_ONCE)


@on_a_loop
async def test_for_whom_there_is_no_room_is_refused() -> None:
    entrance = Entrance(MOST)
    (connection,) = entrance.connections(1)
    assert not connection.send()
    (answer,) = connection.answers
    assert (answer.status, answer.error) == (429, "queue_full")
    assert (b"retry-after", b"1") in [(name.lower(), value) for name, value in answer.headers]
    assert json.loads(answer.content)["error"]["code"] == "queue_full"
    assert entrance.room.pictures == MOST


@on_a_loop
async def test_nobody_takes_the_room_of_those_that_have_just_been_let_in() -> None:
    entrance = Entrance(AT_ONCE)
    waiting = entrance.connections(MOST - AT_ONCE)
    for connection in waiting:
        assert not connection.send()
    (late,) = entrance.connections(1)
    Connection(entrance).answer()
    await asyncio.sleep(0)
    assert waiting[0].held_s is not None
    assert not late.send()
    assert late.held is not None, "one has ended, so there is room for one"
    (later,) = entrance.connections(1)
    later.send()
    assert len(later.answers) == 1
    await turns()
    assert entrance.room.pictures <= MOST


@on_a_loop
async def test_nobody_takes_their_bytes_either() -> None:
    entrance = Entrance(AT_ONCE, max_bytes=4 * AT_ONCE + 4)
    (waiting,) = entrance.connections(1)
    assert not waiting.send()
    (late,) = entrance.connections(1)
    entrance.room.give_back(1, 4)
    entrance.room.take(0, 4)  # by another, whose picture comes later
    entrance.turnstile.ended(PATH, TARGET, answered())
    await asyncio.sleep(0)
    assert waiting.held_s is not None
    late.send()
    assert len(late.answers) == 1
    await turns()


@on_a_loop
async def test_room_that_was_given_back_without_a_word_is_found() -> None:
    entrance = Entrance(AT_ONCE)
    (connection,) = entrance.connections(1)
    connection.send()
    await turns()
    entrance.room.give_back(1, 4)  # and its answer cannot be sent
    await asyncio.sleep(2 * TICK_S)
    assert connection.held_s is not None
    assert connection.held_s < PATIENCE_S


@on_a_loop
async def test_what_will_never_fit_is_not_told_to_come_again() -> None:
    entrance = Entrance(AT_ONCE, max_bytes=3)
    (connection,) = entrance.connections(1)
    assert connection.send(), "the application says what is wrong"


@on_a_loop
async def test_who_has_gone_takes_no_room() -> None:
    entrance = Entrance(AT_ONCE)
    gone, other = entrance.connections(2)
    gone.send()
    other.send()
    entrance.turnstile.leave(gone)
    assert entrance.room.pictures == AT_ONCE + 1
    Connection(entrance).answer()
    await turns()
    assert gone.held_s is None
    assert other.held_s is not None
    entrance.turnstile.leave(other)
    assert entrance.room.pictures == AT_ONCE, "it does not wait any more"


@on_a_loop
async def test_nobody_waits_longer_than_is_allowed() -> None:
    entrance = Entrance(AT_ONCE)
    (connection,) = entrance.connections(1)
    connection.send()
    await asyncio.sleep(PATIENCE_S / 2)
    assert connection.held_s is None
    await asyncio.sleep(PATIENCE_S)
    assert connection.held_s is not None
    assert connection.held_s >= PATIENCE_S


@on_a_loop
async def test_a_request_that_comes_to_nothing_is_followed_by_the_next() -> None:
    class Nonsense(Connection):
        def go_on(self, arrival: Arrival, held_s: float) -> None:
            raise ValueError("this is not HTTP")

    entrance = Entrance(AT_ONCE)
    nonsense = Nonsense(entrance)
    (good,) = entrance.connections(1)
    nonsense.send()
    good.send()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    Connection(entrance).answer()
    await turns()
    assert good.held_s is not None
    assert (entrance.room.pictures, entrance.room.held) == (AT_ONCE, 0)


@on_a_loop
async def test_however_often_somebody_waits_there_is_one_clock() -> None:
    class Ticking(AdmissionQueue):
        ticks = 0

        def _tick(self) -> None:
            self.ticks += 1
            super()._tick()

    entrance = Entrance(AT_ONCE)
    entrance.turnstile = Ticking(entrance.models, entrance.lines, open_below=1, patience_s=60)
    entrance.turnstile.ended(PATH, TARGET, answered())
    (connection,) = entrance.connections(1)
    until = time.perf_counter() + 5 * TICK_S
    while time.perf_counter() < until:
        assert not connection.send()
        await asyncio.sleep(0)
        entrance.turnstile.leave(connection)
    assert entrance.turnstile.ticks <= 5


def test_when_other_models_are_served_targets_may_mean_others() -> None:
    entrance = Entrance(MOST)
    (connection,) = entrance.connections(1)
    entrance.models.changes += 1
    assert connection.send()
    exchange = answered()
    exchange.version = 2
    entrance.turnstile.ended(PATH, TARGET, exchange)
    assert not connection.send()


@pytest.mark.parametrize("worked_on", [AT_ONCE, MOST])
def test_what_was_never_answered_is_let_in(worked_on: int) -> None:
    (connection,) = Entrance(worked_on).connections(1)
    assert connection.send(PLAIN.replace(b"model=digits", b"model=signs"))
    assert not connection.answers


@on_a_loop
async def test_what_an_answer_has_to_regard_may_wait_and_is_not_refused_unread() -> None:
    for header in (
        b"Connection: close",
        b"Origin: https://a.example",
    ):
        request = PLAIN.replace(b"Host: h", b"Host: h\r\n" + header)
        (connection,) = Entrance(MOST).connections(1)
        assert connection.send(request)
        (connection,) = Entrance(AT_ONCE).connections(1)
        assert not connection.send(request)
        assert connection.held is not None


def test_a_model_that_has_gone_is_asked_for_as_always() -> None:
    entrance = Entrance(MOST)
    entrance.models.go()
    (connection,) = entrance.connections(1)
    assert connection.send()


def test_what_it_remembers_has_an_end() -> None:
    entrance = Entrance(MOST)
    for number in range(10_000):
        entrance.turnstile.ended(PATH, b"/predict?top_k=%d" % number, answered())
    (connection,) = entrance.connections(1)
    assert connection.send(), "it is long forgotten"
    assert not connection.send(PLAIN.replace(b"model=digits", b"top_k=9999"))


def test_only_what_was_answered_is_remembered() -> None:
    entrance = Entrance(MOST)
    for status, model in ((404, "digits"), (200, None)):
        exchange = answered()
        exchange.status, exchange.model = status, model
        entrance.turnstile.ended(PATH, b"/predict?top_k=2", exchange)
    (connection,) = entrance.connections(1)
    assert connection.send(PLAIN.replace(b"model=digits", b"top_k=2"))
