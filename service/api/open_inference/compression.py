"""Inflates compressed request bodies piece by piece, up to the limit."""

import asyncio
import zlib
from time import perf_counter

from service.api.request_body import Content, too_large
from service.errors import DeadlineExceededError, InvalidBodyError, UnsupportedEncodingError
from service.inference.admission import Permit

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The window bits that select the format of zlib, by encoding. HTTP calls zlib's own format deflate."""
COMPRESSED_PIECE = 2**13
PIECE = 2**18
"""Compressed and inflated bytes of one step, between which the event loop runs."""


async def inflate(content: Content, encoding: str, max_bytes: int, permit: Permit, deadline: float) -> Content:
    """Inflate ``content``, which was sent with ``Content-Encoding: encoding``, until ``deadline`` at the latest.

    Raises:
        UnsupportedEncodingError: the encoding is not supported.
        InvalidBodyError: the body is damaged, truncated or followed by other bytes.
        TooLargeError: the inflated body has more than ``max_bytes``.
        QueueFullError: there is no capacity for the body.
        DeadlineExceededError: the deadline has passed.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return content
    if name not in WINDOWS:
        raise UnsupportedEncodingError(f"Content-Encoding {name[:40]!r} is not supported; send gzip, deflate or none")
    inflater = zlib.decompressobj(WINDOWS[name])
    inflated = bytearray()
    for start in range(0, len(content), COMPRESSED_PIECE):
        if inflater.eof:
            break
        rest, more = content[start : start + COMPRESSED_PIECE], True
        while more and not inflater.eof:
            try:
                piece = inflater.decompress(rest, PIECE)
            except zlib.error as error:
                raise InvalidBodyError(f"the body is not {name}: {error}; compress it again") from None
            rest, more = inflater.unconsumed_tail, len(piece) == PIECE
            if len(inflated) + len(piece) > max_bytes:
                raise too_large(max_bytes)
            permit.take(size=len(piece))
            inflated += piece
            await asyncio.sleep(0)
            if perf_counter() > deadline:
                raise DeadlineExceededError("the body was not inflated in time; try again later, or do not compress it")
    if not inflater.eof:
        raise InvalidBodyError(f"the {name} body is truncated; send it again completely")
    if inflater.unused_data or start + COMPRESSED_PIECE < len(content):
        raise InvalidBodyError(f"there are bytes after the end of the {name} body; send one compressed stream alone")
    return inflated
