"""Who may do what: decided once for each request, by its path, before any other part of the service sees it.

open      health, the documentation and the page: everybody
metrics   everybody, or whoever has a key (``metrics_need_key``)
admin     everything under /v2/repository: whoever has an admin key; nobody if there is none
keyed     all the rest: whoever has a key; everybody if there is none
"""

import math
import time
from collections.abc import Awaitable, Iterable
from typing import NamedTuple

from fastapi import FastAPI
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.predict import refuse
from service.errors import (
    ForbiddenError,
    HeadTooLargeError,
    RateLimitedError,
    RequestError,
    SettingsError,
    UnauthorizedError,
)
from service.middleware.access_log import headers_of
from service.middleware.api_keys import hash_key, load_keys
from service.request_context import record_key
from service.settings import Settings

ADMIN = "/v2/repository"
METRICS = "/metrics"
OPEN = frozenset(
    {"/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
)
OPEN_FOLDERS = ("/page/", "/swagger/")
"""What the page and the documentation are made of."""
SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
MAX_HEADERS = 100
BEARER = b"bearer "
Headers = Iterable[tuple[bytes, bytes]]


class Principal(NamedTuple):
    """Says that a request may be answered."""

    key: str | None
    """Whose key it has, where keys are needed."""


EVERYBODY = Principal(None)


class AuthMiddleware:
    """Lets a request pass to ``app``, or says why not."""

    def __init__(self, app: ASGIApp, rules: "AccessPolicy") -> None:
        self._app = app
        self._rules = rules

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            try:
                self._rules.check(scope)
            except RequestError as error:
                return refuse(send, error, scope["path"])
        return self._app(scope, receive, send)


class AccessPolicy:
    """Who may do what."""

    def __init__(self, settings: Settings) -> None:
        """Reads the keys.

        Raises:
            SettingsError: keys or rate limits are not what they should be.
        """
        self._admins = load_keys("admin-keys", settings.admin_keys, settings.admin_keys_file)
        self._users = load_keys("api-keys", settings.api_keys, settings.api_keys_file)
        self._metrics_open = not settings.metrics_need_key
        self._rate = Rate(settings.rate_limit) if settings.rate_limit else None
        self._all_open = not self._users and self._rate is None

    def check(self, scope: Scope) -> None:
        """Note whose the request is.

        Raises:
            HeadTooLargeError: it has too many headers.
            UnauthorizedError: it needs a key.
            ForbiddenError: it needs another key.
            RateLimitedError: its client has made too many.
        """
        if len(scope["headers"]) > MAX_HEADERS:
            raise HeadTooLargeError(f"the request has more than {MAX_HEADERS} headers; send fewer")
        path: str = scope["path"]
        client = None
        if path.startswith(ADMIN):
            client = self._admin(scope["headers"])
        elif self._all_open or self._is_open(path):
            return
        elif self._users:
            client = self._user(scope["headers"])
        if client is not None:
            record_key(client)
        if self._rate is not None:
            self._rate.count(f"key {client}" if client is not None else f"address {(scope['client'] or ('',))[0]}")

    def owner(self, headers: bytes) -> Principal | None:
        """Whose a request with these headers, as they came, is; None if it is not to be answered without `check`.

        It lacks a key, or has too many headers; and where there are rates, each has to be counted.
        """
        if headers.count(b"\n") > MAX_HEADERS:
            return None
        if self._all_open:
            return EVERYBODY
        if self._rate is not None:
            return None
        try:
            return Principal(self._user(headers_of(headers)))
        except RequestError:
            return None

    def describe(self, app: FastAPI) -> None:
        """Say in the OpenAPI document of ``app`` which routes ask for a key, and how it is sent."""
        if not (self._users or self._admins):
            return
        document = app.openapi()  # which keeps it
        errors: list[type[RequestError]] = [UnauthorizedError, ForbiddenError]
        if self._rate is not None:
            errors.append(RateLimitedError)
        document["components"]["securitySchemes"] = SCHEMES
        for path, operations in document["paths"].items():
            if not (path.startswith(ADMIN) or (self._users and not self._is_open(path))):
                continue
            for operation in operations.values():
                operation["security"] = [{name: []} for name in SCHEMES]
                for error in errors:
                    description = {"description": f"`{error.code}`: {error.__doc__}"}
                    operation["responses"].setdefault(str(error.status), description)

    def _is_open(self, path: str) -> bool:
        """Whether everybody may have ``path``, as often as they like."""
        return path in OPEN or path.startswith(OPEN_FOLDERS) or (path == METRICS and self._metrics_open)

    def _admin(self, headers: Headers) -> str:
        """The name of the admin key in ``headers``."""
        if not self._admins:
            raise ForbiddenError("models cannot be changed here; to allow it, start the service with --admin-keys")
        hashed = hash_key(presented(headers))
        name = self._admins.owner(hashed)
        if name is None and self._users.owner(hashed) is not None:
            raise ForbiddenError("this needs an admin key; the key that was sent is none")
        return known(name)

    def _user(self, headers: Headers) -> str:
        """The name of the key in ``headers``; admin keys will do."""
        hashed = hash_key(presented(headers))
        user, admin = self._users.owner(hashed), self._admins.owner(hashed)
        return known(admin if user is None else user)


class Rate:
    """How often a client may ask, by a sliding window, in this process."""

    def __init__(self, limits: str) -> None:
        """``limits`` as in ``10/second;1000/hour``.

        Raises:
            SettingsError: they cannot be read.
        """
        try:
            self._limits: list[RateLimitItem] = parse_many(limits)
        except ValueError as error:
            raise SettingsError(f"--rate-limit {limits!r} is not like 100/second or 10/second;1000/hour") from error
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, client: str) -> None:
        """Note a request of ``client``.

        Raises:
            RateLimitedError: it has made too many.
        """
        for limit in self._limits:
            if not self._windows.hit(limit, client):
                reset = self._windows.get_window_stats(limit, client).reset_time
                raise RateLimitedError(f"no more than {limit} are allowed; wait a little", wait_s(reset))


def wait_s(until: float) -> int:
    """Whole seconds until a time, at least one."""
    return max(1, math.ceil(until - time.time()))


def presented(headers: Headers) -> bytes:
    """The key in ``headers``.

    Raises:
        UnauthorizedError: there is none.
    """
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
            return value[len(BEARER) :].strip()
    raise UnauthorizedError("a key is needed; send it as Authorization: Bearer KEY or as X-API-Key: KEY")


def known(name: str | None) -> str:
    """``name``, unless there is none.

    Raises:
        UnauthorizedError: there is none.
    """
    if name is None:
        raise UnauthorizedError("this key is not known; is it whole, and still in use?")
    return name


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """``app``, which web pages of these origins may use too: ``https://a.example,...`` or ``*``."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[origin.strip().rstrip("/") for origin in origins.split(",")],
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=["X-Request-ID", "Retry-After", "Inference-Header-Content-Length"],
    )
