"""Tables about pictures: CSV or Parquet files, read to rows of text that know their place."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from training.errors import DataError


class Row(NamedTuple):
    """A row of a table."""

    where: str
    """Its place in a message: the file, and the line or row."""
    cells: Mapping[Any, Any]
    """Text by column, or None. A row with more cells than columns has the others under None."""


class Table(NamedTuple):
    """A table that was read."""

    name: str
    """Its name in a message."""
    columns: tuple[str, ...]
    rows: list[Row]


def read_csv(file: Path, columns: str) -> Table:
    """Read a table with commas and a header; ``columns`` says in a message what it should contain.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [Row(f"{file}, line {reader.line_num}", cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); {columns}") from error
    return Table(str(file), tuple(names), rows)


def read_parquet(file: Path, columns: str) -> Table:
    """Read a Parquet file; ``columns`` says in a message what it should contain. Rows are counted from 1.

    Raises:
        DataError: it cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"{file} is read with pyarrow, which is not installed; pip install -c constraints.txt -e '.[train,score]'"
        ) from error
    rows: list[Row] = []
    try:
        with pq.ParquetFile(file) as parquet:
            names = tuple(parquet.schema_arrow.names)
            for batch in parquet.iter_batches():
                rows += [
                    Row(f"{file}, row {number}", {name: as_text(cell) for name, cell in cells.items()})
                    for number, cells in enumerate(batch.to_pylist(), len(rows) + 1)
                ]
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as a Parquet table ({reason}); {columns}") from error
    return Table(str(file), names, rows)


def as_text(cell: object) -> str | None:
    """Return a cell as a table of text has it; a number that is none (NaN) is empty."""
    return None if cell is None or cell != cell else str(cell)
