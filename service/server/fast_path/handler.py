"""Plain requests, answered without ASGI between the wire and the engine.

What uvicorn, ASGI and middlewares do for a request takes long beside the work on a small picture. Here the same
functions answer it (`service.api.predict`), and it ends in the same log and the same metrics.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from service.api.predict import outcome
from service.api.request_body import Body, WholeBody
from service.errors import STOPPED
from service.middleware.access_log import AccessLog, record_end
from service.request_context import RequestContext, current
from service.responses import RawResponse, error_response
from service.server.fast_path.admission_queue import AdmissionQueue, Caller
from service.server.fast_path.heads import Arrival

Answerer = Callable[[bytes, Body], Awaitable[RawResponse]]
"""Answers the query and the body of a request."""


class FastPathHandler:
    """Answers requests."""

    def __init__(self, answerers: Mapping[str, Answerer], lines: AccessLog, turnstile: AdmissionQueue) -> None:
        """``answerers`` by path."""
        self._answerers = answerers
        self._lines = lines
        self._turnstile = turnstile

    async def answer(self, caller: Caller, arrival: Arrival, exchange: RequestContext) -> None:
        """Answer a request that has come whole, unless its client goes away."""
        head = arrival.head
        exchange.route, exchange.key = head.path, head.key
        current.set(exchange)
        try:
            body = WholeBody(arrival.type, arrival.body)
            try:
                reply = await outcome(self._answerers[head.path](head.query, body), head.path)
            except asyncio.CancelledError:  # by uvicorn, when `timeout_graceful_shutdown` is over
                reply = error_response(STOPPED, head.path)
            if reply is not None:
                exchange.status, exchange.error = reply.status, reply.error
                caller.reply(reply, exchange.id)
        finally:
            record_end(exchange, self._lines, "POST", head.path, caller.client)
            self._turnstile.ended(head.path, head.target, exchange)
