"""The classes of pictures in one folder, told by a table in place of directories.

The table is ``labels.csv``, ``labels.parquet``, or what WebDataset shards say of their pictures. Its columns are
``path`` and ``label``. It can have ``split``, as in ``split.csv``, and those of ``corners.csv`` too.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import structlog

from training.data.folder.listing import (
    LABELS_TABLE,
    PARQUET_TABLE,
    SHARD,
    UNWRITABLE,
    hiding,
    is_picture,
    plain,
    shortened,
    walk,
)
from training.data.folder.shards import find_shards, is_member, read_shards, warn_of_unread
from training.data.folder.tables import Table, read_csv, read_parquet
from training.errors import DataError

COLUMNS = "the columns are path (relative to the folder) and label, and optionally split, and corners"

log = structlog.get_logger(__name__)


class Labelled(NamedTuple):
    """A row of the table."""

    path: str
    label: str
    """The class, in Unicode's composed form (NFC)."""


def find_labels(root: Path) -> Table | None:
    """Return the table that tells the classes in the folder ``root``, if there is one.

    Tars are shards only where there are neither tables, nor directories, nor pictures.

    Raises:
        DataError: it cannot be read, or there are two.
    """
    text, parquet = root / LABELS_TABLE, root / PARQUET_TABLE
    if text.exists() and parquet.exists():
        raise DataError(f"{text} and {parquet} both tell labels; remove one of them")
    if text.exists():
        return read_csv(text, COLUMNS)
    if parquet.exists():
        return read_parquet(parquet, COLUMNS)
    if not root.is_dir() or hiding(root) or not (shards := find_shards(root)):
        return None
    return read_shards(root, shards)


def read_labels(root: Path, table: Table) -> list[Labelled]:
    """Return the classes that the ``table`` of the folder ``root`` tells.

    Raises:
        DataError: a column is missing, a row is incomplete, or a picture is missing, listed twice, or outside of the
            folder; the message names the row.
    """
    if missing := [name for name in ("path", "label") if name not in table.columns]:
        raise DataError(f"{table.name} has no column {', '.join(missing)}; {COLUMNS}")
    if not table.rows:
        raise DataError(f"{table.name} lists no pictures; {COLUMNS}")
    found = []
    for where, cells in table.rows:
        path, label = plain(cells["path"] or ""), (cells["label"] or "").strip()
        if not (path and label):
            raise DataError(f"{where} lacks path or label; write both, or remove the row")
        if any(unicodedata.category(letter) in UNWRITABLE for letter in path + label):
            raise DataError(f"{where} has control characters in path or label; remove them")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{where}: {path} is not in the folder; write its path relative to {root}")
        if not is_there(root / path):
            raise DataError(f"{where}: {path} is not a picture in {root}; correct column path, or remove the row")
        found.append(Labelled(path, unicodedata.normalize("NFC", label)))
    if twice := [path for path, count in Counter(each.path for each in found).items() if count > 1]:
        raise DataError(f"{table.name} lists {shortened(twice)} more than once; keep one row of each")
    return found


def is_there(file: Path) -> bool:
    """Return whether ``file`` is a picture, or is in a shard; a path that the system cannot hold is neither."""
    try:
        return is_member(file) or is_picture(file)
    except OSError:
        return False


def warn_of_unlabelled(root: Path, table: Table, labelled: Collection[str]) -> None:
    """Warn of the pictures in ``root`` that are not among the paths ``labelled`` of its ``table``."""
    if table.name.endswith(SHARD):
        warn_of_unread(root, labelled)
        return
    inside = (file.relative_to(root).as_posix() for file in walk(root, []) if is_picture(file))
    if others := [file for file in inside if file not in labelled]:
        log.warning(
            "pictures_without_label",
            count=len(others),
            examples=shortened(map(repr, others)),
            cure=f"add their rows to {Path(table.name).name}, or move them out of the folder",
        )
