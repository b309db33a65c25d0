"""Keys must not end in logs, traces or answers, wherever a client puts them by mistake."""

import re
from collections.abc import Callable, Iterable
from itertools import combinations
from urllib.parse import unquote

HIDDEN = "***"
KEY = re.compile(r"stn_[\w-]{16,}", re.ASCII)
"""A key as `service.middleware.api_keys` makes it, or most of one."""
CHUNK = re.compile(r"[^\s'\"]{4,}")
"""A stretch of text that may hold a key of another form, which has no spaces or quotes in it."""
EDGE = re.compile(r"(?<![^\W_])|(?![^\W_])")
"""A place where a key may begin or end: beside anything but a letter or a digit, which keys may have too."""
MAX_CHUNKS = 1000
MAX_EDGES = 64
"""Edges of a chunk between which keys are searched for; one with more is hidden whole."""
LEAST_KEY = 4
"""Characters of the shortest key of another form that is recognised."""
DECODINGS = 3
"""How often a text may be percent-encoded."""
LEAST_SECRET = 8
"""Characters of the shortest credential that is searched for; a shorter one would match by chance."""
CREDENTIALS = {b"x-api-key", b"authorization", b"proxy-authorization", b"cookie"}

Headers = Iterable[tuple[bytes, bytes]]


def hide_keys(text: str) -> str:
    """``text`` without what looks like a key of ours."""
    return KEY.sub(HIDDEN, text) if "stn_" in text else text


def credentials(headers: Headers) -> list[str]:
    """The credentials that a request came with, known or not."""
    found = []
    for name, value in headers:
        if name in CREDENTIALS:
            text = value.decode("latin-1").strip()
            found += [text, text.partition(" ")[2].strip()]
    return [text for text in found if len(text) >= LEAST_SECRET]


class Redactor:
    """Hides keys in texts that come from clients."""

    def __init__(self, is_key: Callable[[bytes], bool] | None) -> None:
        """``is_key`` tells whether something is a key of a user or administrator; None if there are no keys."""
        self._is_key = is_key

    def redact(self, text: str, headers: Headers = ()) -> str:
        """``text`` without anything that looks like a key, is one, or came with the request as one in ``headers``."""
        plain = decoded(text)
        redacted = hide_keys(plain)
        for secret in credentials(headers):
            redacted = redacted.replace(secret, HIDDEN)
        for chunk in set(CHUNK.findall(redacted)[:MAX_CHUNKS]):
            for key in self._keys_in(chunk):
                redacted = redacted.replace(key, HIDDEN)
        return text if redacted == plain else redacted

    def _keys_in(self, chunk: str) -> list[str]:
        """The keys of another form in ``chunk``, the longest first; all of it if there is too much to look at."""
        is_key = self._is_key
        if is_key is None:
            return []
        edges = [edge.start() for edge in EDGE.finditer(chunk)]
        if len(edges) > MAX_EDGES:
            return [chunk]
        words = {chunk[start:end] for start, end in combinations(edges, 2) if end - start >= LEAST_KEY}
        return sorted((word for word in words if is_key(word.encode(errors="replace"))), key=len, reverse=True)

    def is_clean(self, text: str, headers: Headers = ()) -> bool:
        """Whether nothing in ``text`` has to be hidden."""
        return self.redact(text, headers) == text


def decoded(text: str) -> str:
    """``text`` without percent-encoding, also where it was encoded more than once."""
    for _ in range(DECODINGS):
        if "%" not in text:
            break
        text = unquote(text)
    return text
