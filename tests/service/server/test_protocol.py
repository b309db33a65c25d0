import asyncio
from typing import cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.server.fast_path.busy_poll import BusyPoll
from service.server.fast_path.heads import HEAD_END
from service.server.fast_path.write_buffer import CorkedTransport, WriteBuffer
from service.server.protocol import Connection
from tests.service.loops import on_a_loop
from tests.service.server.fast_path.test_admission_queue import AT_ONCE, PLAIN, Entrance

HEAD = b"HTTP/1.1 200 OK" + HEAD_END


class Recorder(asyncio.Transport):
    """Writes down what is sent, in a list that others may share."""

    def __init__(self, sent: list[bytes]) -> None:
        super().__init__()
        self._sent = sent
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self._sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed


def wired(app: ASGIApp, entrance: Entrance, state: ServerState, **changes: object) -> Connection:
    """A connection behind ``entrance`` to ``app``; ``changes`` of what it is made with."""
    config = uvicorn.Config(app, log_config=None)
    config.load()
    wires = {
        "request_timeout_s": 60.0,
        "header_timeout_s": 60.0,
        "lines": entrance.lines,
        "heads": entrance.heads,
        "turnstile": entrance.turnstile,
        "direct": None,
        "outbox": WriteBuffer(),
        "common": (),
        "vigil": BusyPoll(0),
    }
    kind: type[Connection] = type("Wired", (Connection,), wires | changes)
    return kind(config=config, server_state=state, app_state={})


def corked(sent: list[bytes], under_way: int, outbox: WriteBuffer | None = None) -> CorkedTransport:
    return CorkedTransport(Recorder(sent), outbox or WriteBuffer(), range(under_way))


@on_a_loop
async def test_a_head_and_its_body_leave_together() -> None:
    sent: list[bytes] = []
    transport = corked(sent, under_way=1)
    transport.write(HEAD)
    assert not sent
    transport.write(b"body")
    assert sent == [HEAD + b"body"], "nobody waits longer when one request alone is under way"
    await asyncio.sleep(0)
    assert len(sent) == 1


@on_a_loop
async def test_a_head_alone_leaves_in_the_next_turn() -> None:
    sent: list[bytes] = []
    transport = corked(sent, under_way=1)
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert sent == [HEAD]
    transport.write(b"body")
    assert sent == [HEAD, b"body"]


@on_a_loop
async def test_answers_of_a_turn_leave_one_after_the_other() -> None:
    sent: list[bytes] = []
    outbox = WriteBuffer()
    transports = [corked(sent, 3, outbox) for _ in range(3)]
    for number, transport in enumerate(transports):
        transport.write(HEAD)
        transport.write(b"%d" % number)
        assert not sent
    await asyncio.sleep(0)
    assert sent == [HEAD + b"%d" % number for number in range(3)]
    transports[0].write(b"more")
    await asyncio.sleep(0)
    assert sent[3:] == [b"more"]


@on_a_loop
async def test_what_is_held_leaves_before_the_connection_closes() -> None:
    sent: list[bytes] = []
    transport = corked(sent, under_way=2)
    transport.write(HEAD)
    transport.close()
    assert sent == [HEAD]
    assert cast(Recorder, transport._transport).closed
    await asyncio.sleep(0)
    assert sent == [HEAD]


@on_a_loop
async def test_a_connection_that_is_lost_holds_up_no_other() -> None:
    sent: list[bytes] = []
    outbox = WriteBuffer()
    lost, other = (corked(sent, 2, outbox) for _ in range(2))
    lost.write(HEAD)
    other.write(HEAD + b"other")
    cast(Recorder, lost._transport).closed = True
    await asyncio.sleep(0)
    assert sent == [HEAD + b"other"]
    other.write(b"next")
    await asyncio.sleep(0)
    assert sent[1:] == [b"next"]


@on_a_loop
async def test_a_head_that_came_before_the_end_is_answered_when_its_body_comes() -> None:
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    connection = wired(app, Entrance(AT_ONCE), ServerState())
    sent: list[bytes] = []
    transport = Recorder(sent)
    connection.connection_made(transport)
    connection.await_body(PLAIN[:-4])
    connection.shutdown()
    assert not transport.closed
    connection.data_received(PLAIN[-4:])
    for _ in range(5):
        await asyncio.sleep(0)
    assert bodies == [PLAIN[-4:]]
    assert b"200 OK" in b"".join(sent)
    assert b"connection: close" in b"".join(sent)
    assert transport.closed
