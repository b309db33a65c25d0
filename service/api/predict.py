"""POST /predict and POST /predict/batch, as ASGI endpoints of the router.

FastAPI's dependencies and validation of the body would cost as much as all other work on a small picture. These are
therefore plain Starlette routes, which `service.api.routes` describes in the OpenAPI document.
`service.server.fast_path` calls the same functions without ASGI.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from time import perf_counter
from typing import Literal, TypeVar
from urllib.parse import parse_qsl

import structlog
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imaging.fast_codecs import FileFormat
from service.api.prediction_json import add_points, describe_answer
from service.api.request_body import COPIED_IN_PLACE, MAX_NAME, Body, Fields, read_one, read_several
from service.errors import InternalError, InvalidParameterError, RequestError, TooLargeError, shorten
from service.inference.admission import Permit
from service.inference.preprocessing import Upload
from service.inference.rectified.options import MAX_SIDE, RectifiedOptions, read_size
from service.inference.registry import Model
from service.inference.views.options import ViewOptions
from service.middleware.auth import Access, Requirement
from service.request_context import is_alone, queued_s, record_route
from service.responses import RawResponse, describe_error, error_response, send_response, to_bytes
from service.schemas import AnswerOptions, PredictOptions
from service.settings import Settings
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

OptionsType = TypeVar("OptionsType", bound=AnswerOptions)

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
        return await self.answer_with(self._answer_json, PredictOptions, query, body)

    async def answer_with(
        self,
        answer: Callable[[Model, Upload, OptionsType, int], Awaitable[RawResponse]],
        kind: type[OptionsType],
        query: bytes,
        body: Body,
    ) -> RawResponse:
        """Read one picture and options of a ``kind``, and return their ``answer``; see `answer_one`."""
        options = read_options(query, kind)
        model = self._find(options)
        timeout_ms = read_timeout(body, self._settings.timeout_ms)
        with Permit(model.limiter) as permit:
            upload, fields = await read_one(body, self._settings.max_bytes, self._settings.max_json_bytes, permit)
            if fields:
                options, model = self._apply(fields, query, permit, model, kind)
            self._take_views(options, 1)
            permit.take(pictures=1 + wanted_views(options).needed)
            return await answer(model, upload, options, timeout_ms)

    async def answer_several(self, query: bytes, body: Body) -> RawResponse:
        """Answer a request for several pictures; see `answer_one`."""
        options = read_options(query, PredictOptions)
        model = self._find(options)
        settings = self._settings
        timeout_ms = read_timeout(body, settings.timeout_ms)

        async def answer_or_error(upload: Upload) -> bytes:
            try:
                if len(upload.data) > settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {settings.max_bytes} bytes; scale it down")
                permit.take(pictures=1 + wanted_views(options).needed)
                return await self.describe(model, upload, options, rectified, timeout_ms)
            except RequestError as error:
                self._state.recorder.rejected(error.code, (model.name, model.version))
                return to_bytes(describe_error(error, SEVERAL))

        with Permit(model.limiter) as permit:
            form = await read_several(body, settings.max_batch_bytes, settings.max_bytes, settings.max_pictures, permit)
            if form.fields:
                options, model = self._apply(form.fields, query, permit, model, PredictOptions)
            self._take_views(options, len(form.uploads))
            check_points(options.points, model, len(form.uploads))
            images = len(form.uploads) * len(model.manifest.transforms)
            rectified = rectified_options(options, options.rectified, images, settings)
            try:
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(answer_or_error(upload)) for upload in form.uploads]
            except BaseExceptionGroup as group_error:
                if group_error.subgroup(ClientDisconnect) is not None:
                    raise ClientDisconnect from None
                raise
            return RawResponse(b'{"results":[%b]}' % b",".join([answer.result() for answer in answers]))

    def _apply(
        self, fields: Fields, query: bytes, permit: Permit, model: Model, kind: type[OptionsType]
    ) -> tuple[OptionsType, Model]:
        """Merge the options of query and form, and move the permit to the model that they name."""
        options = check_options([*read_pairs(query), *fields], kind)
        if {"model", "version"}.isdisjoint(name for name, _ in fields):
            return options, model
        model = self._find(options)
        permit.move_to(model.limiter)
        return options, model

    def _take_views(self, options: AnswerOptions, pictures: int) -> None:
        """Count the views of so many ``pictures`` towards the limits of requests.

        Raises:
            TooLargeError: with them, there are more pictures than a request may have.
            RateLimitedError: the client has sent too many.
        """
        if not (views := pictures * wanted_views(options).needed):
            return
        if pictures + views > self._settings.max_pictures:
            raise TooLargeError(
                f"{pictures} pictures with {views} views of them are more than the {self._settings.max_pictures} of a "
                "request (max_pictures); ask for fewer views, or send fewer pictures"
            )
        if self._state.rate_limiter is not None:
            self._state.rate_limiter.count_views(views)

    def _find(self, options: AnswerOptions) -> Model:
        """Return the requested model, which must be a classifier."""
        model = self._state.engine.find(options.model, options.version)
        if model.manifest.task != "classification":
            raise InvalidParameterError(
                f"{model.name} is not a classifier; POST /v2/models/{model.name}/infer returns its outputs, or name "
                "another model"
            )
        return model

    async def _answer_json(self, model: Model, upload: Upload, options: PredictOptions, timeout_ms: int) -> RawResponse:
        images = len(model.manifest.transforms)
        rectified = rectified_options(options, options.rectified, images, self._settings)
        return RawResponse(await self.describe(model, upload, options, rectified, timeout_ms, is_alone=is_alone()))

    async def describe(
        self,
        model: Model,
        upload: Upload,
        options: AnswerOptions,
        rectified: RectifiedOptions | None,
        timeout_ms: int,
        *,
        is_alone: bool = False,
    ) -> bytes:
        """Return the JSON of one picture. A batch joins these, since to write it at a time would block the loop."""
        started = perf_counter() - queued_s()
        answer = await self._state.engine.predict(
            model, upload, rectified, timeout_ms, wanted_views(options), is_alone=is_alone
        )

        def describe() -> bytes:
            description = describe_answer(answer, options.top_k, (perf_counter() - started) * 1000)
            if options.points:
                add_points(description, answer, options.points)
            return to_bytes(description)

        size = sum(len(file.content) for file in answer.rectified or ())
        if size > COPIED_IN_PLACE:
            return await asyncio.to_thread(describe)
        if not options.points:
            return describe()
        began = perf_counter()
        content = describe()
        self._state.engine.turns.record(perf_counter() - began)
        return content


def rectified_options(
    options: AnswerOptions, picture_format: FileFormat | Literal["none"], images: int, settings: Settings
) -> RectifiedOptions | None:
    """Return the form of each of the ``images`` of a request; None if there are to be none.

    Raises:
        TooLargeError: together they would have too many pixels.
    """
    if picture_format == "none":
        return None
    size = read_size(options.rectified_size)
    if size == "model":
        return RectifiedOptions(picture_format)
    share = settings.max_rectified_pixels // images
    pixels = math.prod(size) if not isinstance(size, str) else 1
    if pixels > share or (not isinstance(size, str) and max(size) > MAX_SIDE):
        raise TooLargeError(
            f"rectified_size={options.rectified_size} is too large: {images} rectified images of one response may have"
            f" {share} pixels each (max_rectified_pixels), and at most {MAX_SIDE} on each side; ask for smaller ones"
        )
    return RectifiedOptions(picture_format, size, options.padding, options.margin, share)


def wanted_views(options: AnswerOptions) -> ViewOptions:
    """Return the views that ``options`` ask for."""
    return ViewOptions(options.reliability, options.views)


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


def read_options(query: bytes, kind: type[OptionsType]) -> OptionsType:
    """Parse the options in a query.

    Raises:
        InvalidParameterError: an option is unknown or wrong.
    """
    if len(query) > LONGEST_QUERY:
        return check_options(read_pairs(query), kind)
    options = cached_options(query, kind)
    assert isinstance(options, kind)  # noqa: S101 - the cache forgets the type
    return options


@lru_cache(maxsize=256)
def cached_options(query: bytes, kind: type[AnswerOptions]) -> AnswerOptions:
    """See `read_options`."""
    return check_options(read_pairs(query), kind)


def read_pairs(query: bytes) -> list[tuple[str, str]]:
    """Return the names and values in a query."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_OPTIONS)
    except ValueError:
        raise InvalidParameterError(f"the query has more than {MAX_OPTIONS} options; /docs lists them") from None


def check_options(pairs: Iterable[tuple[str, str]], kind: type[OptionsType]) -> OptionsType:
    """Validate the names and values of options, from the query and a form."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if given.setdefault(name, value) != value:
            raise InvalidParameterError(f"{shorten(name, MAX_NAME)}: it has two different values; send it once")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{shorten(str((problem['loc'] or ('options',))[-1]), MAX_NAME)}: {problem['msg']}"
            for problem in found[:MAX_PROBLEMS]
        ]
        more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        raise InvalidParameterError(f"{'; '.join(problems)}{more}; /docs lists the options") from None
