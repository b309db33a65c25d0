"""Plain requests, answered without ASGI between the wire and the engine.

What uvicorn, ASGI and middlewares do for a request takes long beside the work on a small picture. Here the same
functions answer it (`service.predict`), and it ends in the same log and the same metrics.
"""

from collections.abc import Awaitable, Callable, Mapping

from service.access import AccessLog, note_end
from service.answers import Reply
from service.exchange import Exchange, current
from service.heads import Arrival
from service.predict import outcome
from service.turnstile import Caller, Turnstile
from service.uploads import Body, WholeBody

Answerer = Callable[[bytes, Body], Awaitable[Reply]]
"""Answers the query and the body of a request."""


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
            note_end(exchange, self._lines, "POST", head.path, caller.client)
            self._turnstile.ended(head.path, head.target, exchange)
