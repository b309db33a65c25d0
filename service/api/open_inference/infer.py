"""POST /v2/models/M/infer, as a plain ASGI application. `service.api.open_inference.routes` describes it."""

import asyncio
import re
from time import perf_counter

from starlette.types import Receive, Scope, Send

from service.api.open_inference.compression import inflate
from service.api.open_inference.requests import read_request
from service.api.open_inference.responses import JSON_LENGTH, write_response
from service.api.predict import read_timeout, respond
from service.api.request_body import COPIED_IN_PLACE, IN_PLACE_BYTES, Body
from service.errors import ModelNotFoundError
from service.inference.admission import Permit
from service.inference.engine import Engine
from service.inference.registry import Model
from service.request_context import held_s, record_route
from service.responses import RawResponse
from service.settings import Settings

PATH = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
ROUTE = "/v2/models/{name}/infer"
"""For metrics, where the version has a label of its own."""
ENCODING = b"content-encoding"
VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Infer:
    """The route over ``engine``. Clients send no Content-Type, so the body is read as the protocol has it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, in whose scope are the ``path_params`` of `PATH`."""
        record_route(ROUTE)
        await respond(send, self._infer(scope, receive), scope["path"])

    async def _infer(self, scope: Scope, receive: Receive) -> RawResponse:
        model = find_model(self._engine, **scope["path_params"])
        settings = self._settings
        body = Body(scope["headers"], receive)
        patience_ms = read_timeout(body, settings.timeout_ms)
        headers = dict(body.headers)
        json_length = headers.get(JSON_LENGTH)
        max_bytes = settings.max_bytes if json_length is None else settings.max_batch_bytes
        with Permit(model.room) as permit:
            content = await body.read(max_bytes, permit)
            arrived = perf_counter() - held_s()
            deadline = arrived + patience_ms / 1000
            if ENCODING in headers:
                encoding = headers[ENCODING].decode("latin-1")
                content = await inflate(content, encoding, max_bytes, permit, deadline)
            request = content, json_length, model.manifest, settings
            is_small = len(content) <= (IN_PLACE_BYTES if json_length is None else COPIED_IN_PLACE)
            question = read_request(*request) if is_small else await asyncio.to_thread(read_request, *request)
            permit.take(pictures=len(question.pictures))
            if question.timeout_ms:
                deadline = min(deadline, arrived + question.timeout_ms / 1000)
            readings = await self._engine.infer(model, question.pictures, deadline)
            return write_response(model, question, readings)


def find_model(engine: Engine, name: str, version: str | None = None) -> Model:
    """The model that a path names.

    Raises:
        ModelNotFoundError: there is none.
    """
    if version is not None and not VERSION.fullmatch(version):
        raise ModelNotFoundError(f"{version[:40]!r} is no version; versions are whole numbers from 1")
    return engine.find(name, None if version is None else int(version))
