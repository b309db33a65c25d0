"""Recognises what is to be scored: pictures, tables or tars."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from export.format.remote import is_url, public_url
from service.errors import InputError, OutputError
from service.score.archives import ArchiveSource
from service.score.conditions import Condition, check_columns, select
from service.score.places import describe, expand, file_name, find, fingerprint, is_folder, walk
from service.score.rows import Row, Source, printable
from service.score.tables import SEPARATORS, TableSource

Kind = Literal["pictures", "tables", "tars"]
TABLES = (*SEPARATORS, ".parquet", ".pq")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LISTED_ROWS = 4096
"""Paths that are written to a listing, or read from it, together."""
LISTING_SCHEMA = pa.schema([("location", pa.binary())])


class Selection(NamedTuple):
    """Which rows of which input are scored."""

    place: str
    """A folder, a file, or a pattern, on this machine or at a URL."""
    column: str | None
    root: str | None
    conditions: tuple[Condition, ...]
    max_bytes: int
    """Largest picture."""


class Input(NamedTuple):
    """An input that was found."""

    kind: Kind
    files: list[str]
    """The tables or tars; pictures are in a listing, since there may be very many."""
    facts: list[dict[str, str]]
    """What is known of these files, to notice that they have changed."""


def find_input(selection: Selection) -> Input:
    """Return what ``selection`` names.

    Raises:
        InputError: there is nothing there, or files of several kinds.
    """
    if is_folder(selection.place) and kind_of(selection.place) == "pictures":
        kind: Kind = "pictures"
    else:
        files = [file for name in expand(selection.place) for file in find(name)]
        kinds = {kind_of(file) for file in files}
        if len(kinds) > 1:
            raise InputError(
                f"{public_url(selection.place)} names {' and '.join(sorted(kinds))}; score them one by one"
            )
        kind = kinds.pop()
    if kind != "tables" and (selection.column or selection.root):
        raise InputError("--column and --root are for tables, and this input has none")
    if kind == "pictures":
        check_columns(selection.conditions, ["path"], "a folder of pictures")
        return Input("pictures", [], [])
    return Input("tables" if kind == "tables" else "tars", files, [fingerprint(file) for file in files])


def open_source(found: Input, selection: Selection, listing: Path) -> Source:
    """Return the rows of the input. Pictures are listed once in the file ``listing``, so that later runs see the same.

    Raises:
        InputError: the input cannot be read, or has no pictures.
        OutputError: the listing cannot be written.
    """
    if found.kind == "tables":
        return TableSource(found.files, selection.column, selection.root, selection.conditions)
    if found.kind == "tars":
        return ArchiveSource(found.files, selection.conditions, selection.max_bytes)
    if not listing.exists():
        write_listing(list_pictures(selection.place), listing, public_url(selection.place))
    return ListedSource(listing, selection.conditions)


def kind_of(place: str) -> Kind:
    """Return what a file holds, by its name."""
    name = file_name(place).lower()
    return "tables" if name.endswith(TABLES) else "tars" if name.endswith(TARS) else "pictures"


def list_pictures(place: str) -> Iterator[str]:
    """Yield the pictures in a folder, or the files that a pattern names."""
    if is_folder(place):
        yield from walk(place)
    else:
        for name in expand(place):
            yield from find(name)


def write_listing(locations: Iterator[str], file: Path, place: str) -> None:
    """Write the places of pictures to a Parquet file, whole or not at all.

    Raises:
        InputError: there are none.
        OutputError: the file cannot be written.
    """
    aside = file.with_suffix(".tmp")
    count = 0
    try:
        with pq.ParquetWriter(aside, LISTING_SCHEMA) as writer:
            while block := list(islice(locations, LISTED_ROWS)):
                writer.write_batch(pa.record_batch([pa.array(map(os.fsencode, block), pa.binary())], LISTING_SCHEMA))
                count += len(block)
        if count:
            aside.replace(file)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {describe(error)}; free some space and run it again") from error
    finally:
        aside.unlink(missing_ok=True)
    if not count:
        raise InputError(
            f"there are no pictures in {place}, by the ends of their names; tables and tars in it need a pattern, "
            "like 'folder/*.tar'"
        )


class ListedSource:
    """The pictures in a listing."""

    def __init__(self, listing: Path, conditions: Sequence[Condition]) -> None:
        self._listing = listing
        self._conditions = conditions
        try:
            self._total = int(pq.read_metadata(listing).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise OutputError(f"{listing} is damaged; remove the folder {listing.parent} and run it again") from error

    def rows(self, start: int) -> Iterator[Row]:
        """See `service.score.rows.Source`."""
        first = 0
        with pq.ParquetFile(self._listing) as file:
            for batch in file.iter_batches(LISTED_ROWS):
                if first + len(batch) > start:
                    yield from self._select(batch, first, start)
                first += len(batch)

    def total(self) -> int:
        """See `service.score.rows.Source`."""
        return self._total

    def _select(self, batch: pa.RecordBatch, first: int, start: int) -> Iterator[Row]:
        locations = [os.fsdecode(location) for location in batch.column(0).to_pylist()]
        paths = [printable(public_url(location) if is_url(location) else location) for location in locations]
        selected = range(len(paths))
        for position in select(self._conditions, pa.record_batch({"path": paths})) if self._conditions else selected:
            if first + position >= start:
                yield Row(first + int(position), paths[position], location=locations[position])
