"""The rows of an input, one for each picture, and how they are read and grouped."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

CHUNK_ROWS = 128
"""Most rows that are scored together."""
CHUNK_BYTES = 16 * 2**20
"""Bytes of pictures after which a chunk ends."""
UNREADABLE = "unreadable"
"""Code of the error of a row whose picture could not be read. All other codes are those of `service.errors`."""


class Row(NamedTuple):
    """A picture of the input: its bytes, the place where they are read, or the reason why there are none."""

    number: int
    """Position in the input, from 0."""
    path: str
    """The name in the output."""
    content: bytes | None = None
    location: str = ""
    """A file or URL; read if there is no content."""
    problem: str = ""
    """Why the picture cannot be read."""
    code: str = UNREADABLE
    """Code of the error, if there is a problem."""


class Source(Protocol):
    """An input."""

    def rows(self, start: int) -> Iterator[Row]:
        """Yield the rows from number ``start`` on that meet the conditions, in the same order each time.

        Raises:
            InputError: the input cannot be read.
        """

    def total(self) -> int | None:
        """Return the number of rows in the input, estimated where it is not known; None without an estimate."""


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Group ``rows`` into lists of at most `CHUNK_ROWS`, which end after `CHUNK_BYTES`."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row.content or b"")
        if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def printable(path: str) -> str:
    """Return ``path`` as valid Unicode; bytes that are no text become escapes."""
    return path.encode("utf-8", "backslashreplace").decode()
