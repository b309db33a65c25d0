"""Chooses the type of a response by the header Accept (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from service.errors import NotAcceptableError

ACCEPT = b"accept"
MAX_RANGES = 32
"""Maximum number of types in a header; further ones are ignored."""
RANGE = re.compile(r"\s*([\w.+*-]+)/([\w.+*-]+)\s*((?:;[^,]*)?)", re.ASCII)
QUALITY = re.compile(r";\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.ASCII | re.IGNORECASE)


class MediaRange(NamedTuple):
    """A type that the client accepts, possibly with wildcards."""

    type: str
    subtype: str
    quality: float

    @property
    def precision(self) -> int:
        """How few wildcards it has."""
        return (self.type != "*") + (self.subtype != "*")

    def includes(self, media_type: str) -> bool:
        """Whether it includes ``media_type``."""
        kind, subtype = media_type.split("/")
        return self.type in ("*", kind) and self.subtype in ("*", subtype)


def choose_type(headers: Sequence[tuple[bytes, bytes]], offered: Sequence[str]) -> str:
    """Return the type that the client prefers of those ``offered``; of equally good ones, the first.

    Raises:
        NotAcceptableError: the client accepts none of them.
    """
    text = ",".join(value.decode("latin-1") for name, value in headers if name == ACCEPT)
    ranges = read_ranges(text)
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media_type: quality_of(media_type, ranges))
    if quality_of(best, ranges) <= 0:
        raise NotAcceptableError(f"the header Accept allows none of {', '.join(offered)}; add one of them, or */*")
    return best


def read_ranges(text: str) -> list[MediaRange]:
    """Parse a header. Parts that are no types are ignored."""
    found = []
    for part in text.split(",", MAX_RANGES)[:MAX_RANGES]:
        matched = RANGE.fullmatch(part)
        if matched is not None:
            quality = QUALITY.search(matched[3])
            found.append(MediaRange(matched[1].lower(), matched[2].lower(), float(quality[1]) if quality else 1.0))
    return found


def quality_of(media_type: str, ranges: Sequence[MediaRange]) -> float:
    """Return the quality of ``media_type``: that of the most precise range that includes it, else 0."""
    matching = [each for each in ranges if each.includes(media_type)]
    return max(matching, key=lambda each: each.precision).quality if matching else 0.0
