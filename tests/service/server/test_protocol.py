"""HTTP/1.1 as RFC 9112 has it, on connections without a network."""

import asyncio
import gc
import json
import re
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.server.http_request import HTTPRequest
from service.server.protocol import MAX_KEPT, MESSAGES_A_TURN, HTTPProtocol
from tests.service.loops import on_a_loop
from tests.service.server.connections import Line, echo, turns

HOST = b"Host: h\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
POST = b"POST /b?c=d HTTP/1.1\r\n" + HOST
TRICKY = b"\r\nUpgrade: x\r\n\r\nGET /no HTTP/1.1\r\n\r\n"
CONVERSATION = b"".join(
    [
        POST + UPGRADE + b"Content-Length: %d\r\n\r\n" % len(TRICKY) + TRICKY,
        b"\r\n",
        GET,
        POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n5\r\na\r\n\r\n\r\n3;x=y\r\nbcd\r\n0\r\nX: y\r\n\r\n",
        b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n",
        b"POST http://h/f?g HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n\r\n\r\n",
        b"HEAD /i HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /last HTTP/1.0\r\n\r\n",
    ]
)
ANSWERS = [
    b"POST /b?c=d " + TRICKY,
    b"GET /a? ",
    b"POST /b?c=d a\r\n\r\nbcd",
    b"GET /ws? ",
    b"POST /e? \r\n",
    b"POST /f?g \r\n\r\n",
    b"",
    b"GET /last? ",
]


def contents(received: bytes) -> list[bytes]:
    """The bodies of all answers, each as long as its head says."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        if received.startswith(b"HTTP/1.1 "):
            length = 0  # the answer to HEAD
        found.append(received[:length])
        received = received[length:]
    return found


def status(line: Line) -> int:
    """The status of the only answer."""
    (found,) = re.findall(rb"HTTP/1.1 (\d{3}) ", line.received)
    return int(found)


async def converse(pieces: list[bytes]) -> Line:
    line = Line(echo)
    for piece in pieces:
        await line.ask(piece)
    for _ in range(10):
        await turns()
    return line


@pytest.mark.parametrize("first", range(0, len(CONVERSATION), 50))
def test_wherever_a_conversation_is_cut_the_answers_are_the_same(first: int) -> None:
    @on_a_loop
    async def test() -> None:
        for cut in range(first, min(first + 50, len(CONVERSATION))):
            line = await converse([CONVERSATION[:cut], CONVERSATION[cut:]])
            assert contents(line.received) == ANSWERS, cut
            assert line.transport.closed, "HTTP/1.0 keeps no connection"

    test()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_into_however_many_pieces_a_conversation_is_cut_the_answers_are_the_same(sizes: list[int]) -> None:
    @on_a_loop
    async def test() -> None:
        pieces, rest = [], CONVERSATION
        for size in sizes:
            pieces.append(rest[:size])
            rest = rest[size:]
        line = await converse([piece for piece in [*pieces, rest] if piece])
        assert contents(line.received) == ANSWERS

    test()


@on_a_loop
async def test_byte_by_byte_it_is_the_same_too() -> None:
    line = await converse([CONVERSATION[at : at + 1] for at in range(len(CONVERSATION))])
    assert contents(line.received) == ANSWERS


WRONG = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a comma-separated port": b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    "a Host with a port that is a word": b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with a body": b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"Content-Length: 18\r\n\r\n" + GET,
    "a target that is a host": b"GET a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "a signed length": POST + b"Content-Length: +1\r\n\r\na",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "another coding and chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "a folded first header": b"GET / HTTP/1.1\r\n X: a\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: h\n\n",
    "a bare line feed in a header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a target that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_it_refuses_and_closes(name: str) -> None:
    @on_a_loop
    async def test() -> None:
        line = await converse([WRONG[name] + GET])
        assert status(line) == 400
        assert line.transport.closed
        assert b"\r\nconnection: close\r\n" in line.received
        assert json.loads(line.received.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"

    test()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: [::1]:8000 \r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a_b.example:\r\n\r\n",
        b"GET http://x.example/a HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\r\n\r\nGET /%61 HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_what_the_standard_allows_is_answered(request_bytes: bytes) -> None:
    @on_a_loop
    async def test() -> None:
        line = await converse([request_bytes])
        assert contents(line.received) == [b"GET /a? "]

    test()


@pytest.mark.parametrize("rest", [b"nonsense\r\n", b"ffffffffffffffffff\r\n"])
def test_an_answer_that_has_begun_is_never_followed_by_another_one(rest: bytes) -> None:
    @on_a_loop
    async def test() -> None:
        go_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"full"})

        line = Line(app)
        await line.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + rest)
        go_on.set()
        await turns()
        assert line.received.endswith(b"halffull")
        assert line.received.count(b"HTTP/1.1 ") == 1
        assert line.transport.closed
        line = Line(app)
        await line.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await line.ask(rest)  # behind the whole answer
        assert line.received.count(b"HTTP/1.1 ") == 1
        assert line.transport.closed

    test()


@on_a_loop
async def test_an_application_that_fails_in_the_middle_of_its_answer_breaks_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/late":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    line = Line(app)
    await line.ask(GET)
    assert status(line) == 500, "nothing had been sent yet"
    line = Line(app)
    await line.ask(GET.replace(b"/a", b"/late"))
    assert line.received.endswith(b"4\r\nhalf\r\n")
    assert line.transport.aborted


@on_a_loop
async def test_a_client_that_was_not_told_to_go_on_may_not_go_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    line = Line(app)
    await line.ask(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert status(line) == 404
    assert b"\r\nconnection: close\r\n" in line.received
    assert line.transport.closed
    line = Line(app)
    await line.ask(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
    assert not line.transport.closed, "its body has come all the same"


@on_a_loop
async def test_thousands_of_requests_in_one_go_stay_bytes_until_it_is_their_turn() -> None:
    gate = asyncio.Event()
    count = 5000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    line = Line(app)
    before = len([each for each in gc.get_objects() if type(each) is HTTPRequest])
    await line.ask(GET * count)
    assert len(GET * count) > MAX_KEPT
    assert line.transport.paused, "nothing more is read"
    assert len([each for each in gc.get_objects() if type(each) is HTTPRequest]) - before <= 1
    gate.set()
    for _ in range(count):
        await turns()
    assert not line.transport.paused
    assert contents(line.received) == [b"GET /a? "] * count


class Refusing:
    """A fast path that answers at once."""

    def takes(self, request: HTTPRequest) -> bool:
        return True

    def begin(self, connection: HTTPProtocol, request: HTTPRequest) -> None:
        connection.write(b"no")
        connection.answered(request)

    def leave(self, request: HTTPRequest) -> None: ...

    def task_ended(self) -> None: ...


@on_a_loop
async def test_answers_that_are_given_at_once_keep_a_connection_too() -> None:
    line = Line(echo, fast_path=Refusing(), keep_alive_s=0.5)
    for _ in range(3):
        await line.ask(GET)
        await asyncio.sleep(0.3)
    assert not line.transport.closed
    await asyncio.sleep(0.4)
    assert line.transport.closed


@on_a_loop
async def test_a_chunk_is_handed_on_before_the_next_one_comes() -> None:
    received = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            received.append((await receive())["body"])

    line = Line(app)
    await line.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await line.ask(b"3\r\nabc\r\n")
    await line.ask(b"3\r\nd\r\n\r\n")
    assert received == [b"abc", b"d\r\n"]


@on_a_loop
async def test_requests_that_are_answered_at_once_leave_the_event_loop_to_others() -> None:
    line = Line(echo, fast_path=Refusing())
    line.protocol.data_received(GET * 10 * MESSAGES_A_TURN)
    assert len(line.sent) == MESSAGES_A_TURN
    await turns()
    assert len(line.sent) == 10 * MESSAGES_A_TURN


@on_a_loop
async def test_a_connection_that_is_lost_leaves_nothing_for_the_collector() -> None:
    gc.disable()
    try:
        line = Line(echo)
        await line.ask(GET + POST + b"Content-Length: 10\r\n\r\nhalf")
        lost = weakref.ref(line.protocol)
        line.lose()
        await turns()
        del line
        assert lost() is None
    finally:
        gc.enable()


@on_a_loop
async def test_time_outs_need_no_timer_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(echo)
    await line.ask(GET)
    timers = 0
    call_at = asyncio.get_running_loop().call_at

    def counted(*arguments: object, **options: object) -> object:
        nonlocal timers
        timers += 1
        return call_at(*arguments, **options)  # type: ignore[arg-type]

    loop = line.protocol._loop
    monkeypatch.setattr(line.protocol._deadline, "_loop", type("Watched", (), {"call_at": counted, "time": loop.time}))
    for _ in range(10):
        await line.ask(GET)
    assert timers <= 1


@on_a_loop
async def test_an_idle_connection_is_kept_as_long_as_it_is_told_and_no_longer() -> None:
    line = Line(echo, keep_alive_s=0.1, header_timeout_s=0.02)
    await line.ask(GET)
    await asyncio.sleep(0.06)
    assert not line.transport.closed
    await asyncio.sleep(0.1)
    assert line.transport.closed
    silent = Line(echo, keep_alive_s=60, header_timeout_s=0.02)
    await asyncio.sleep(0.06)
    assert silent.transport.closed


@on_a_loop
async def test_a_path_before_all_others_is_told_to_the_application() -> None:
    line = Line(echo, root_path="/ml")
    await line.ask(GET)
    assert contents(line.received) == [b"GET /ml/a? "]


@on_a_loop
async def test_a_server_that_stops_answers_a_request_whose_body_is_still_coming() -> None:
    line = Line(echo)
    await line.ask(POST + b"Content-Length: 4\r\n\r\n")
    line.protocol.shutdown()
    await line.ask(b"body")
    assert contents(line.received) == [b"POST /b?c=d body"]
    assert b"connection: close" in line.received
    assert line.transport.closed
