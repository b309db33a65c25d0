"""Inputs that tests score: folders, tables and tars of the bundled digits."""

import csv
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.score.conditions import read_condition
from service.score.inputs import Selection, find_input, open_source
from service.score.rows import Row, Source
from tests.service.pictures import DIGITS, encode

PICTURES = [encode(digit) for digit in DIGITS]
LABELS = ["7", "2", "1", "0"]
"""The classes of `PICTURES`."""
MAX_BYTES = 100_000


def write_folder(folder: Path, count: int) -> list[Path]:
    """Pictures of digits, sorted by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:04d}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(PICTURES[number % len(PICTURES)])
    return files


def write_csv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def write_parquet(file: Path, columns: Mapping[str, Sequence[object]], group: int = 3) -> Path:
    pq.write_table(pa.table(dict(columns)), file, row_group_size=group)
    return file


def write_tar(file: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return file


def select(
    place: object, *conditions: str, column: str | None = None, root: str | None = None, max_bytes: int = MAX_BYTES
) -> Selection:
    return Selection(str(place), column, root, tuple(map(read_condition, conditions)), max_bytes)


def source_of(selection: Selection, folder: Path) -> Source:
    """The source of an input, whose listing is in ``folder``."""
    return open_source(find_input(selection), selection, folder / "listing.parquet")


def rows_of(selection: Selection, folder: Path, start: int = 0) -> list[Row]:
    return list(source_of(selection, folder).rows(start))


def numbers(rows: Iterator[Row] | Sequence[Row]) -> list[int]:
    return [row.number for row in rows]
