"""POST /predict and POST /predict/batch, as plain ASGI applications.

The way through FastAPI's middlewares, router and dependencies costs as much as all the work on a small picture. Here a
request goes straight from the server to the engine and back; `service.server.fast_path` answers plain requests in the
same way without ASGI. `service.api.routes` describes both routes for the OpenAPI document.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from functools import lru_cache
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import structlog
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from imaging.fast_codecs import FileFormat
from service.api.request_body import Body, read_one, read_several
from service.errors import InternalError, InvalidParameterError, NotReadyError, RequestError, TooLargeError
from service.inference.admission import Permit
from service.inference.engine import PICTURES_A_TURN, Engine
from service.inference.preprocessing import Upload
from service.inference.registry import Model
from service.metrics.recorder import RECORDER
from service.request_context import held_s, record_error
from service.responses import Json, RawResponse, add_points, describe_answer, describe_error, error_response, to_bytes
from service.schemas import PredictOptions
from service.settings import Settings

ONE = "/predict"
SEVERAL = "/predict/batch"
TIMEOUT = b"x-timeout-ms"
LONGEST_QUERY = 200
"""Bytes of a query whose meaning is remembered."""

log = structlog.get_logger(__name__)


class Predict:
    """Both routes over ``engine``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def one(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """POST /predict."""
        return respond(send, self.answer_one(scope["query_string"], Body(scope["headers"], receive)), scope["path"])

    def several(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """POST /predict/batch."""
        body = Body(scope["headers"], receive)
        return respond(send, self.answer_several(scope["query_string"], body), scope["path"])

    async def answer_one(self, query: bytes, body: Body) -> RawResponse:
        """The answer to a request for one picture.

        Raises:
            RequestError: it cannot be answered.
            ClientDisconnect: nobody waits for it any more.
        """
        options = read_options(query)
        model = self._engine.find(options.model, options.version)
        timeout_ms = read_timeout(body, self._settings.timeout_ms)
        with Permit(model.room) as seat:
            upload = await read_one(body, self._settings.max_bytes, seat)
            seat.take(pictures=1)
            return RawResponse(to_bytes(await self._answer(model, upload, options, timeout_ms)))

    async def answer_several(self, query: bytes, body: Body) -> RawResponse:
        """The answer to a request for several; see `answer_one`."""
        options = read_options(query)
        model = self._engine.find(options.model, options.version)
        timeout_ms = read_timeout(body, self._settings.timeout_ms)

        async def answer_or_error(upload: Upload, seat: Permit) -> Json:
            try:
                if len(upload.data) > self._settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {self._settings.max_bytes} bytes; scale it down")
                seat.take(pictures=1)
                return await self._answer(model, upload, options, timeout_ms)
            except RequestError as error:
                RECORDER.rejected(error.code, (model.name, model.version))
                return describe_error(error, SEVERAL)

        with Permit(model.room) as seat:
            uploads = await read_several(body, self._settings.max_batch_bytes, self._settings.max_pictures, seat)
            answers: list[asyncio.Task[Json]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    for position, upload in enumerate(uploads, start=1):
                        answers.append(group.create_task(answer_or_error(upload, seat)))
                        if position % PICTURES_A_TURN == 0:
                            await asyncio.sleep(0)  # others have their turn before more pictures are decoded in place
            except BaseExceptionGroup as group_error:
                if group_error.subgroup(ClientDisconnect) is not None:
                    raise ClientDisconnect from None
                raise
            return RawResponse(to_bytes({"results": [answer.result() for answer in answers]}))

    async def _answer(self, model: Model, upload: Upload, options: PredictOptions, timeout_ms: int) -> Json:
        started = perf_counter() - held_s()
        rectified: FileFormat | None = None if options.rectified == "none" else options.rectified
        answer = await self._engine.predict(model, upload, rectified, timeout_ms)
        description = describe_answer(answer, options.top_k, rectified, (perf_counter() - started) * 1000)
        if options.points:
            add_points(description, answer, options.points)
        return description


def read_timeout(body: Body, most_ms: int) -> int:
    """How many milliseconds the answer may take, as the head of the request says, and ``most_ms`` at most.

    Raises:
        InvalidParameterError: it says no number.
    """
    for name, value in body.headers:
        if name == TIMEOUT:
            if not (value.isdigit() and len(value) < 10 and int(value) > 0):
                raise InvalidParameterError("X-Timeout-Ms must be a whole number of milliseconds above 0")
            return min(int(value), most_ms)
    return most_ms


async def outcome(work: Awaitable[RawResponse], path: str) -> RawResponse | None:
    """What ``work`` gives to a request of ``path``, or what went wrong; None if nobody waits for it any more."""
    try:
        return await work
    except RequestError as error:
        return error_response(error, path)
    except ClientDisconnect:
        return None
    except asyncio.CancelledError:  # by the server, whose patience with what is under way has ended
        return error_response(NotReadyError("the service has stopped; send the request to another instance"), path)
    except Exception:
        log.exception("unhandled_exception")
        return error_response(InternalError("the service has a defect; its log says which"), path)


async def respond(send: Send, work: Awaitable[RawResponse], path: str) -> None:
    """Send the `outcome` of ``work``."""
    reply = await outcome(work, path)
    if reply is not None:
        await send_reply(send, reply)


async def refuse(send: Send, error: RequestError, path: str) -> None:
    """Send an error, in the form that requests of ``path`` expect."""
    await send_reply(send, error_response(error, path))


async def send_reply(send: Send, reply: RawResponse) -> None:
    """Send an answer."""
    if reply.error is not None:
        record_error(reply.error)
    length = (b"content-length", b"%d" % len(reply.content))
    await send({"type": "http.response.start", "status": reply.status, "headers": [length, *reply.headers]})
    await send({"type": "http.response.body", "body": reply.content})


def read_options(query: bytes) -> PredictOptions:
    """The options in a query.

    Raises:
        InvalidParameterError: one is unknown or wrong.
    """
    return read_query(query) if len(query) > LONGEST_QUERY else remembered(query)


def read_query(query: bytes) -> PredictOptions:
    """See `read_options`."""
    try:
        return PredictOptions.model_validate(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))
    except ValidationError as error:
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        raise InvalidParameterError(f"{'; '.join(problems)}; /docs lists the options") from None
    except ValueError as error:  # more fields than parse_qsl takes
        raise InvalidParameterError(f"the query cannot be read: {error}; /docs lists the options") from None


remembered = lru_cache(maxsize=256)(read_query)
