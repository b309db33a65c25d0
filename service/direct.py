"""Plain requests, answered without ASGI between the wire and the engine.

What uvicorn, ASGI and its middlewares need for a request takes a third of the time of a small picture. Here the same
functions answer it (`service.predict`), and it ends in the same log and the same metrics.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from service.access import AccessLog, Client
from service.answers import Reply
from service.exchange import Exchange, current
from service.heads import Arrival
from service.meters import METERS
from service.predict import outcome
from service.turnstile import Turnstile
from service.uploads import Body, WholeBody

Answerer = Callable[[bytes, Body], Awaitable[Reply]]
"""Answers the query and the body of a request."""


class Caller(Protocol):
    """A connection."""

    client: Client

    def reply(self, reply: Reply, request_id: str) -> None:
        """Its request is answered."""


class Direct:
    """Answers requests."""

    def __init__(self, answerers: Mapping[str, Answerer], lines: AccessLog, turnstile: Turnstile) -> None:
        """``answerers`` by path."""
        self._answerers = answerers
        self._lines = lines
        self._turnstile = turnstile

    async def answer(self, caller: Caller, arrival: Arrival, exchange: Exchange) -> None:
        """Answer a request that has come whole, unless its client goes away."""
        head = arrival.head
        exchange.route, exchange.key = head.path, head.key
        current.set(exchange)
        try:
            body = WholeBody(arrival.type, arrival.body)
            reply = await outcome(self._answerers[head.path](head.query, body), head.path)
            if reply is not None:
                exchange.status, exchange.error = reply.status, reply.error
                caller.reply(reply, exchange.id)
        finally:
            exchange.end()
            self._lines.add("POST", head.path, caller.client, exchange)
            METERS.ended(exchange, {})
            self._turnstile.ended(head.path, head.target, exchange)
