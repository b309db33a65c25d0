"""Hides keys that clients send in the wrong place from logs, traces and responses."""

import re
from collections.abc import Callable, Iterable
from itertools import combinations
from urllib.parse import unquote

HIDDEN = "***"
KEY = re.compile(r"stn_[\w-]{16,}", re.ASCII)
"""A key of `service.middleware.api_keys`, or most of one."""
CHUNK = re.compile(r"[^\s'\"]{4,}")
"""A part of a text that may contain a key of another form, which has no spaces or quotes."""
EDGE = re.compile(r"(?<![^\W_])|(?![^\W_])")
"""A position at which a key may begin or end: next to any character but a letter or digit."""
MAX_CHUNKS = 1000
MAX_EDGES = 64
"""Edges of a chunk between which keys are searched for; a chunk with more is hidden completely."""
LEAST_KEY = 4
"""Characters of the shortest recognised key of another form."""
DECODINGS = 3
"""Levels of percent-encoding that are decoded."""
LEAST_SECRET = 8
"""Shortest credential to search for; a shorter one would match by chance."""
CREDENTIALS = {b"x-api-key", b"authorization", b"proxy-authorization", b"cookie"}

Headers = Iterable[tuple[bytes, bytes]]


def hide_keys(text: str) -> str:
    """Hide everything in ``text`` with the form of a key."""
    return KEY.sub(HIDDEN, text) if "stn_" in text else text


def credentials(headers: Headers) -> list[str]:
    """Return the credentials in the headers of a request, valid or not."""
    found = []
    for name, value in headers:
        if name in CREDENTIALS:
            text = value.decode("latin-1").strip()
            found += [text, text.partition(" ")[2].strip()]
    return [text for text in found if len(text) >= LEAST_SECRET]


class Redactor:
    """Hides keys in texts that come from clients."""

    def __init__(self, is_key: Callable[[bytes], bool] | None) -> None:
        """``is_key`` returns whether a text is a key of a user or administrator; None without keys."""
        self._is_key = is_key

    def redact(self, text: str, headers: Headers = ()) -> str:
        """Hide in ``text`` the form of keys, valid keys, and the credentials in ``headers``."""
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
        """Whether ``text`` contains nothing to hide."""
        return self.redact(text, headers) == text


def decoded(text: str) -> str:
    """Decode percent-encoding in ``text``, up to `DECODINGS` times."""
    for _ in range(DECODINGS):
        if "%" not in text:
            break
        text = unquote(text)
    return text
