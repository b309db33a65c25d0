"""The table ``labels.csv`` of a folder of pictures: a class for each, in place of directories.

Its columns are ``path`` and ``label``. It can have ``split``, as in ``split.csv``, and those of ``corners.csv`` too.
"""

import csv
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from training.data.folder.listing import LABELS_TABLE, UNWRITABLE, is_picture, plain, shortened
from training.errors import DataError

COLUMNS = "the columns are path (relative to the folder) and label, and optionally split, and corners"


class Labelled(NamedTuple):
    """A row of the table."""

    path: str
    label: str
    """The class, in Unicode's composed form (NFC)."""


def read_labels(root: Path) -> list[Labelled]:
    """Read the table in the folder ``root``.

    Raises:
        DataError: it cannot be read, a row is incomplete, or a picture is missing, listed twice, or outside of the
            folder; the message names the line.
    """
    file = root / LABELS_TABLE
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, plain(row["path"] or ""), (row["label"] or "").strip()) for row in reader]
    except KeyError as error:
        raise DataError(f"{file} has no column {error.args[0]}; {COLUMNS}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); {COLUMNS}") from error
    if not rows:
        raise DataError(f"{file} lists no pictures; {COLUMNS}")
    for line, path, label in rows:
        if not (path and label):
            raise DataError(f"{file}, line {line} lacks path or label; write both, or remove the line")
        if any(unicodedata.category(letter) in UNWRITABLE for letter in path + label):
            raise DataError(f"{file}, line {line} has control characters in path or label; remove them")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{file}, line {line}: {path} is not in the folder; write its path relative to {root}")
        if not is_picture(root / path):
            raise DataError(
                f"{file}, line {line}: {path} is not a picture in {root}; correct column path, or remove the line"
            )
    if twice := [path for path, count in Counter(path for _, path, _ in rows).items() if count > 1]:
        raise DataError(f"{file} lists {shortened(twice)} more than once; keep one row of each")
    return [Labelled(path, unicodedata.normalize("NFC", label)) for _, path, label in rows]


def has_column(root: Path, name: str) -> bool:
    """Return whether the folder ``root`` has the table, with a column ``name``."""
    try:
        with (root / LABELS_TABLE).open(newline="", encoding="utf-8-sig") as text:
            return name in {each.strip() for each in csv.DictReader(text).fieldnames or ()}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
