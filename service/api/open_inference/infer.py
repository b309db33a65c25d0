"""POST /v2/models/M/infer, as an ASGI endpoint, which `service.api.open_inference.routes` describes."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from time import perf_counter

from starlette.routing import Route
from starlette.types import Scope

from service.api.open_inference.compression import inflate
from service.api.open_inference.options import NO_OPTIONS
from service.api.open_inference.requests import LONGEST_NUMBER, read_request
from service.api.open_inference.responses import JSON_LENGTH, Inferred, write_response
from service.api.predict import Endpoint, count_pictures, pictures_of, read_timeout, wanted_views
from service.api.request_body import COPIED_IN_PLACE, IN_PLACE_BYTES, Body, Content
from service.errors import ModelNotFoundError
from service.inference.admission import Permit
from service.inference.registry import Model
from service.middleware.auth import Access, Requirement
from service.request_context import queued_s
from service.responses import RawResponse
from service.state import ServiceState

PATHS = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
ROUTE = PATHS[0]
"""The route label in metrics, where the version is a separate label."""
ENCODING = b"content-encoding"
VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Infer:
    """Answers the route. The Content-Type is ignored, since clients do not send it."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    async def answer(self, scope: Scope, body: Body) -> RawResponse:
        """Answer a request, whose scope has the ``path_params`` of the route.

        Raises:
            RequestError: there is no result.
            ClientDisconnect: the client has disconnected.
        """
        engine, settings = self._state.engine, self._state.settings
        named = {name: scope["path_params"].get(name) for name in ("name", "version")}
        model = find_model(partial(engine.route, same_tensors=True), **named)
        timeout_ms = read_timeout(body, settings.timeout_ms)
        headers = dict(body.headers)
        json_length = headers.get(JSON_LENGTH)
        max_bytes = settings.max_bytes if json_length is None else settings.max_batch_bytes
        with Permit(model.limiter) as permit:
            content = await body.read(max_bytes, permit)
            arrived = perf_counter() - queued_s()
            deadline = arrived + timeout_ms / 1000
            if ENCODING in headers:
                encoding = headers[ENCODING].decode("latin-1")
                content = await inflate(content, encoding, max_bytes, permit, deadline)
            inferred = await infer(self._state, model, permit, content, json_length, arrived, deadline)
            if not inferred.files:
                return write_response(model, inferred)
            return await asyncio.to_thread(write_response, model, inferred)


async def infer(
    state: ServiceState,
    model: Model,
    permit: Permit,
    content: Content,
    json_length: bytes | None,
    arrived: float,
    deadline: float,
) -> Inferred:
    """Read a request from ``content``, as `read_request` does, and infer its pictures.

    It arrived at the time ``arrived`` of `time.perf_counter`. Its parameter ``timeout`` may shorten the ``deadline``.

    Raises:
        RequestError: there is no result.
    """
    arguments = content, json_length, model.manifest, state.settings
    in_place = can_read_in_place(len(content), json_length)
    request = read_request(*arguments) if in_place else await asyncio.to_thread(read_request, *arguments)
    count_pictures(state, request.options, len(request.pictures))
    permit.take(pictures=len(request.pictures) * pictures_of(request.options))
    if request.timeout_ms:
        deadline = min(deadline, arrived + request.timeout_ms / 1000)
    engine, options = state.engine, request.options
    rectified = next((each.rectified for each in request.outputs if each.rectified is not None), None)
    if rectified is None and options == NO_OPTIONS:
        return Inferred(request, await engine.infer(model, request.pictures, deadline))
    answers = await engine.infer_parts(
        model, request.pictures, deadline, rectified, wanted_views(options), options.region, options.angle_hint
    )
    return Inferred(
        request,
        [answer.in_picture for answer in answers],
        [answer.rectified[0].content for answer in answers if answer.rectified is not None],
        [answer.reliability for answer in answers if answer.reliability is not None],
    )


def create_infer_routes(state: ServiceState) -> list[Route]:
    """Create the route with and without a version, without its description."""
    endpoint = Endpoint(ROUTE, Infer(state).answer, Requirement(state.policy, Access.USER))
    return [Route(path, endpoint, methods=["POST"], include_in_schema=False) for path in PATHS]


def can_read_in_place(size: int, json_length: bytes | None) -> bool:
    """Whether a body of ``size`` bytes is read in a moment: little of it is JSON, and not much has to be copied."""
    is_number = json_length is not None and json_length.isdigit() and len(json_length) <= LONGEST_NUMBER
    json_bytes = int(json_length) if is_number and json_length else size
    return size <= COPIED_IN_PLACE and json_bytes <= IN_PLACE_BYTES


def find_model(find: Callable[[str, int | None], Model], name: str, version: str | None = None) -> Model:
    """Return the model that a path names, as ``find`` finds it by name and version.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    if version is not None and not VERSION.fullmatch(version):
        raise ModelNotFoundError(f"{version[:40]!r} is not a version; versions are whole numbers from 1")
    return find(name, None if version is None else int(version))
