"""Answers without ASGI, on connections without a network; test_parity.py compares them with those through it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from service.api.options import read_options
from service.api.request_body import Body
from service.errors import InvalidParameterError, ModelNotFoundError, UnauthorizedError
from service.inference.admission import CapacityLimiter, Permit
from service.inference.registry import Models
from service.middleware.access_log import AccessLog, Client
from service.redaction import Redactor
from service.request_context import RequestContext, is_alone, queued_s, track_future
from service.responses import RawResponse
from service.schemas.options import PredictOptions
from service.server.fast_path.admission_queue import TICK_S, AdmissionQueue
from service.server.fast_path.handler import Answerer, FastPathHandler
from service.server.http_request import Headers
from service.server.protocol import SMALL_BODY
from service.settings import Settings
from tests.service.loops import on_a_loop
from tests.service.server.connections import Line, turns

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

    def authorize(self, context: RequestContext, path: str, headers: Headers, client: Client) -> None:
        if (b"x-api-key", b"wrong") in headers:
            raise UnauthorizedError("no")

    async def ask(self, data: bytes = PLAIN) -> list[bytes]:
        return await super().ask(data)

    @contextmanager
    def busy(self, pictures: int) -> Iterator[None]:
        """With so many requests of others in progress."""
        others = {asyncio.ensure_future(asyncio.Event().wait()) for _ in range(AT_ONCE)}
        self.models.limiter.take(pictures, 4 * pictures)
        in_progress: set[Any] = self.protocol.options.in_progress
        in_progress |= others
        yield
        in_progress -= others
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
        await turns()
    assert line.received.endswith(b"\r\n\r\n1")


@on_a_loop
async def test_a_request_knows_whether_it_is_alone() -> None:
    async def answer(query: bytes, body: Body) -> RawResponse:
        return RawResponse(b"%d" % is_alone())

    line = FastLine(answer)
    await line.ask()
    other = {asyncio.ensure_future(asyncio.Event().wait())}
    line.protocol.options.in_progress.update(cast(Any, other))
    await line.ask()
    other.pop().cancel()
    assert [sent[-1:] for sent in line.sent] == [b"1", b"0"]


@on_a_loop
async def test_a_request_for_which_there_is_no_room_is_refused_before_anything_is_done_for_it() -> None:
    gate = Gate()
    line = FastLine(gate)
    with line.busy(MOST):
        (answer,) = await line.ask()
        assert len(line.protocol.options.in_progress) == AT_ONCE, "there is no task for it"
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
