"""Authorises requests by their path within the application and their API key.

open      health, the documentation and the files of the page: no key
metrics   no key, or any key (``metrics_need_key``)
admin     everything under /v2/repository: an admin key; closed if the settings name none
user      all other paths, also added routes: any key; no key if the settings name none
"""

from collections.abc import Awaitable, Iterable
from enum import Enum
from typing import Annotated, Any, NamedTuple

from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ForbiddenError, HeadTooLargeError, RateLimitedError, RequestError, UnauthorizedError
from service.middleware.access_log import AccessLog
from service.middleware.api_keys import hash_key, load_keys
from service.middleware.request_id import new_id
from service.redaction import Redactor
from service.request_context import RequestContext, path_within, record_key
from service.responses import error_response, send_response
from service.settings import Settings

ADMIN = "/v2/repository"
METRICS = "/metrics"
OPEN = frozenset({"/docs", "/openapi.json", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
OPEN_FOLDERS = ("/swagger/",)
"""Folders with the files of the documentation."""
PAGE = "/"
PAGE_FOLDER = "/page/"
MAX_HEADERS = 100
BEARER = b"bearer "
POLICY_VIOLATION = 1008
"""The code that closes an unauthorised WebSocket."""
API_KEY_HEADER = APIKeyHeader(name="X-API-Key", scheme_name="key", auto_error=False)
BEARER_TOKEN = HTTPBearer(scheme_name="bearer", auto_error=False)
Headers = Iterable[tuple[bytes, bytes]]


class Access(Enum):
    """The access that a path requires."""

    OPEN = "open"
    USER = "user"
    ADMIN = "admin"


class Principal(NamedTuple):
    """The client of an authorised request."""

    key: str | None
    """The name of its key, if keys are required."""
    access: Access = Access.USER


EVERYBODY = Principal(None)
OPEN_TO_ALL = Principal(None, Access.OPEN)


class AuthMiddleware:
    """Adds the `Principal` of a request to its scope, or answers with an error."""

    def __init__(self, app: ASGIApp, policy: "AccessPolicy", access_log: AccessLog) -> None:
        """``access_log`` is for WebSockets, of which `AccessLogMiddleware` knows nothing."""
        self._app = app
        self._policy = policy
        self._access_log = access_log

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] in ("http", "websocket"):
            path = path_within(scope)
            try:
                scope["principal"] = self._policy.check(path, scope["headers"])
            except RequestError as error:
                if scope["type"] == "websocket":
                    context = RequestContext(new_id())
                    context.status, context.error = error.status, error.code
                    self._access_log.end("GET", path, scope.get("client"), context)
                    return send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return send_response(send, error_response(error, path))
            scope["policy"] = self._policy
        return self._app(scope, receive, send)


class AccessPolicy:
    """The keys of one application, and the access that each path requires."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys.

        Raises:
            SettingsError: the keys have a wrong form.
        """
        self._admins = load_keys("admin-keys", settings.admin_keys, settings.admin_keys_file)
        self._users = load_keys("api-keys", settings.api_keys, settings.api_keys_file)
        self._hashes = self._admins.hashes | self._users.hashes
        self._metrics_open = not settings.metrics_need_key
        self._page_open = settings.ui
        self._has_rates = bool(settings.rate_limit)
        self.all_open = not self._users
        """Whether paths of `Access.USER` need no key."""

    def access(self, path: str) -> Access:
        """Return the access that a path within the application requires."""
        if path.startswith(ADMIN):
            return Access.ADMIN
        if path in OPEN or path.startswith(OPEN_FOLDERS) or (path == METRICS and self._metrics_open):
            return Access.OPEN
        if self._page_open and (path == PAGE or path.startswith(PAGE_FOLDER)):
            return Access.OPEN
        return Access.USER

    def check(self, path: str, headers: list[tuple[bytes, bytes]]) -> Principal:
        """Authorise a request to ``path``; see `authorize`."""
        return self.authorize(self.access(path), headers)

    def authorize(self, access: Access, headers: list[tuple[bytes, bytes]]) -> Principal:
        """Authorise a request for ``access``, and record the name of its key.

        Raises:
            HeadTooLargeError: the request has too many headers.
            UnauthorizedError: a key is required.
            ForbiddenError: another key is required.
        """
        if len(headers) > MAX_HEADERS:  # before they are searched for a key; HTTP, WebSockets and gRPC all come here
            raise HeadTooLargeError(f"the request has more than {MAX_HEADERS} headers; send fewer")
        if access is Access.OPEN:
            return OPEN_TO_ALL
        if access is Access.USER and self.all_open:
            return EVERYBODY
        name = self._admin(headers) if access is Access.ADMIN else self._user(headers)
        record_key(name)
        return Principal(name, access)

    def is_key(self, text: bytes) -> bool:
        """Whether ``text`` is a key of a user or an administrator.

        It is for the many texts of the log. Keys that grant access are compared in constant time instead.
        """
        return hash_key(text) in self._hashes

    def redactor(self) -> Redactor:
        """Create the redactor of these keys."""
        return Redactor(self.is_key if self._hashes else None)

    def requirement(self, access: Access) -> dict[str, Any]:
        """Options of a router whose routes require ``access``: a dependency, which OpenAPI shows, and its errors."""
        if access is Access.OPEN or (access is Access.USER and self.all_open):
            return {}
        kinds: list[type[RequestError]] = [UnauthorizedError, ForbiddenError]
        kinds += [RateLimitedError] if self._has_rates else []
        responses = {kind.status: {"description": f"`{kind.code}`: {kind.__doc__}"} for kind in kinds}
        return {"dependencies": [Security(Requirement(self, access))], "responses": responses}

    def _admin(self, headers: Headers) -> str:
        """Return the name of the admin key in ``headers``."""
        if not self._admins:
            raise ForbiddenError("models cannot be changed without admin keys; start the service with --admin-keys")
        hashed = hash_key(presented(headers))
        name = self._admins.name_of(hashed)
        if name is None and self._users.name_of(hashed) is not None:
            raise ForbiddenError("this needs an admin key; this key is not an admin key")
        return known(name)

    def _user(self, headers: Headers) -> str:
        """Return the name of the key in ``headers``, which may also be an admin key."""
        hashed = hash_key(presented(headers))
        user, admin = self._users.name_of(hashed), self._admins.name_of(hashed)
        return known(admin if user is None else user)


class Requirement:
    """Authorises a request that no `AuthMiddleware` has authorised, and describes in OpenAPI that a key is required.

    The application has that middleware. A router in another application may not.
    """

    def __init__(self, policy: AccessPolicy, access: Access) -> None:
        self._policy = policy
        self._access = access

    async def __call__(
        self,
        request: Request,
        key: Annotated[str | None, Security(API_KEY_HEADER)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER_TOKEN)],
    ) -> None:
        """See `check`."""
        self.check(request.scope)

    def check(self, scope: Scope) -> None:
        """Raise an `HTTPException`, which every application can answer, unless the request is authorised."""
        try:
            self.enforce(scope)
        except RequestError as error:
            raise HTTPException(error.status, str(error), dict(error.headers)) from error

    def enforce(self, scope: Scope) -> None:
        """Raise an error unless the request is authorised; see `AccessPolicy.check`."""
        if scope.get("policy") is not self._policy:
            self._policy.authorize(self._access, scope["headers"])


def presented(headers: Headers) -> bytes:
    """Return the key in ``headers``.

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
    """Return ``name``.

    Raises:
        UnauthorizedError: it is None.
    """
    if name is None:
        raise UnauthorizedError("this key is not known; check that it is complete and still valid")
    return name
