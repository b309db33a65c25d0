"""Limits the request rate of each client."""

import math
import time
from collections.abc import Awaitable

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RateLimitedError, SettingsError, TooLargeError
from service.middleware.auth import Access, Principal
from service.request_context import counted_for, path_within, record_counted_for
from service.responses import error_response, send_response


class RateLimitMiddleware:
    """Counts the requests of each key, or of each address without keys. Inside of `AuthMiddleware`."""

    def __init__(self, app: ASGIApp, limiter: "RateLimiter") -> None:
        self._app = app
        self._limiter = limiter

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            try:
                record_counted_for(self._limiter.admit(scope["principal"], (scope.get("client") or ("",))[0]))
            except RateLimitedError as error:
                return send_response(send, error_response(error, path_within(scope)))
        return self._app(scope, receive, send)


class RateLimiter:
    """Sliding windows of one application, in the memory of its process."""

    def __init__(self, limits: str) -> None:
        """``limits`` has the form ``10/second;1000/hour``.

        Raises:
            SettingsError: it has another form.
        """
        try:
            self._limits: list[RateLimitItem] = parse_many(limits)
        except ValueError as error:
            raise SettingsError(f"--rate-limit {limits!r} is not like 100/second or 10/second;1000/hour") from error
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())

    def admit(self, principal: Principal, address: str) -> str | None:
        """Count a request of ``principal`` from ``address``, unless its path is open; see `count`.

        Returns:
            the client whose requests are counted, for `RequestContext.counted_for`.
        """
        if principal.access is not Access.OPEN:
            client = f"address {address}" if principal.key is None else f"key {principal.key}"
            self.count(client)
            return client
        return None

    def count_views(self, views: int) -> None:
        """Count as many requests more of the client of the current request, since each view costs as much.

        Raises:
            TooLargeError: there are more than the client may ever have at once.
            RateLimitedError: the client has sent too many requests.
        """
        client = counted_for()
        if client is None:
            return
        if too_few := [limit for limit in self._limits if views >= limit.amount]:
            raise TooLargeError(
                f"{views} views count as requests, of which no more than {too_few[0]} are allowed; ask for fewer"
            )
        self.count(client, views)

    def count(self, client: str, requests: int = 1) -> None:
        """Count ``requests`` of ``client``.

        Raises:
            RateLimitedError: the client has sent too many requests.
        """
        for limit in self._limits:
            if not self._windows.hit(limit, client, cost=requests):
                reset = self._windows.get_window_stats(limit, client).reset_time
                raise RateLimitedError(f"no more than {limit} are allowed; wait for Retry-After", wait_s(reset))


def wait_s(until: float) -> int:
    """Whole seconds until a time, at least one."""
    return max(1, math.ceil(until - time.time()))
