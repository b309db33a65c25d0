"""Tables of pictures: CSV and Parquet files with a column of paths or of bytes."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from export.format.remote import public_url
from service.errors import InputError
from service.score.conditions import Condition, check_columns, select
from service.score.places import describe, file_name, file_system, join, parent, size_of
from service.score.rows import Row, printable

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Tables of text by extension, and what separates their cells. All other tables are Parquet."""
COLUMNS = ("path", "image", "bytes", "file_name", "file", "url")
"""Columns that may hold the pictures if none is named, the first one first."""
PATH_ROWS, BYTE_ROWS = 4096, 32
"""Rows that are read together, of paths and of bytes."""
BUFFER_BYTES = 2**20
"""Bytes of a Parquet file that are read at once; otherwise a whole column of a row group would be."""
EMPTY = "this row of the table has no picture, or another number of cells than the header"


class Block(NamedTuple):
    """Some rows of a table."""

    cells: list[Any]
    """The pictures: bytes, a path, both, or None."""
    conditioned: pa.RecordBatch
    """The columns that have conditions."""
    first: int
    """Number of the first row in its file."""
    position: int
    """Bytes of the file so far, if its number of rows is not known."""


class TableSource:
    """The rows of one or more tables with the same columns."""

    def __init__(
        self, files: Sequence[str], column: str | None, root: str | None, conditions: Sequence[Condition]
    ) -> None:
        """``column`` holds the pictures, and ``root`` is the folder of relative paths, by default that of the table.

        Raises:
            InputError: a file is no table, or a table has no such column.
        """
        self._files = files
        self._conditions = conditions
        self._roots = [parent(file) if root is None else root for file in files]
        names = [column_names(file) for file in files]
        self._column = choose_column(column, names[0], files[0])
        for file, columns in zip(files, names, strict=True):
            choose_column(self._column, columns, file)
            check_columns(conditions, columns, public_url(file))
        self._counts = [row_count(file) for file in files]
        self._sizes = [size_of(file) for file in files]
        self._passed = self._position = 0

    def rows(self, start: int) -> Iterator[Row]:
        """See `service.score.rows.Source`."""
        offset = size_before = 0
        for file, root, count, size in zip(self._files, self._roots, self._counts, self._sizes, strict=True):
            self._passed = offset
            if count is None or offset + count > start:
                for block in self._blocks(file, max(0, start - offset)):
                    yield from self._select(block, file, root, offset, start)
                    self._passed = offset + block.first + len(block.cells)
                    self._position = size_before + block.position
            offset = self._passed if count is None else offset + count
            size_before += size

    def total(self) -> int | None:
        """See `service.score.rows.Source`."""
        if None not in self._counts:
            return sum(count for count in self._counts if count is not None)
        return round(self._passed * sum(self._sizes) / self._position) if self._position else None

    def _blocks(self, file: str, start: int) -> Iterator[Block]:
        conditioned = list(dict.fromkeys(condition.column for condition in self._conditions))
        try:
            system, path = file_system(file)
            with system.open(path, "rb") as stream:
                if separator(file):
                    yield from text_blocks(stream, separator(file), self._column, conditioned)
                else:
                    yield from parquet_blocks(stream, self._column, conditioned, start)
        except (pa.ArrowException, csv.Error, OSError, ValueError) as error:
            raise InputError(f"{public_url(file)} cannot be read: {describe(error)}") from error

    def _select(self, block: Block, file: str, root: str, offset: int, start: int) -> Iterator[Row]:
        """The rows of a block from number ``start`` on that meet the conditions."""
        selected = range(len(block.cells))
        for position in select(self._conditions, block.conditioned).tolist() if self._conditions else selected:
            number = block.first + position
            if offset + number >= start:
                yield read_cell(block.cells[position], offset + number, f"{public_url(file)}#{number}", root)


def read_cell(cell: Any, number: int, name: str, root: str) -> Row:
    """Return the row of a cell: bytes, a path, or both as Hugging Face's data sets have them. ``name`` is for bytes."""
    if isinstance(cell, dict):
        name, cell = cell.get("path") or name, cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return Row(number, printable(name), cell)
    if isinstance(cell, str) and cell:
        return Row(number, printable(public_url(cell)), location=join(root, cell))
    return Row(number, printable(name), problem=EMPTY)


def parquet_blocks(stream: Any, column: str, conditioned: Sequence[str], start: int) -> Iterator[Block]:
    """Yield the rows of a Parquet file from the row group of row ``start`` on."""
    file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES)
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    firsts = [0, *accumulate(groups)]
    skipped = sum(end <= start for end in firsts[1:])
    first = firsts[skipped]
    batches = file.iter_batches(
        PATH_ROWS if is_text(file.schema_arrow.field(column).type) else BYTE_ROWS,
        row_groups=list(range(skipped, len(groups))),
        columns=list(dict.fromkeys([column, *conditioned])),
        use_threads=False,
    )
    for batch in batches:
        yield Block(batch.column(column).to_pylist(), batch.select(list(conditioned)), first, 0)
        first += len(batch)


def text_blocks(stream: Any, delimiter: str, column: str, conditioned: Sequence[str]) -> Iterator[Block]:
    """Yield the rows of a table of text with a header. A row of another length than the header has empty cells."""
    reader = csv.reader(as_text(stream), delimiter=delimiter)
    names = next(reader, [])
    places = [names.index(name) for name in (column, *conditioned)]
    first = 0
    filled = filter(None, reader)
    while lines := list(islice(filled, PATH_ROWS)):
        whole = [line if len(line) == len(names) else [""] * len(names) for line in lines]
        cells, *others = ([line[place] for line in whole] for place in places)
        arrays = [pa.array([printable(cell) for cell in other]) for other in others]
        yield Block(cells, pa.record_batch(arrays, names=list(conditioned)), first, stream.tell())
        first += len(lines)


def as_text(stream: Any) -> io.TextIOWrapper:
    """Return ``stream`` as UTF-8, with other bytes as `os.fsdecode` has them in paths."""
    return io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")


def column_names(file: str) -> list[str]:
    """Return the names of the columns of a table.

    Raises:
        InputError: it is no table.
    """
    try:
        system, path = file_system(file)
        with system.open(path, "rb") as stream:
            if separator(file):
                return next(csv.reader(as_text(stream), delimiter=separator(file)), [])
            return list(pq.ParquetFile(stream).schema_arrow.names)
    except (pa.ArrowException, csv.Error, OSError, ValueError) as error:
        raise InputError(f"{public_url(file)} is no table that can be read: {describe(error)}") from error


def row_count(file: str) -> int | None:
    """Return the number of rows of a Parquet file; None for a table of text, which does not state it."""
    if separator(file):
        return None
    system, path = file_system(file)
    with system.open(path, "rb") as stream:
        return int(pq.ParquetFile(stream).metadata.num_rows)


def choose_column(column: str | None, names: Sequence[str], file: str) -> str:
    """Return the column with the pictures.

    Raises:
        InputError: there is none.
    """
    candidates = COLUMNS if column is None else (column,)
    found = next((name for name in candidates if name in names), None)
    if found is None:
        asked = f"no column {column!r}" if column else f"none of the columns {', '.join(COLUMNS)}"
        raise InputError(f"{public_url(file)} has {asked}; name one of its own with --column: {', '.join(names)}")
    return found


def separator(file: str) -> str:
    """Return what separates the cells of a table of text; empty for Parquet."""
    return SEPARATORS.get(Path(file_name(file)).suffix.lower(), "")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, also where equal texts are stored once."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
