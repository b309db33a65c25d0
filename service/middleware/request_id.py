"""Creates the context of every request, and sends its id as X-Request-ID of the response."""

import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.redaction import Redactor
from service.request_context import RequestContext, current

REQUEST_ID = b"x-request-id"
SANE_ID = re.compile(rb"[\w.~+/=:@-]{1,128}", re.ASCII)

Headers = Iterable[tuple[bytes, bytes]]


class RequestIdMiddleware:
    """Creates the `RequestContext` of a request, as ``scope["request_context"]`` and in `request_context.current`."""

    def __init__(self, app: ASGIApp, redactor: Redactor) -> None:
        """``redactor`` recognises ids that are keys. Such a request gets another id."""
        self._app = app
        self._redactor = redactor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(request_id(scope["headers"], self._redactor))
        current.set(context)
        scope["request_context"] = context

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (REQUEST_ID, context.id.encode())]
            return send(message)

        await self._app(scope, receive, send_with_id)


def make_ids() -> Callable[[], str]:
    """Return a function that makes a new id at each call from a random prefix of this process and a count."""
    prefix = secrets.token_hex(8)
    count = itertools.count(1)
    return lambda: f"{prefix}-{next(count):x}"


new_id = make_ids()


def request_id(headers: Headers, redactor: Redactor) -> str:
    """Return the id that the client sent, unless it is malformed or ``redactor`` finds a key in it, else a new id."""
    for name, value in headers:
        if name == REQUEST_ID and SANE_ID.fullmatch(value):
            given = value.decode()
            return given if redactor.is_clean(given, headers) else new_id()
    return new_id()
