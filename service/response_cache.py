"""Keeps answers in memory for requests with an equal picture and equal options.

Requests pass keys, rate limits and admission first, and are logged and counted as all others.
`service.api.predict` looks answers up on the fast path and through the application alike.
"""

import asyncio
import hashlib

from cachetools import LRUCache

from service.metrics.recorder import Counts, Recorder
from service.request_context import present, record_cached
from service.responses import Header, RawResponse

HIT: Header = (b"cache-status", b"stn-serve; hit")
MISS: Header = (b"cache-status", b"stn-serve; fwd=miss")
"""The header of RFC 9211."""
DIGEST_BYTES = 32
IN_PLACE_BYTES = 128 * 2**10
"""Largest picture that is hashed on the event loop."""
ENTRY_BYTES = 512
"""Memory of an entry besides the answer."""


class ResponseCache:
    """The answers of one application, of which the least recently used ones give way to new ones."""

    def __init__(self, max_bytes: int, recorder: Recorder, *, across_keys: bool = False) -> None:
        """``recorder`` counts hits and misses. ``across_keys`` lets clients with different API keys share answers."""
        self._answers: LRUCache[bytes, RawResponse] = LRUCache(max_bytes, size_of)
        self._recorder = recorder
        self._across_keys = across_keys

    async def key(self, picture: bytes, *facts: object) -> bytes:
        """Return the key of the answer for ``picture``, which depends on ``facts`` and on the API key of the request.

        Equal facts have equal texts by `repr`, and others have others.
        """
        owner = None if self._across_keys else present().key
        text = repr((owner, facts)).encode()
        if len(picture) <= IN_PLACE_BYTES:
            return digest(text, picture)
        return await asyncio.to_thread(digest, text, picture)

    def find(self, key: bytes, model: tuple[str, int]) -> RawResponse | None:
        """Return the answer at ``key``, marked as a hit, and count the attempt for ``model``: name and version."""
        found = self._answers.get(key)
        self._recorder.of_model(model).cached(hit=found is not None)
        if found is not None:
            record_cached()
        return found

    def keep(self, key: bytes, response: RawResponse) -> RawResponse:
        """Keep ``response`` unless it is larger than the cache, and return it marked as a miss."""
        kept = response._replace(headers=(*response.headers, HIT))
        if size_of(kept) <= self._answers.maxsize:
            self._answers[key] = kept
        return response._replace(headers=(*response.headers, MISS))

    def gauges(self) -> Counts:
        """Return the memory of all answers."""
        return {("cache_bytes",): [self._answers.currsize]}


def digest(text: bytes, picture: bytes) -> bytes:
    """Return a collision-resistant hash of both."""
    hashed = hashlib.blake2b(len(text).to_bytes(8, "big") + text, digest_size=DIGEST_BYTES)
    hashed.update(picture)
    return hashed.digest()


def size_of(response: RawResponse) -> int:
    """Return the memory of an entry in bytes."""
    return len(response.content) + sum(len(name) + len(value) for name, value in response.headers) + ENTRY_BYTES


def is_hit(response: RawResponse) -> bool:
    """Whether ``response`` came from memory."""
    return HIT in response.headers


def batch_status(hits: int, pictures: int) -> Header:
    """Return the header of a response with ``pictures`` answers, of which ``hits`` came from memory."""
    if hits in (0, pictures):
        return HIT if hits else MISS
    return b"cache-status", b'stn-serve; fwd=partial; detail="%d of %d"' % (hits, pictures)
