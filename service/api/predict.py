"""POST /predict and POST /predict/batch, as ASGI endpoints of the router.

FastAPI's dependencies and validation of the body would cost as much as all other work on a small picture. These are
therefore plain Starlette routes, which `service.api.routes` describes in the OpenAPI document.
`service.server.fast_path` calls the same functions without ASGI.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from time import perf_counter
from urllib.parse import parse_qsl

import structlog
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imaging.fast_codecs import FileFormat
from service.api.prediction_json import add_points, describe_answer
from service.api.request_body import MAX_NAME, Body, Fields, read_one, read_several
from service.errors import InternalError, InvalidParameterError, RequestError, TooLargeError, shorten
from service.inference.admission import Permit
from service.inference.preprocessing import Upload
from service.inference.registry import Model
from service.middleware.auth import Access, Requirement
from service.request_context import is_alone, queued_s, record_route
from service.responses import RawResponse, describe_error, error_response, send_response, to_bytes
from service.schemas import PredictOptions
from service.state import ServiceState

ONE = "/predict"
SEVERAL = "/predict/batch"
TIMEOUT = b"x-timeout-ms"
LONGEST_QUERY = 200
"""Largest query in bytes whose options are cached."""
MAX_OPTIONS = 32
"""Maximum number of options in a query."""
MAX_PROBLEMS = 3
"""Maximum number of wrong options in an error."""
MAX_POINTS = 64 * 2**10
"""Sampled points in the response to one request; each takes up to 40 bytes."""

log = structlog.get_logger(__name__)


class Predict:
    """Answers both routes."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._settings = state.settings

    async def answer_one(self, query: bytes, body: Body) -> RawResponse:
        """Answer a request for one picture.

        Raises:
            RequestError: there is no prediction.
            ClientDisconnect: the client has disconnected.
        """
        options = read_options(query)
        model = self._find(options)
        timeout_ms = read_timeout(body, self._settings.timeout_ms)
        with Permit(model.limiter) as permit:
            upload, fields = await read_one(body, self._settings.max_bytes, self._settings.max_json_bytes, permit)
            if fields:
                options, model = self._apply(fields, query, permit, model)
            permit.take(pictures=1)
            return RawResponse(await self._answer(model, upload, options, timeout_ms, is_alone=is_alone()))

    async def answer_several(self, query: bytes, body: Body) -> RawResponse:
        """Answer a request for several pictures; see `answer_one`."""
        options = read_options(query)
        model = self._find(options)
        settings = self._settings
        timeout_ms = read_timeout(body, settings.timeout_ms)

        async def answer_or_error(upload: Upload) -> bytes:
            try:
                if len(upload.data) > settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {settings.max_bytes} bytes; scale it down")
                permit.take(pictures=1)
                return await self._answer(model, upload, options, timeout_ms)
            except RequestError as error:
                self._state.recorder.rejected(error.code, (model.name, model.version))
                return to_bytes(describe_error(error, SEVERAL))

        with Permit(model.limiter) as permit:
            form = await read_several(body, settings.max_batch_bytes, settings.max_bytes, settings.max_pictures, permit)
            if form.fields:
                options, model = self._apply(form.fields, query, permit, model)
            check_points(options.points, model, len(form.uploads))
            try:
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(answer_or_error(upload)) for upload in form.uploads]
            except BaseExceptionGroup as group_error:
                if group_error.subgroup(ClientDisconnect) is not None:
                    raise ClientDisconnect from None
                raise
            return RawResponse(b'{"results":[%b]}' % b",".join([answer.result() for answer in answers]))

    def _apply(self, fields: Fields, query: bytes, permit: Permit, model: Model) -> tuple[PredictOptions, Model]:
        """Merge the options of query and form, and move the permit to the model that they name."""
        options = check_options([*read_pairs(query), *fields])
        if {"model", "version"}.isdisjoint(name for name, _ in fields):
            return options, model
        model = self._find(options)
        permit.move_to(model.limiter)
        return options, model

    def _find(self, options: PredictOptions) -> Model:
        """Return the requested model, which must be a classifier."""
        model = self._state.engine.find(options.model, options.version)
        if model.manifest.task != "classification":
            raise InvalidParameterError(
                f"{model.name} is not a classifier; POST /v2/models/{model.name}/infer returns its outputs, or name "
                "another model"
            )
        return model

    async def _answer(
        self, model: Model, upload: Upload, options: PredictOptions, timeout_ms: int, *, is_alone: bool = False
    ) -> bytes:
        """Return the JSON of one picture. A batch joins these, since to write it at a time would block the loop."""
        started = perf_counter() - queued_s()
        rectified: FileFormat | None = None if options.rectified == "none" else options.rectified
        answer = await self._state.engine.predict(model, upload, rectified, timeout_ms, is_alone=is_alone)
        description = describe_answer(answer, options.top_k, rectified, (perf_counter() - started) * 1000)
        if not options.points:
            return to_bytes(description)
        began = perf_counter()
        add_points(description, answer, options.points)
        content = to_bytes(description)
        self._state.engine.turns.record(perf_counter() - began)
        return content


def check_points(side: int, model: Model, pictures: int) -> None:
    """Raise `TooLargeError` if an answer would have too many points: ``side`` x ``side`` a transformer and picture."""
    points = side**2 * len(model.manifest.transforms) * pictures
    if points > MAX_POINTS:
        raise TooLargeError(
            f"{points} points are more than the {MAX_POINTS} of a request; ask for fewer, or send fewer pictures"
        )


def read_timeout(body: Body, most_ms: int) -> int:
    """Return the milliseconds in the header X-Timeout-Ms, at most ``most_ms``.

    Raises:
        InvalidParameterError: the header is not a number.
    """
    for name, value in body.headers:
        if name == TIMEOUT:
            if not (value.isdigit() and len(value) < 10 and int(value) > 0):
                raise InvalidParameterError("X-Timeout-Ms must be a whole number of milliseconds above 0")
            return min(int(value), most_ms)
    return most_ms


class Endpoint:
    """An ASGI endpoint that sends the result or error of ``answer`` as the response."""

    def __init__(
        self, route: str, answer: Callable[[Scope, Body], Awaitable[RawResponse]], requirement: Requirement
    ) -> None:
        """``route`` is the documented path. ``requirement`` checks the key."""
        self._route = route
        self._answer = answer
        self._requirement = requirement

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record_route(self._route)
        response = await outcome(self._authorized(scope, Body(scope["headers"], receive)), self._route)
        if response is not None:
            await send_response(send, response)

    async def _authorized(self, scope: Scope, body: Body) -> RawResponse:
        self._requirement.enforce(scope)
        return await self._answer(scope, body)


def create_predict_routes(state: ServiceState) -> list[Route]:
    """Create both routes, without their descriptions."""
    predict = Predict(state)
    requirement = Requirement(state.policy, Access.USER)

    def one(scope: Scope, body: Body) -> Awaitable[RawResponse]:
        return predict.answer_one(scope["query_string"], body)

    def several(scope: Scope, body: Body) -> Awaitable[RawResponse]:
        return predict.answer_several(scope["query_string"], body)

    return [
        Route(path, Endpoint(path, answer, requirement), methods=["POST"], include_in_schema=False)
        for path, answer in ((ONE, one), (SEVERAL, several))
    ]


async def outcome(work: Awaitable[RawResponse], path: str) -> RawResponse | None:
    """Return the response of ``work`` or of its error; None if the client has disconnected."""
    try:
        return await work
    except RequestError as error:
        return error_response(error, path)
    except ClientDisconnect:
        return None
    except Exception:
        log.exception("unhandled_exception")
        return error_response(InternalError(), path)


def read_options(query: bytes) -> PredictOptions:
    """Parse the options in a query.

    Raises:
        InvalidParameterError: an option is unknown or wrong.
    """
    return read_query(query) if len(query) > LONGEST_QUERY else cached_options(query)


def read_query(query: bytes) -> PredictOptions:
    """See `read_options`."""
    return check_options(read_pairs(query))


cached_options = lru_cache(maxsize=256)(read_query)


def read_pairs(query: bytes) -> list[tuple[str, str]]:
    """Return the names and values in a query."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_OPTIONS)
    except ValueError:
        raise InvalidParameterError(f"the query has more than {MAX_OPTIONS} options; /docs lists them") from None


def check_options(pairs: Iterable[tuple[str, str]]) -> PredictOptions:
    """Validate the names and values of options, from the query and a form."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if given.setdefault(name, value) != value:
            raise InvalidParameterError(f"{shorten(name, MAX_NAME)}: it has two different values; send it once")
    try:
        return PredictOptions.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{shorten(str(problem['loc'][-1]), MAX_NAME)}: {problem['msg']}" for problem in found[:MAX_PROBLEMS]
        ]
        more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        raise InvalidParameterError(f"{'; '.join(problems)}{more}; /docs lists the options") from None
