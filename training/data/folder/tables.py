"""Tables about pictures: CSV or Parquet files, read to rows of text that know their place."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from training.errors import DataError

MARKS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
"""Columns that tell corners."""
READ = ("path", "label", "split", *MARKS)
"""Columns of a Parquet table that are read."""


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
    """Read the columns `READ` of a Parquet file; ``columns`` says in a message what it should contain.

    Rows are counted from 1.

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
            fields = [field for field in parquet.schema_arrow if field.name in READ]
            if nested := [field.name for field in fields if pa.types.is_nested(field.type)]:
                raise DataError(f"{file}: column {nested[0]} has lists or structures; write text or numbers")
            names = tuple(field.name for field in fields)
            for batch in parquet.iter_batches(columns=list(names)):
                rows += [
                    Row(f"{file}, row {number}", {name: as_text(cell) for name, cell in cells.items()})
                    for number, cells in enumerate(batch.to_pylist(), len(rows) + 1)
                ]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as a Parquet table ({reason}); {columns}") from error
    return Table(str(file), names, rows)


def as_text(cell: object) -> str | None:
    """Return a cell as a table of text has it; a number that is none (NaN) is empty, and bytes are UTF-8.

    Raises:
        UnicodeDecodeError: they are not.
    """
    if isinstance(cell, bytes):
        return cell.decode()
    return None if cell is None or cell != cell else str(cell)
