"""Adds headers that protect the users of browsers."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.request_context import path_within

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
PROTECTION = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cache-control": b"no-store",
}
"""Headers of every response to a request that is not a POST, unless the response has its own."""
DOCUMENTATION = {
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
    b"'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
}
"""The policy that Swagger UI needs. Its page never shows content from clients."""


class SecurityHeadersMiddleware:
    """Adds the headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = None if scope["method"] == "POST" else path_within(scope)

        def send_protected(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], NO_SNIFFING]
                message["headers"] = headers if path is None else protected(path, headers)
            return send(message)

        await self._app(scope, receive, send_protected)


def protected(path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return ``headers`` with the missing ones of `PROTECTION`."""
    added = PROTECTION | DOCUMENTATION if path == "/docs" else PROTECTION
    present = {name.lower() for name, _ in headers}
    if b"etag" in present:  # a file, which may be cached
        present.add(b"cache-control")
    return headers + [(name, value) for name, value in added.items() if name not in present]
