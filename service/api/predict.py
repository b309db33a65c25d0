"""POST /predict and POST /predict/batch, as ASGI endpoints of the router.

FastAPI's dependencies and validation of the body would cost as much as all other work on a small picture. These are
therefore plain Starlette routes, which `service.api.routes` describes in the OpenAPI document.
`service.server.fast_path` calls the same functions without ASGI.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Literal

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imaging.encoding import FileFormat
from service.api.options import OptionsType, check_options, read_options, read_pairs
from service.api.prediction_json import add_points, describe_answer
from service.api.request_body import COPIED_IN_PLACE, Body, Fields, read_one, read_several
from service.errors import InternalError, InvalidParameterError, RequestError, TooLargeError
from service.inference.admission import Permit
from service.inference.engine import Answer
from service.inference.preprocessing import Upload
from service.inference.rectified.options import MAX_SIDE, RectifiedOptions, read_size
from service.inference.registry import Model
from service.inference.views.options import NO_VIEWS, ViewOptions
from service.middleware.auth import Access, Requirement
from service.request_context import is_alone, queued_s, record_route
from service.response_cache import batch_status, is_hit
from service.responses import JSON_ALONE, Header, RawResponse, describe_error, error_response, send_response, to_bytes
from service.schemas.options import AnswerOptions, PredictOptions
from service.settings import Settings
from service.state import ServiceState

PREDICT_PATH = "/predict"
BATCH_PATH = "/predict/batch"
TIMEOUT = b"x-timeout-ms"
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
            count_pictures(self._state, options, 1)
            permit.take(pictures=pictures_of(options))
            return await answer(model, upload, options, timeout_ms)

    async def answer_several(self, query: bytes, body: Body) -> RawResponse:
        """Answer a request for several pictures; see `answer_one`."""
        options = read_options(query, PredictOptions)
        model = self._find(options)
        settings = self._settings
        timeout_ms = read_timeout(body, settings.timeout_ms)

        async def answer_or_error(upload: Upload) -> RawResponse:
            try:
                if len(upload.data) > settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {settings.max_bytes} bytes; scale it down")
                permit.take(pictures=pictures_of(options))
                return await self.describe(model, upload, options, rectified, timeout_ms)
            except RequestError as error:
                self._state.recorder.rejected(error.code, (model.name, model.version))
                return RawResponse(to_bytes(describe_error(error, BATCH_PATH)))

        with Permit(model.limiter) as permit:
            form = await read_several(body, settings.max_batch_bytes, settings.max_bytes, settings.max_pictures, permit)
            if form.fields:
                options, model = self._apply(form.fields, query, permit, model, PredictOptions)
            count_pictures(self._state, options, len(form.uploads))
            images = images_of(model, options, len(form.uploads))
            rectified = rectified_options(options, options.rectified, images, settings)
            try:
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(answer_or_error(upload)) for upload in form.uploads]
            except BaseExceptionGroup as group_error:
                if group_error.subgroup(ClientDisconnect) is not None:
                    raise ClientDisconnect from None
                raise
            results = [answer.result() for answer in answers]
            headers: tuple[Header, ...] = JSON_ALONE
            if self._state.response_cache is not None:
                headers = (*headers, batch_status(sum(map(is_hit, results)), len(results)))
            return RawResponse(b'{"results":[%b]}' % b",".join([result.content for result in results]), headers)

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

    def _find(self, options: AnswerOptions) -> Model:
        """Return the requested model, which must be a classifier."""
        model = self._state.engine.route(options.model, options.version)
        if model.manifest.task != "classification":
            raise InvalidParameterError(
                f"{model.name} is not a classifier; POST /v2/models/{model.name}/infer returns its outputs, or name "
                "another model"
            )
        return model

    async def _answer_json(self, model: Model, upload: Upload, options: PredictOptions, timeout_ms: int) -> RawResponse:
        images = images_of(model, options)
        rectified = rectified_options(options, options.rectified, images, self._settings)
        return await self.describe(model, upload, options, rectified, timeout_ms, is_alone=is_alone())

    async def describe(
        self,
        model: Model,
        upload: Upload,
        options: AnswerOptions,
        rectified: RectifiedOptions | None,
        timeout_ms: int,
        *,
        is_alone: bool = False,
    ) -> RawResponse:
        """Return the JSON of one picture. A batch joins these, since to write it at a time would block the loop."""
        answer = partial(self._describe, model, upload, options, rectified, timeout_ms, is_alone)
        return await self.remember(answer, model, upload, options, rectified)

    async def remember(
        self,
        answer: Callable[[], Awaitable[RawResponse]],
        model: Model,
        upload: Upload,
        options: AnswerOptions,
        rectified: RectifiedOptions | None,
    ) -> RawResponse:
        """Return what the cache has for the same picture and options, else what ``answer`` returns."""
        cache, turns = self._state.response_cache, self._state.engine.turns
        if cache is None:
            return await answer()
        await turns.wait()
        began = perf_counter()
        key = await cache.key(upload.data, model.name, model.version, model.digest, options, rectified)
        turns.record(perf_counter() - began)
        return cache.find(key, (model.name, model.version)) or cache.keep(key, await answer())

    async def _describe(
        self,
        model: Model,
        upload: Upload,
        options: AnswerOptions,
        rectified: RectifiedOptions | None,
        timeout_ms: int,
        is_alone: bool,
    ) -> RawResponse:
        started = perf_counter() - queued_s()
        engine, views = self._state.engine, wanted_views(options)
        if options.region:
            answers = await engine.predict_regions(
                model, upload, options.region, rectified, timeout_ms, views, options.angle_hint
            )
            written = [await self._write(each, options, started) for each in answers]
            return RawResponse(b'{"regions":[%b]}' % b",".join(written))
        answer = await engine.predict(
            model, upload, rectified, timeout_ms, views, options.angle_hint, is_alone=is_alone
        )
        return RawResponse(await self._write(answer, options, started))

    async def _write(self, answer: Answer, options: AnswerOptions, started: float) -> bytes:
        """Return the JSON of ``answer``."""

        def describe() -> bytes:
            description = describe_answer(answer, options.top_k, (perf_counter() - started) * 1000)
            if options.points:
                add_points(description, answer, options.points)
            return to_bytes(description)

        size = sum(len(file.content) for file in answer.rectified or ())
        if size > COPIED_IN_PLACE:
            return await asyncio.to_thread(describe)
        if not options.points and not options.region:
            return describe()
        turns = self._state.engine.turns
        await turns.wait()
        began = perf_counter()
        content = describe()
        turns.record(perf_counter() - began)
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
    return ViewOptions(options.reliability, options.views) if options.reliability or options.views else NO_VIEWS


def regions_of(options: AnswerOptions) -> int:
    """Return how many parts of one upload are predicted: each of its regions, or the whole picture."""
    return len(options.region) or 1


def pictures_of(options: AnswerOptions) -> int:
    """Return how many pictures the model is shown for one upload: its regions with their views."""
    return regions_of(options) * (1 + wanted_views(options).needed)


def count_pictures(state: ServiceState, options: AnswerOptions, uploads: int) -> None:
    """Check how many pictures a request with so many ``uploads`` shows to the model, and count its views.

    Raises:
        TooLargeError: there are more regions and views than pictures in a request.
        RateLimitedError: the client has sent too many.
    """
    parts, most = uploads * regions_of(options), state.settings.max_pictures
    views = parts * wanted_views(options).needed
    if parts + views > most:
        what = f"{parts} regions" if options.region else f"{parts} pictures"
        seen = f" with {views} views of them" if views else ""
        raise TooLargeError(
            f"{what}{seen} are more than the {most} pictures of a request (max_pictures); ask for fewer, or send fewer "
            "pictures"
        )
    if views and state.rate_limiter is not None:
        state.rate_limiter.count_views(views)


def images_of(model: Model, options: AnswerOptions, uploads: int = 1) -> int:
    """Return the number of rectified images for ``uploads``.

    Raises:
        TooLargeError: the answer would have too many points, which are as many for each image.
    """
    images = uploads * regions_of(options) * len(model.manifest.transforms)
    points = options.points**2 * images
    if points > MAX_POINTS:
        raise TooLargeError(
            f"{points} points are more than the {MAX_POINTS} of a request; ask for fewer, or send fewer pictures"
        )
    return images


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
        for path, answer in ((PREDICT_PATH, one), (BATCH_PATH, several))
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
