"""What waits or is refused before it is parsed, and what does not; by the real process: test_held.py."""

import asyncio
import json
import time
from typing import Any

import pytest

from service.access import AccessLog
from service.errors import UnknownModelError
from service.exchange import Exchange
from service.guard import EVERYBODY, Pass
from service.models import Models
from service.room import Room
from service.settings import Settings
from service.turnstile import TICK_S, Held, Turnstile
from tests.service.loops import on_a_loop

TARGET = {"method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"model=digits"}
PLAIN = b"POST /predict?model=digits HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
AT_ONCE = 2
MOST = 4
PATIENCE_S = 0.1


class Served(Models):
    """One model, of which only the room matters."""

    def __init__(self, room: Room) -> None:
        self._room: Room | None = room
        self.changes = 1

    def find(self, name: str | None, version: int | None) -> Any:
        if self._room is None:
            raise UnknownModelError("it has gone")
        return self

    def go(self) -> None:
        """From now on there is no model."""
        self._room = None

    @property
    def room(self) -> Room:
        assert self._room is not None
        return self._room


class Connection:
    """A connection on which requests come; those that are let in take room for themselves."""

    def __init__(self, turnstile: Turnstile, room: Room) -> None:
        self.held: Held | None = None
        self.client: tuple[str, int] | None = ("127.0.0.1", 1)
        self.answers: list[bytes] = []
        self.held_s: float | None = None
        self.head = b""
        self._turnstile = turnstile
        self._room = room

    def send(self, data: bytes = PLAIN) -> bool:
        """Whether it is to be parsed at once."""
        return self._turnstile.admits(self, data)

    def say_no(self, answer: bytes) -> None:
        self.answers.append(answer)

    def go_on(self, data: bytes, held_s: float) -> None:
        assert data == PLAIN
        self.held_s = held_s
        asyncio.get_running_loop().call_soon(self._room.take, 1, 4)  # as a request does, whose task then begins

    def await_body(self, head: bytes) -> None:
        self.head = head

    def answer(self) -> None:
        """Its request has been answered."""
        self._room.give_back(1, 4)
        self._turnstile.ended(TARGET, answered())


def answered() -> Exchange:
    exchange = Exchange("1")
    exchange.status, exchange.model, exchange.version = 200, "digits", 1
    return exchange


class Entrance:
    """A turnstile before the room of a model that answers, on which several requests are worked already."""

    def __init__(self, worked_on: int, owner: Pass | None = EVERYBODY, max_bytes: int = 1000) -> None:
        self.room = Room(MOST, max_bytes, AT_ONCE)
        self.room.take(worked_on, min(max_bytes, 4 * worked_on))
        self.models = Served(self.room)
        self.lines = AccessLog(Settings(access_log="none"))
        self.turnstile = Turnstile(self.models, self.lines, lambda _: owner, open_below=AT_ONCE, patience_s=PATIENCE_S)
        self.turnstile.ended(TARGET, answered())

    def connections(self, count: int) -> list[Connection]:
        return [Connection(self.turnstile, self.room) for _ in range(count)]


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
    Connection(entrance.turnstile, entrance.room).answer()
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
async def test_a_head_alone_is_shown_again_with_its_body() -> None:
    entrance = Entrance(AT_ONCE)
    (connection,) = entrance.connections(1)
    head, body = PLAIN[:-4], PLAIN[-4:]
    assert not connection.send(head)
    assert (connection.head, connection.held) == (head, None)
    assert not connection.send(head + body)
    assert connection.held is not None
    assert entrance.connections(1)[0].send(head + body[:2]), "who is not whole then is let in"
    bodiless = head.replace(b"Length: 4", b"Length: 0")
    assert not entrance.connections(1)[0].send(bodiless), "there is nothing to wait for"
    assert entrance.room.held == 2


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
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "queue_full"
    assert entrance.room.pictures == MOST


@on_a_loop
async def test_nobody_takes_the_room_of_those_that_have_just_been_let_in() -> None:
    entrance = Entrance(AT_ONCE)
    waiting = entrance.connections(MOST - AT_ONCE)
    for connection in waiting:
        assert not connection.send()
    (late,) = entrance.connections(1)
    Connection(entrance.turnstile, entrance.room).answer()
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
    entrance.turnstile.ended(TARGET, answered())
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
    Connection(entrance.turnstile, entrance.room).answer()
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
        def go_on(self, data: bytes, held_s: float) -> None:
            raise ValueError("this is not HTTP")

    entrance = Entrance(AT_ONCE)
    nonsense = Nonsense(entrance.turnstile, entrance.room)
    (good,) = entrance.connections(1)
    nonsense.send()
    good.send()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    Connection(entrance.turnstile, entrance.room).answer()
    await turns()
    assert good.held_s is not None
    assert (entrance.room.pictures, entrance.room.held) == (AT_ONCE, 0)


@on_a_loop
async def test_however_often_somebody_waits_there_is_one_clock() -> None:
    class Ticking(Turnstile):
        ticks = 0

        def _tick(self) -> None:
            self.ticks += 1
            super()._tick()

    entrance = Entrance(AT_ONCE)
    entrance.turnstile = Ticking(entrance.models, entrance.lines, lambda _: EVERYBODY, open_below=1, patience_s=60)
    entrance.turnstile.ended(TARGET, answered())
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
    entrance.turnstile.ended(TARGET, exchange)
    assert not connection.send()


@pytest.mark.parametrize("worked_on", [AT_ONCE, MOST])
@pytest.mark.parametrize(
    "request_bytes",
    [
        PLAIN[:-1],
        PLAIN + b"e",
        PLAIN + PLAIN,
        PLAIN[:40],
        PLAIN.replace(b"model=digits", b"model=signs"),
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"Content-Length: 4\r\n", b""),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\ncontent-length: 4"),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: +4"),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\nContent-Length : 40"),
        PLAIN.replace(b"Content-Length: 4", b"X: a\nContent-Length: 40\r\nContent-Length: 4"),
        PLAIN.replace(b"Content-Length: 4", b"X: a\rContent-Length: 4"),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\n 0"),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: \x0b4"),
        PLAIN.replace(b"Host: h", b"Host: h\0"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nTransfer-Encoding: chunked"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nExpect: 100-continue"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nX-Timeout-Ms: 5"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=str,
)
def test_all_else_is_parsed_as_always(worked_on: int, request_bytes: bytes) -> None:
    (connection,) = Entrance(worked_on).connections(1)
    assert connection.send(request_bytes)
    assert not connection.answers


@on_a_loop
async def test_what_an_answer_has_to_regard_may_wait_and_is_not_refused_unread() -> None:
    for header in (
        b"Connection: close",
        b"X-Request-Id: mine",
        b"traceparent: 00-1-2-01",
        b"Origin: https://a.example",
    ):
        request = PLAIN.replace(b"Host: h", b"Host: h\r\n" + header)
        (connection,) = Entrance(MOST).connections(1)
        assert connection.send(request)
        (connection,) = Entrance(AT_ONCE).connections(1)
        assert not connection.send(request)
        assert connection.held is not None


def test_who_lacks_a_key_neither_waits_nor_is_told_how_busy_it_is() -> None:
    for worked_on in (AT_ONCE, MOST):
        (connection,) = Entrance(worked_on, owner=None).connections(1)
        assert connection.send()


def test_a_model_that_has_gone_is_asked_for_as_always() -> None:
    entrance = Entrance(MOST)
    entrance.models.go()
    (connection,) = entrance.connections(1)
    assert connection.send()


def test_what_it_remembers_has_an_end() -> None:
    entrance = Entrance(MOST)
    for number in range(10_000):
        entrance.turnstile.ended({**TARGET, "query_string": b"top_k=%d" % number}, answered())
    (connection,) = entrance.connections(1)
    assert connection.send(), "it is long forgotten"
    assert not connection.send(PLAIN.replace(b"model=digits", b"top_k=9999"))


def test_only_what_was_answered_is_remembered() -> None:
    entrance = Entrance(MOST)
    for status, model in ((404, "digits"), (200, None)):
        exchange = answered()
        exchange.status, exchange.model = status, model
        entrance.turnstile.ended({**TARGET, "query_string": b"top_k=2"}, exchange)
    (connection,) = entrance.connections(1)
    assert connection.send(PLAIN.replace(b"model=digits", b"top_k=2"))
