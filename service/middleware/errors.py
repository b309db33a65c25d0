"""Answers unhandled exceptions, and reports a failed start in one line."""

import inspect
import sys
from collections.abc import Awaitable

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError, StartError


class ErrorMiddleware:
    """Answers unhandled exceptions inside of the other middleware, which logs and protects these answers too.

    As in Starlette, the exception is raised again afterwards, so that the server logs its traceback and tests see it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._start(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        def send_on(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            if started and isinstance(error.__cause__, RequestError):  # Starlette's, of a body that broke meanwhile
                raise error.__cause__ from None
            handler = scope["app"].exception_handlers.get(Exception)
            if handler is not None and not started:
                request = Request(scope)
                response = handler(request, error)
                if inspect.isawaitable(response):
                    response = await response
                await response(scope, receive, send)
            raise

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan. A failed start is reported to the server by its message instead of a traceback."""

        def send_clearly(message: Message) -> Awaitable[None]:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, StartError):
                message = {**message, "message": f"error: {error}"}
            return send(message)

        await self._app(scope, receive, send_clearly)
