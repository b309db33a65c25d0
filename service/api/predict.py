"""POST /predict and POST /predict/batch, as plain ASGI applications.

The way through FastAPI's middlewares, router and dependencies costs as much as all the work on a small picture. Here a
request goes straight from the server to the engine and back; `service.server.fast_path` answers plain requests in the
same way without ASGI. `service.api.routes` describes both routes for the OpenAPI document.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from functools import lru_cache
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import structlog
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from imaging.fast_codecs import FileFormat
from service.api.request_body import MAX_NAME, Body, Fields, read_one, read_several
from service.errors import InternalError, InvalidParameterError, NotReadyError, RequestError, TooLargeError, shorten
from service.inference.admission import Permit
from service.inference.engine import PICTURES_A_TURN, Engine
from service.inference.preprocessing import Upload
from service.inference.registry import Model
from service.metrics.recorder import RECORDER
from service.request_context import held_s, record_error, record_model_in_body
from service.responses import Json, RawResponse, add_points, describe_answer, describe_error, error_response, to_bytes
from service.schemas import PredictOptions
from service.settings import Settings

ONE = "/predict"
SEVERAL = "/predict/batch"
TIMEOUT = b"x-timeout-ms"
LONGEST_QUERY = 200
"""Bytes of a query whose meaning is remembered."""
MAX_OPTIONS = 32
"""Options that a query may have; there are fewer."""
MAX_PROBLEMS = 3
"""Wrong options that an error lists."""

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
        with Permit(model.room) as permit:
            upload, fields = await read_one(body, self._settings.max_bytes, self._settings.max_json_bytes, permit)
            if fields:
                options, model = self._apply(fields, query, permit, model)
            permit.take(pictures=1)
            return RawResponse(to_bytes(await self._answer(model, upload, options, timeout_ms)))

    async def answer_several(self, query: bytes, body: Body) -> RawResponse:
        """The answer to a request for several; see `answer_one`."""
        options = read_options(query)
        model = self._engine.find(options.model, options.version)
        settings = self._settings
        timeout_ms = read_timeout(body, settings.timeout_ms)

        async def answer_or_error(upload: Upload) -> Json:
            try:
                if len(upload.data) > settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {settings.max_bytes} bytes; scale it down")
                permit.take(pictures=1)
                return await self._answer(model, upload, options, timeout_ms)
            except RequestError as error:
                RECORDER.rejected(error.code, (model.name, model.version))
                return describe_error(error, SEVERAL)

        with Permit(model.room) as permit:
            form = await read_several(body, settings.max_batch_bytes, settings.max_bytes, settings.max_pictures, permit)
            if form.fields:
                options, model = self._apply(form.fields, query, permit, model)
            answers: list[asyncio.Task[Json]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    for position, upload in enumerate(form.uploads, start=1):
                        answers.append(group.create_task(answer_or_error(upload)))
                        if position % PICTURES_A_TURN == 0:
                            await asyncio.sleep(0)  # others have their turn before more pictures are decoded in place
            except BaseExceptionGroup as group_error:
                if group_error.subgroup(ClientDisconnect) is not None:
                    raise ClientDisconnect from None
                raise
            return RawResponse(to_bytes({"results": [answer.result() for answer in answers]}))

    def _apply(self, fields: Fields, query: bytes, permit: Permit, model: Model) -> tuple[PredictOptions, Model]:
        """The options of query and form together, and the model that they ask for, to which the permit moves."""
        options = check_options([*read_pairs(query), *fields])
        if {"model", "version"}.isdisjoint(name for name, _ in fields):
            return options, model
        record_model_in_body()
        model = self._engine.find(options.model, options.version)
        permit.move_to(model.room)
        return options, model

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
    return read_query(query) if len(query) > LONGEST_QUERY else cached_options(query)


def read_query(query: bytes) -> PredictOptions:
    """See `read_options`."""
    return check_options(read_pairs(query))


cached_options = lru_cache(maxsize=256)(read_query)


def read_pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values in a query."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_OPTIONS)
    except ValueError:
        raise InvalidParameterError(f"the query has more than {MAX_OPTIONS} options; /docs lists them") from None


def check_options(pairs: Iterable[tuple[str, str]]) -> PredictOptions:
    """The options with these names and values, from the query and a form."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if given.setdefault(name, value) != value:
            raise InvalidParameterError(f"{shorten(name, MAX_NAME)}: it is given twice, and differently; give it once")
    try:
        return PredictOptions.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{shorten(str(problem['loc'][-1]), MAX_NAME)}: {problem['msg']}" for problem in found[:MAX_PROBLEMS]
        ]
        more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        raise InvalidParameterError(f"{'; '.join(problems)}{more}; /docs lists the options") from None
