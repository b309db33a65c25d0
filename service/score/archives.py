"""WebDataset tars: pictures in archives, read from the first to the last byte without unpacking them."""

import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from export.format.remote import public_url
from imaging.archives import StrictTarInfo
from imaging.formats.signatures import EXTENSIONS
from service.errors import InputError, TooLargeError
from service.score.conditions import Condition, check_columns, select
from service.score.places import describe, file_system, size_of
from service.score.rows import Row, printable

CUT_SHORT = "the archive is damaged or cut short here; what came before it was scored"
CHUNK = 2**20
"""Bytes that are read at once."""


class ArchiveSource:
    """The pictures in tars, told by their extensions. Other members, such as labels, are left out.

    A damaged archive is a row with an error, and the next archive goes on.
    """

    def __init__(self, files: Sequence[str], conditions: Sequence[Condition], max_bytes: int) -> None:
        """Pictures of more than ``max_bytes`` are not read.

        Raises:
            InputError: a condition names another column than ``path``.
        """
        check_columns(conditions, ["path"], "a tar")
        self._files = files
        self._conditions = conditions
        self._max_bytes = max_bytes
        self._sizes = [size_of(file) for file in files]
        self._passed = 0
        """Rows so far."""
        self._position = 0
        """Bytes so far."""

    def rows(self, start: int) -> Iterator[Row]:
        """See `service.score.rows.Source`."""
        self._passed = before = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            for row in self._members(file, start, before):
                if row.number >= start and self._is_selected(row):
                    yield row
            before += size
            self._position = before

    def total(self) -> int | None:
        """See `service.score.rows.Source`."""
        return round(self._passed * sum(self._sizes) / self._position) if self._position else None

    def _members(self, file: str, start: int, before: int) -> Iterator[Row]:
        try:
            system, path = file_system(file)
            with system.open(path, "rb") as stream:
                for row in self._read(file, stream, start):
                    self._passed += 1
                    if hasattr(stream, "tell"):
                        self._position = before + stream.tell()
                    yield row
        except tarfile.TarError:
            yield Row(self._passed, printable(public_url(file)), problem=CUT_SHORT)
            self._passed += 1
        except (OSError, ValueError) as error:
            raise InputError(f"{public_url(file)} cannot be read: {describe(error)}") from error

    def _read(self, file: str, stream: Any, start: int) -> Iterator[Row]:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=StrictTarInfo) as archive:
            while (member := archive.next()) is not None:
                # tarfile keeps all members, so that memory would grow with their number.
                archive.members = []  # type: ignore[attr-defined]  # typeshed lacks it
                if member.isfile() and member.name.lower().endswith(EXTENSIONS):
                    yield self._row(file, archive, member, start)
                pass_over(archive)

    def _row(self, file: str, archive: tarfile.TarFile, member: tarfile.TarInfo, start: int) -> Row:
        row = Row(self._passed, printable(f"{public_url(file)}/{member.name}"))
        if member.size > self._max_bytes:
            message = f"{member.size} bytes are more than {self._max_bytes}; raise STN_MAX_BYTES"
            return row._replace(problem=message, code=TooLargeError.code)
        # It is read also where it is not needed, so that damage comes at the same row in every run.
        content = archive.extractfile(member)
        picture = content.read() if content else b""
        return row._replace(content=picture if row.number >= start else None)

    def _is_selected(self, row: Row) -> bool:
        if not self._conditions:
            return True
        return len(select(self._conditions, pa.record_batch({"path": [row.path]}))) > 0


def pass_over(archive: tarfile.TarFile) -> None:
    """Read the stream up to the next header.

    `tarfile` would do so too, but for a damaged size it goes on for ever after the end of the file.

    Raises:
        tarfile.ReadError: the stream ends before.
    """
    stream = archive.fileobj
    while stream is not None and (left := archive.offset - stream.tell()) > 0:
        if not stream.read(min(left, CHUNK)):
            raise tarfile.ReadError("unexpected end of data")
