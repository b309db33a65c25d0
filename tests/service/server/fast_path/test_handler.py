"""Answers without ASGI: the same as with it, on the same connections, in the same log and metrics."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.api.request_body import Body
from service.errors import InvalidParameterError
from service.inference.admission import Permit
from service.middleware.api_keys import make_key
from service.request_context import held_s, track_future
from service.responses import RawResponse
from service.server.fast_path.handler import Answerer, FastPathHandler
from tests.conftest import Service, start_service, wait_until
from tests.service.answers import PICTURE, without_time
from tests.service.broken import DAMAGED
from tests.service.exposed import scrape
from tests.service.loops import on_a_loop
from tests.service.server.fast_path.test_admission_queue import PATH, PLAIN, Entrance, turns
from tests.service.server.test_protocol import Recorder, wired

KEY, ENTRY = make_key("me")
SPECIAL = {"X-Timeout-Ms": "10000"}
"""What has a request answered by the application, and in the time that it has anyway."""
REQUESTS: dict[str, dict[str, Any]] = {
    "a picture": {"content": PICTURE, "headers": {"Content-Type": "image/png"}},
    "a picture of unknown type": {"content": PICTURE},
    "a form": {"files": {"image": PICTURE}},
    "JSON": {"content": b'{"image": "no base64!"}', "headers": {"Content-Type": "application/json"}},
    "options": {"content": PICTURE, "params": {"top_k": 2, "rectified": "jpeg", "points": 3, "model": "digits"}},
    "several": {"url": "/predict/batch", "files": [("images", PICTURE), ("images", DAMAGED["PNG without pixels"])]},
    "nothing": {"content": b""},
    "text": {"content": b"text", "headers": {"Content-Type": "text/plain"}},
    "a damaged picture": {"content": DAMAGED["PNG without pixels"]},
    "too much": {"content": bytes(2000)},
    "no such model": {"content": PICTURE, "params": {"model": "nobody"}},
    "no such option": {"content": PICTURE, "params": {"top": 1}},
    "another part": {"files": {"picture": PICTURE}},
    "a form without its type": {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
    "a form cut short": {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    "several in the wrong way": {"url": "/predict/batch", "content": PICTURE},
}


@pytest.mark.parametrize(
    "flags",
    [(), ("--api-keys", ENTRY), ("--cors-origins", "https://a.example"), ("--cors-origins", "*")],
    ids=["open", "with keys", "for one origin", "for all origins"],
)
def test_each_request_is_answered_logged_and_counted_as_by_the_application(flags: tuple[str, ...]) -> None:
    with start_service("--max-bytes", 1500, *flags) as service:
        counts = []
        answers = []
        for headers in ({}, SPECIAL):
            before = counted(service)
            answers.append([ask(service, request, headers | {"X-API-Key": KEY}) for request in REQUESTS.values()])
            after = counted(service)
            counts.append({labels: value - before.get(labels, 0) for labels, value in after.items()})
        wait_until(lambda: len(ends(service)) == 2 * len(REQUESTS))
        lines = ends(service)
    for name, direct, other in zip(REQUESTS, *answers, strict=True):
        assert direct.status_code == other.status_code, name
        assert content(direct) == content(other), name
        assert shape(direct) == shape(other), name
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > len(REQUESTS)
    assert len({line["request_id"] for line in lines}) == len(lines)
    for name, direct_end, other_end in zip(REQUESTS, lines[: len(REQUESTS)], lines[len(REQUESTS) :], strict=True):
        assert lasting(direct_end) == lasting(other_end), name
        assert direct_end.keys() == other_end.keys(), name
        assert direct_end.get("key") == ("me" if "--api-keys" in flags else None), name


def ask(service: Service, request: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    rest = {name: value for name, value in request.items() if name not in {"url", "headers"}}
    return service.client.post(request.get("url", "/predict"), headers=request.get("headers", {}) | headers, **rest)


def content(answer: httpx.Response) -> Any:
    found = answer.json()
    return [without_time(one) for one in found["results"]] if "results" in found else without_time(found)


def shape(answer: httpx.Response) -> dict[str, str]:
    """All headers, but for values that differ from answer to answer."""
    varying = {"x-request-id", "content-length", "date"}
    return {name: "some" if name in varying else value for name, value in answer.headers.items()}


def ends(service: Service) -> list[dict[str, Any]]:
    """What its log says of POST requests."""
    lines = [json.loads(line) for line in service.log().splitlines()]
    return [line for line in lines if line["event"] == "request" and line["method"] == "POST"]


def lasting(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log, but for what differs from request to request."""
    varying = {"timestamp", "request_id", "trace_id"}
    return {name: value for name, value in line.items() if name not in varying and not name.endswith("_ms")}


def counted(service: Service) -> dict[tuple[str, Any], float]:
    """How many requests, predictions and refusals there were, of each kind."""
    samples = scrape(service).samples.items()
    return {
        (name, labels): value
        for (name, labels), value in samples
        if name.endswith(("_total", "_count")) and "cpu" not in name and ("route", "/metrics") not in labels
    }


DATE = (b"date", b"Sun, 22 Nov 2026 12:00:00 GMT")


class Line:
    """A connection whose plain requests are answered by ``answerer``, others by an application that says 204."""

    def __init__(self, answerer: Answerer, header_timeout_s: float = 60.0) -> None:
        self.sent: list[bytes] = []
        self.transport = Recorder(self.sent)
        entrance = Entrance(0)
        self.state = ServerState()
        self.state.default_headers = [DATE]
        direct = FastPathHandler({PATH: answerer}, entrance.lines, entrance.turnstile)
        self.connection = wired(no_content, entrance, self.state, direct=direct, header_timeout_s=header_timeout_s)
        self.connection.connection_made(self.transport)

    async def ask(self, data: bytes = PLAIN) -> list[bytes]:
        """What has been sent a little later."""
        self.connection.data_received(data)
        await turns()
        return self.sent


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def echo(query: bytes, body: Body) -> RawResponse:
    return RawResponse(query + b" " + await body.read(10, Permit(Entrance(0).room)))


class Gate:
    """Answers when it is opened."""

    def __init__(self) -> None:
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0

    async def __call__(self, query: bytes, body: Body) -> RawResponse:
        self.asked += 1
        await track_future(self.open)
        return await echo(query, body)


@on_a_loop
async def test_a_plain_request_never_meets_the_application() -> None:
    (answer,) = await Line(echo).ask()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n")
    assert content == b"model=digits abcd"


@on_a_loop
async def test_what_is_personal_does() -> None:
    answers = await Line(echo).ask(PLAIN.replace(b"Host: h", b"Host: h\r\nOrigin: https://a.example"))
    assert b"".join(answers).startswith(b"HTTP/1.1 204 ")


@on_a_loop
async def test_a_request_keeps_the_name_that_its_client_gave_it() -> None:
    (answer,) = await Line(echo).ask(PLAIN.replace(b"Host: h", b"Host: h\r\nX-Request-Id: mine"))
    assert b"\r\nx-request-id: mine\r\n" in answer


@on_a_loop
async def test_a_body_may_be_a_moment_behind_its_head() -> None:
    line = Line(echo)
    assert not await line.ask(PLAIN[:-4])
    (answer,) = await line.ask(PLAIN[-4:])
    assert answer.endswith(b" abcd")


@on_a_loop
async def test_on_one_connection_one_is_answered_after_the_other() -> None:
    gate = Gate()
    line = Line(gate)
    await line.ask()
    assert not await line.ask(PLAIN.replace(b"abcd", b"efgh"))
    assert gate.asked == 1
    gate.open.set_result(None)
    await turns()
    assert [answer[-4:] for answer in line.sent] == [b"abcd", b"efgh"]
    await line.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"HTTP/1.1 204 " in b"".join(line.sent[2:])
    assert (await line.ask())[-1].endswith(b"abcd")


@on_a_loop
async def test_what_looks_like_a_request_in_the_body_of_another_is_not_answered() -> None:
    gate = Gate()
    line = Line(gate)
    whole = PLAIN + PLAIN
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(whole)
    await line.ask(head + PLAIN)
    answers = await line.ask(PLAIN)
    assert gate.asked == 0
    assert b"".join(answers).count(b"HTTP/1.1 ") == 1


@on_a_loop
async def test_a_request_knows_how_long_it_has_waited() -> None:
    async def waited(query: bytes, body: Body) -> RawResponse:
        return RawResponse(b"%g" % held_s())

    line = Line(waited)
    arrival = line.connection.heads.read(PLAIN)
    assert arrival is not None
    line.connection.go_on(arrival, 0.5)
    await turns()
    assert line.sent[0].endswith(b"\r\n\r\n0.5")


@on_a_loop
async def test_the_time_for_a_head_ends_with_it() -> None:
    gate = Gate()
    line = Line(gate, header_timeout_s=0.02)
    await line.ask()
    await asyncio.sleep(0.05)
    assert not line.transport.closed
    gate.open.set_result(None)
    await turns()
    assert b" 200 OK" in line.sent[0]


@on_a_loop
async def test_every_answer_says_when_it_is() -> None:
    line = Line(echo)
    await line.ask()
    await line.ask(b"nonsense\r\n\r\n")
    assert [b"\r\ndate: Sun" in answer for answer in line.sent] == [True, True]
    assert line.sent[1].startswith(b"HTTP/1.1 400 ")


@on_a_loop
async def test_a_defect_leaves_nobody_waiting() -> None:
    async def strange(query: bytes, body: Body) -> RawResponse:
        return RawResponse(b"", status=999)

    line = Line(strange)
    await line.ask()
    assert line.transport.closed
    other = Line(echo)
    other.connection.data_received(PLAIN)
    (task,) = other.state.tasks
    task.cancel()  # before it begins
    await turns()
    assert other.transport.closed
    assert not line.state.tasks | other.state.tasks


@on_a_loop
async def test_a_connection_is_let_go_when_nothing_comes_and_not_while_something_is_answered() -> None:
    gate = Gate()
    gate.open.set_result(None)
    line = Line(gate)
    line.connection.timeout_keep_alive = 0.05  # type: ignore[assignment]
    await line.ask()
    gate.open = asyncio.get_running_loop().create_future()
    await line.ask()
    line.connection.pause_writing()  # its client does not read, for a moment
    line.connection.resume_writing()
    await asyncio.sleep(0.1)
    assert (line.transport.closed, len(line.sent)) == (False, 1)
    gate.open.set_result(None)
    await asyncio.sleep(0.1)
    assert (line.transport.closed, len(line.sent)) == (True, 2)


@on_a_loop
async def test_a_request_that_has_come_is_answered_when_its_client_has_read_what_is_before_it() -> None:
    gate = Gate()
    line = Line(gate)
    line.connection.timeout_keep_alive = 0.01  # type: ignore[assignment]
    await line.ask()
    await line.ask()
    line.connection.pause_writing()
    gate.open.set_result(None)
    await asyncio.sleep(0.05)
    assert (line.transport.closed, len(line.sent)) == (False, 1)
    line.connection.resume_writing()
    await turns()
    assert len(line.sent) == 2


@on_a_loop
async def test_a_server_that_stops_answers_what_has_come_and_closes() -> None:
    gate = Gate()
    line = Line(gate)
    await line.ask()
    line.connection.shutdown()
    assert not line.transport.closed
    gate.open.set_result(None)
    await turns()
    assert b"connection: close\r\n" in line.sent[0]
    assert line.transport.closed


@on_a_loop
async def test_a_server_that_has_no_more_patience_says_so() -> None:
    line = Line(Gate())
    await line.ask()
    (task,) = line.state.tasks
    task.cancel()
    await turns()
    assert line.sent[0].startswith(b"HTTP/1.1 503 ")
    assert not line.state.tasks


@on_a_loop
async def test_nothing_is_worked_out_for_a_client_that_has_gone() -> None:
    gate = Gate()
    line = Line(gate)
    await line.ask()
    line.transport.closed = True
    line.connection.connection_lost(None)
    await turns()
    assert gate.open.done(), "nobody waits for it any more"
    assert not line.sent
    assert not line.state.tasks


@on_a_loop
async def test_errors_are_answered_and_the_connection_goes_on() -> None:
    async def refuse(query: bytes, body: Body) -> RawResponse:
        raise InvalidParameterError("no") if query else ZeroDivisionError("a defect")

    line = Line(refuse)
    refused = (await line.ask())[0]
    assert refused.startswith(b"HTTP/1.1 422 ")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"] == {"code": "invalid_parameter", "message": "no"}
    broken = (await line.ask(PLAIN.replace(b"?model=digits", b"")))[1]
    assert broken.startswith(b"HTTP/1.1 500 ")
    assert b"ZeroDivisionError" not in broken
    assert not line.transport.closed
