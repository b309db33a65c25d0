"""Hides keys that clients send in the wrong place from logs, traces and responses."""

import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote

HIDDEN = "***"
KEY = re.compile(r"stn_[\w-]{16,}", re.ASCII)
"""A key of `service.middleware.api_keys`, or most of one."""
WORD = re.compile(r"[^\s/?&=;,:'\"]{8,}")
"""A part of a path that may be a key of another form."""
MAX_WORDS = 1000
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

    def __init__(self, is_key: Callable[[bytes], bool]) -> None:
        """``is_key`` returns whether a text is a key of a user or administrator."""
        self._is_key = is_key

    def redact(self, text: str, headers: Headers = ()) -> str:
        """Hide in ``text`` the form of keys, valid keys, and the credentials in ``headers``."""
        plain = decoded(text)
        redacted = hide_keys(plain)
        for secret in credentials(headers):
            redacted = redacted.replace(secret, HIDDEN)
        for word in WORD.findall(redacted)[:MAX_WORDS]:
            if self._is_key(word.encode()):
                redacted = redacted.replace(word, HIDDEN)
        return text if redacted == plain else redacted

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
