"""Answers without ASGI: the same as with it, on the same connections, in the same log and metrics."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.api.predict import read_options
from service.api.request_body import Body
from service.errors import InvalidParameterError, ModelNotFoundError, UnauthorizedError
from service.inference.admission import CapacityLimiter, Permit
from service.inference.registry import Models
from service.middleware.access_log import AccessLog, Client
from service.middleware.api_keys import make_key
from service.middleware.auth import EVERYBODY, Principal
from service.redaction import Redactor
from service.request_context import queued_s, track_future
from service.responses import RawResponse
from service.schemas import PredictOptions
from service.server.fast_path.admission_queue import TICK_S, AdmissionQueue
from service.server.fast_path.handler import Answerer, FastPathHandler
from service.server.http_request import Headers
from service.server.protocol import SMALL_BODY
from service.settings import Settings
from tests.conftest import Service, start_service, wait_until
from tests.service.answers import PICTURE, without_time
from tests.service.broken import DAMAGED
from tests.service.exposed import scrape
from tests.service.loops import on_a_loop
from tests.service.server.connections import Line, turns

KEY, ENTRY = make_key("me")
PROXY = {
    "X-Request-Id": "from-the-proxy",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "a picture": {"content": PICTURE, "headers": {"Content-Type": "image/png"}},
    "a picture of unknown type": {"content": PICTURE},
    "a form": {"files": {"image": PICTURE}},
    "JSON": {"content": b'{"image": "no base64!"}', "headers": {"Content-Type": "application/json"}},
    "options": {"content": PICTURE, "params": {"top_k": 2, "rectified": "jpeg", "points": 3, "model": "digits"}},
    "a rectified picture": {"content": PICTURE, "params": {"rectified_size": "source", "padding": "edge"}},
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
    [
        (),
        ("--api-keys", ENTRY),
        ("--cors-origins", "https://a.example"),
        ("--cors-origins", "*"),
        ("--forwarded-allow-ips", "127.0.0.1", "--rate-limit", "1000/second"),
    ],
    ids=["open", "with keys", "for one origin", "for all origins", "behind a proxy"],
)
@pytest.mark.parametrize(
    "headers",
    [{}, PROXY, {"X-Timeout-Ms": "9000"}, {"Origin": "https://a.example"}, {"X-API-Key": "wrong"}],
    ids=["plain", "of a proxy", "with a deadline", "from a page", "with a wrong key"],
)
def test_each_request_is_answered_logged_and_counted_as_by_the_application(
    flags: tuple[str, ...], headers: dict[str, str], services: "Services"
) -> None:
    counts, answers, lines = [], [], []
    for service in services.both(flags):
        before, done = counted(service), len(ends(service))
        answers.append([ask(service, request, {"X-API-Key": KEY} | headers) for request in REQUESTS.values()])
        after = counted(service)
        counts.append({labels: value - before.get(labels, 0) for labels, value in after.items()})
        wait_until(lambda service=service, done=done: len(ends(service)) == done + len(REQUESTS))  # type: ignore[misc]
        lines.append(ends(service)[done:])
    for name, fast, other in zip(REQUESTS, *answers, strict=True):
        assert fast.status_code == other.status_code, name
        assert content(fast) == content(other), name
        assert shape(fast) == shape(other), name
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > len(REQUESTS)
    for name, fast_end, other_end in zip(REQUESTS, *lines, strict=True):
        assert lasting(fast_end) == lasting(other_end), name
        assert fast_end.keys() == other_end.keys(), name
        with_key = "--api-keys" in flags and headers.get("X-API-Key") != "wrong"
        assert fast_end.get("key") == ("me" if with_key else None), name
        assert fast_end["client"] == ("198.51.100.7" if "127.0.0.1" in flags and headers is PROXY else "127.0.0.1")
        assert fast_end["request_id"] == "from-the-proxy" or headers is not PROXY


class Services:
    """Services with the same flags, one with the fast path and one without."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, ...], list[Service]] = {}

    def both(self, flags: tuple[str, ...]) -> list[Service]:
        """Those with ``flags``."""
        if flags not in self._started:
            self._started[flags] = [
                self._stack.enter_context(start_service("--max-bytes", 1500, "--fast-path", fast_path, *flags))
                for fast_path in ("true", "false")
            ]
        return self._started[flags]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(stack)


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
    assert all(line.startswith("{") for line in service.log().splitlines()), service.log()
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


PATH = "/predict"
PLAIN = b"POST /predict?model=digits HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
AT_ONCE = 2
MOST = 4


class Served:
    """One model, of which only the room matters."""

    name = "digits"
    version = 1

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(MOST, 1000, AT_ONCE)

    def find(self, name: str | None, version: int | None) -> Any:
        if name != "digits":
            raise ModelNotFoundError(f"there is no {name}")
        return self


class FastLine(Line):
    """A connection whose predictions are answered by ``answerer``, others by an application that says 204."""

    def __init__(self, answerer: Answerer, **options: Any) -> None:
        self.models = Served()
        self.keys: list[str] = []
        queue = AdmissionQueue(open_below=AT_ONCE, patience_s=60)
        lines = AccessLog(Settings(access_log="none"))
        handler = FastPathHandler(
            {PATH: answerer},
            cast(Models, self.models),
            self.authorize,
            lines,
            Redactor(None),
            queue,
            left_to_application={b"origin"},
        )
        super().__init__(no_content, fast_path=handler, **options)

    def authorize(self, path: str, headers: Headers, client: Client) -> Principal:
        if (b"x-api-key", b"wrong") in headers:
            raise UnauthorizedError("no")
        return EVERYBODY

    async def ask(self, data: bytes = PLAIN) -> list[bytes]:
        return await super().ask(data)

    @contextmanager
    def busy(self, pictures: int) -> Iterator[None]:
        """With so many requests of others in progress."""
        others = {asyncio.ensure_future(asyncio.Event().wait()) for _ in range(AT_ONCE)}
        self.models.limiter.take(pictures, 4 * pictures)
        self.state.tasks |= cast(Any, others)
        yield
        self.state.tasks -= cast(Any, others)
        for other in others:
            other.cancel()


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def echo(query: bytes, body: Body) -> RawResponse:
    return RawResponse(query + b" " + await body.read(10, Permit(CapacityLimiter(1, 1000, 1))))


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
    (answer,) = await FastLine(echo).ask()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n")
    assert content == b"model=digits abcd"


@on_a_loop
async def test_what_is_personal_does() -> None:
    answers = await FastLine(echo).ask(PLAIN.replace(b"Host: h", b"Host: h\r\nOrigin: https://a.example"))
    assert b"".join(answers).startswith(b"HTTP/1.1 204 ")


@on_a_loop
async def test_a_request_keeps_the_name_that_its_client_gave_it() -> None:
    (answer,) = await FastLine(echo).ask(PLAIN.replace(b"Host: h", b"Host: h\r\nX-Request-Id: mine"))
    assert b"\r\nx-request-id: mine\r\n" in answer


@on_a_loop
async def test_a_body_may_be_a_moment_behind_its_head() -> None:
    line = FastLine(echo)
    assert not await line.ask(PLAIN[:-4])
    (answer,) = await line.ask(PLAIN[-4:])
    assert answer.endswith(b" abcd")


@on_a_loop
async def test_on_one_connection_one_is_answered_after_the_other() -> None:
    gate = Gate()
    line = FastLine(gate)
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
    line = FastLine(gate)
    whole = PLAIN + PLAIN
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(whole)
    await line.ask(head + PLAIN)
    answers = await line.ask(PLAIN)
    assert gate.asked == 0
    assert b"".join(answers).count(b"HTTP/1.1 ") == 1


@on_a_loop
async def test_a_request_that_waits_is_answered_in_its_turn_and_knows_how_long_it_waited() -> None:
    async def waited(query: bytes, body: Body) -> RawResponse:
        return RawResponse(b"%d" % (queued_s() > 0))

    line = FastLine(waited)
    with line.busy(AT_ONCE):
        assert not await line.ask()
        assert line.models.limiter.queued == 1
        line.models.limiter.give_back(1, 4)
        await asyncio.sleep(2 * TICK_S)
    assert line.received.endswith(b"\r\n\r\n1")


@on_a_loop
async def test_a_request_for_which_there_is_no_room_is_refused_before_anything_is_done_for_it() -> None:
    gate = Gate()
    line = FastLine(gate)
    with line.busy(MOST):
        (answer,) = await line.ask()
        assert len(line.state.tasks) == AT_ONCE, "there is no task for it"
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert head.endswith(b"\r\nRetry-After: 1")
    assert json.loads(content)["error"]["code"] == "queue_full"
    assert (gate.asked, line.models.limiter.pictures) == (0, MOST)


@on_a_loop
async def test_what_is_wrong_with_a_request_is_said_although_there_is_no_room() -> None:
    for request, status in (
        (PLAIN.replace(b"model=digits", b"model=signs"), 404),
        (PLAIN.replace(b"model=digits", b"top_k=many"), 422),
        (PLAIN.replace(b"Host: h", b"Host: h\r\nX-API-Key: wrong"), 401),
    ):

        async def answer(query: bytes, body: Body) -> RawResponse:
            model = read_options(query, PredictOptions).model
            raise ModelNotFoundError(f"there is no {model}")

        line = FastLine(answer)
        with line.busy(MOST):
            await line.ask(request)
        assert line.received.startswith(b"HTTP/1.1 %d " % status)


@on_a_loop
async def test_a_client_that_leaves_while_it_waits_takes_no_room() -> None:
    gate = Gate()
    line = FastLine(gate)
    with line.busy(AT_ONCE):
        await line.ask()
        line.lose()
    assert (line.models.limiter.pictures, line.models.limiter.queued, gate.asked) == (AT_ONCE, 0, 0)


@on_a_loop
async def test_a_large_body_is_read_as_it_arrives_and_a_small_one_when_it_is_whole() -> None:
    pieces: list[int] = []

    async def count(query: bytes, body: Body) -> RawResponse:
        pieces.append(0)
        return RawResponse(b"%d" % len(await body.read(10**6, Permit(CapacityLimiter(1, 10**6, 1)))))

    for size, early in ((SMALL_BODY, 0), (SMALL_BODY + 1, 1)):
        pieces.clear()
        line = FastLine(count)
        head = PLAIN.partition(b"\r\n\r\n")[0].replace(b"Length: 4", b"Length: %d" % size) + b"\r\n\r\n"
        await line.ask(head + b"x")
        assert len(pieces) == early
        await line.ask(bytes(size - 1))
        assert line.received.endswith(b"\r\n\r\n%d" % size)


@on_a_loop
async def test_chunks_and_a_wish_to_be_told_to_go_on_are_understood() -> None:
    line = FastLine(echo)
    chunked = PLAIN.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked").replace(b"abcd", b"")
    await line.ask(chunked + b"2\r\nab\r\n")
    (answer,) = await line.ask(b"2\r\ncd\r\n0\r\n\r\n")
    assert answer.endswith(b" abcd")
    await line.ask(PLAIN.replace(b"Host: h", b"Host: h\r\nExpect: 100-continue")[:-4])
    assert line.sent[1] == b"HTTP/1.1 100 Continue\r\n\r\n"
    await line.ask(b"abcd")
    assert line.sent[2].endswith(b" abcd")


@on_a_loop
async def test_the_time_for_a_head_ends_with_it() -> None:
    gate = Gate()
    line = FastLine(gate, header_timeout_s=0.02)
    await line.ask()
    await asyncio.sleep(0.05)
    assert not line.transport.closed
    gate.open.set_result(None)
    await turns()
    assert b" 200 OK" in line.sent[0]


@on_a_loop
async def test_every_answer_says_when_it_is() -> None:
    line = FastLine(echo)
    await line.ask()
    await line.ask(b"nonsense\r\n\r\n")
    assert [b"\r\ndate: Sun" in answer for answer in line.sent] == [True, True]
    assert line.sent[1].startswith(b"HTTP/1.1 400 ")


@on_a_loop
async def test_a_defect_leaves_nobody_waiting() -> None:
    async def strange(query: bytes, body: Body) -> RawResponse:
        return RawResponse(b"", status=999)

    line = FastLine(strange)
    await line.ask()
    assert line.transport.closed
    other = FastLine(echo)
    other.protocol.data_received(PLAIN)
    (task,) = other.state.tasks
    task.cancel()  # before it begins
    await turns()
    assert other.transport.closed
    assert not line.state.tasks | other.state.tasks


@on_a_loop
async def test_a_connection_is_let_go_when_nothing_comes_and_not_while_something_is_answered() -> None:
    gate = Gate()
    gate.open.set_result(None)
    line = FastLine(gate, keep_alive_s=0.05)
    await line.ask()
    gate.open = asyncio.get_running_loop().create_future()
    await line.ask()
    line.protocol.pause_writing()  # its client does not read, for a moment
    line.protocol.resume_writing()
    await asyncio.sleep(0.1)
    assert (line.transport.closed, len(line.sent)) == (False, 1)
    gate.open.set_result(None)
    await asyncio.sleep(0.1)
    assert (line.transport.closed, len(line.sent)) == (True, 2)


@on_a_loop
async def test_a_request_that_has_come_is_answered_when_its_client_has_read_what_is_before_it() -> None:
    gate = Gate()
    line = FastLine(gate, keep_alive_s=0.01)
    await line.ask()
    await line.ask()
    line.protocol.pause_writing()
    gate.open.set_result(None)
    await asyncio.sleep(0.05)
    assert (line.transport.closed, len(line.sent)) == (False, 1)
    line.protocol.resume_writing()
    await turns()
    assert len(line.sent) == 2


@on_a_loop
async def test_a_server_that_stops_answers_what_has_come_and_closes() -> None:
    gate = Gate()
    line = FastLine(gate)
    await line.ask()
    line.protocol.shutdown()
    assert not line.transport.closed
    gate.open.set_result(None)
    await turns()
    assert b"connection: close\r\n" in line.sent[0]
    assert line.transport.closed


@on_a_loop
async def test_a_server_that_has_no_more_patience_says_so() -> None:
    line = FastLine(Gate())
    await line.ask()
    (task,) = line.state.tasks
    task.cancel()
    await turns()
    assert line.sent[0].startswith(b"HTTP/1.1 503 ")
    assert not line.state.tasks


@on_a_loop
async def test_nothing_is_worked_out_for_a_client_that_has_gone() -> None:
    gate = Gate()
    line = FastLine(gate)
    await line.ask()
    line.lose()
    await turns()
    assert gate.open.done(), "nobody waits for it any more"
    assert not line.sent
    assert not line.state.tasks


@on_a_loop
async def test_errors_are_answered_and_the_connection_goes_on() -> None:
    async def refuse(query: bytes, body: Body) -> RawResponse:
        raise InvalidParameterError("no") if query else ZeroDivisionError("a defect")

    line = FastLine(refuse)
    refused = (await line.ask())[0]
    assert refused.startswith(b"HTTP/1.1 422 ")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"] == {"code": "invalid_parameter", "message": "no"}
    broken = (await line.ask(PLAIN.replace(b"?model=digits", b"")))[1]
    assert broken.startswith(b"HTTP/1.1 500 ")
    assert b"ZeroDivisionError" not in broken
    assert not line.transport.closed
