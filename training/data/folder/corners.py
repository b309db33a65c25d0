"""The table ``corners.csv`` of a folder of pictures: where the thing lies, for all pictures or for some.

Each row has a picture's path and either four corners, clockwise from the thing's own top left, or a box around it. All
numbers are pixels of the picture as it is shown: 0 is its left or upper edge, its width the right edge.
"""

import csv
import io
import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.folder.listing import plain, shortened
from training.data.folder.shards import is_member
from training.data.folder.tables import Row, Table, read_csv
from training.data.pictures import Shape, shape
from training.data.splits import Corners
from training.errors import DataError

BOX = ("x1", "y1", "x2", "y2")
QUADRILATERAL = (*BOX, "x3", "y3", "x4", "y4")
COLUMNS = (
    f"the columns are path and {', '.join(QUADRILATERAL)} (four corners, clockwise from the thing's top left), "
    f"or path and {', '.join(BOX)} (a box), in pixels"
)
FAR = 1.0
"""Largest distance of a corner from the picture, in multiples of its sides."""
STRAIGHT = 0.02
"""Smallest sine of the angle at a corner."""


class Outline(NamedTuple):
    """A row of the table."""

    path: str
    """Path of the picture relative to the folder."""
    where: str
    """The row's place in a message."""
    numbers: tuple[float, ...]
    """Four corners (x, y), or the left, upper, right and lower edge of a box."""

    @property
    def boxed(self) -> bool:
        """Whether it is a box."""
        return len(self.numbers) == len(BOX)

    @property
    def points(self) -> NDArray[np.float64]:
        """The corners in pixels, clockwise: ``(4, 2)``."""
        if not self.boxed:
            return np.array(self.numbers).reshape(4, 2)
        left, top, right, bottom = self.numbers
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def read_corners(file: Path) -> list[Outline]:
    """Read a table of corners; see `outlines_in`."""
    return outlines_in(read_csv(file, COLUMNS))


def outlines_in(table: Table) -> list[Outline]:
    """Return the corners in a table. A row without any number is left out.

    Raises:
        DataError: it lacks a column, or a row is incomplete or wrong; the message names the row.
    """
    if missing := [name for name in ("path", *BOX) if name not in table.columns]:
        raise DataError(f"{table.name} has no column {', '.join(missing)}; {COLUMNS}")
    marks = [name for name in QUADRILATERAL if name in table.columns]
    if 0 < len(lacking := [name for name in QUADRILATERAL[4:] if name not in table.columns]) < 4:
        raise DataError(f"{table.name} has no column {', '.join(lacking)}; {COLUMNS}")
    outlines = [outline(row) for row in table.rows if any((row.cells.get(name) or "").strip() for name in marks)]
    check_once(outlines)
    return outlines


def check_once(outlines: Sequence[Outline]) -> None:
    """Check that each picture has one row.

    Raises:
        DataError: one has several.
    """
    if twice := [path for path, count in Counter(each.path for each in outlines).items() if count > 1]:
        places = " and ".join(each.where for each in outlines if each.path == twice[0])
        raise DataError(
            f"{twice[0]} has corners in {places}{and_more(twice[1:])}; keep one row of each picture, with the thing "
            "that is to be straightened"
        )


def is_left_out(root: Path, path: str) -> bool:
    """Return whether ``path`` names a file in ``root``, letter by letter, also where the system ignores case."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or not {"..", "\\"}.isdisjoint((*inside.parts, *path)):
        return False
    file = root / path
    if is_member(file):
        return True
    name = unicodedata.normalize("NFC", file.name)
    return file.is_file() and any(unicodedata.normalize("NFC", each.name) == name for each in file.parent.iterdir())


def outline(row: Row) -> Outline:
    """Return one row of a table; see `outlines_in`."""
    where, cells = row
    path = plain(cells["path"] or "")
    if not path:
        raise DataError(f"{where} lacks the path; write it, or remove the row")
    if None in cells:
        raise DataError(f"{where} has more cells than columns; {COLUMNS}")
    written = {name: (cells.get(name) or "").strip() for name in QUADRILATERAL}
    names = BOX if not any(written.get(name) for name in QUADRILATERAL[4:]) else QUADRILATERAL
    numbers = []
    for name in names:
        try:
            number = float(written[name])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{where}: {name} of {path} is {written[name]!r}, not a number of pixels; correct it, or remove the "
                "row, since pictures without corners are welcome"
            )
        numbers.append(number)
    return Outline(path, where, tuple(numbers))


def find_corners(root: Path, outlines: Sequence[Outline], paths: Collection[str]) -> list[Outline]:
    """Return the ``outlines`` of the pictures ``paths`` in the folder ``root``.

    Those of other pictures in the folder, which the split leaves out, are left out too.

    Raises:
        DataError: a picture is not in the folder, or its corners cannot be right; the message names the row.
    """
    encoded = {unicodedata.normalize("NFC", path): path for path in paths} | {path: path for path in paths}
    known = [(encoded.get(each.path, encoded.get(unicodedata.normalize("NFC", each.path))), each) for each in outlines]
    if missing := [each for path, each in known if path is None and not is_left_out(root, each.path)]:
        raise DataError(
            f"{missing[0].where}: {missing[0].path} is not among the pictures of {root}"
            f"{and_more([each.path for each in missing[1:]])}; correct column path (relative to the folder), or remove "
            "the rows"
        )
    found = [each._replace(path=path) for path, each in known if path is not None]
    check_once(found)
    for each in found:
        if wrong := problem(each, shape(root / each.path)):
            raise DataError(f"{each.where}: {wrong}")
    return found


def problem(outline: Outline, picture: Shape) -> str | None:
    """Say why these corners cannot be right, and what to do; return None if they can."""
    points, size = outline.points, np.array([picture.width, picture.height])
    beyond = np.maximum(-points, points - size).max(axis=1) > FAR * size.max()
    if beyond.any():
        x, y = points[beyond][0].tolist()
        return (
            f"the corner ({x:g}, {y:g}) lies far outside of {outline.path}, which has {picture.width}x{picture.height} "
            "pixels; write pixels of the picture as it is shown, from its upper left corner"
        )
    if (points.max(axis=0) <= 0).any() or (points.min(axis=0) >= size).any():
        return (
            f"the thing lies outside of {outline.path}, which has {picture.width}x{picture.height} pixels; write "
            "pixels of this file, not of a larger copy"
        )
    if outline.boxed:
        left, top, right, bottom = outline.numbers
        if right <= left or bottom <= top:
            return f"the box of {outline.path} has no area; x1, y1 is its upper left corner, and x2, y2 the lower right"
    sides = np.roll(points, -1, axis=0) - points
    after = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]  # above 0: a turn to the right
    lengths = np.hypot(*sides.T)
    if lengths.min() < 1:
        cure = "write pixels, not shares of the sides" if np.abs(points).max() <= 1 else "all four must differ"
        return f"two corners of {outline.path} are less than a pixel apart; {cure}"
    sines = turns / (lengths * np.roll(lengths, -1))
    if (np.abs(sines) < STRAIGHT).any():
        return f"three corners of {outline.path} lie on one line; mark the four corners of the thing"
    if (sines < 0).all():
        return (
            f"the corners of {outline.path} run anticlockwise, which would mirror the thing; list them clockwise from "
            "its top left"
        )
    if (sines < 0).sum() == 2:  # a quadrilateral that crosses itself turns to each side twice
        return f"the sides of {outline.path} cross; list the corners clockwise from the thing's top left"
    if (sines < 0).any():
        return (
            f"the corners of {outline.path} are not those of a convex quadrilateral; mark the corners of a flat thing"
        )
    return None


def corners_of(root: Path, paths: Sequence[str], outlines: Iterable[Outline]) -> Corners:
    """Return the corners of the pictures ``paths`` under ``root``; a picture without a row has none.

    Raises:
        DataError: a picture with corners cannot be read.
    """
    rows = {each.path: each for each in outlines}
    points = torch.full((len(paths), 4, 2), torch.nan)
    boxed = torch.zeros(len(paths), dtype=torch.bool)
    sizes = torch.ones(len(paths), 2)
    for position, path in enumerate(paths):
        if (row := rows.get(path)) is not None:
            picture = shape(root / path)
            size = torch.tensor([float(picture.width), float(picture.height)])
            points[position] = torch.from_numpy(row.points).float() / size * 2 - 1
            boxed[position], sizes[position] = row.boxed, size
    return Corners(points, boxed, sizes)


def corners_text(outlines: Iterable[Outline]) -> str:
    """Return the content of the table that `read_corners` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", *QUADRILATERAL))
    writer.writerows((each.path, *each.numbers) for each in outlines)
    return text.getvalue()


def and_more(others: Sequence[str]) -> str:
    """Say which others have the same problem, if any."""
    return f" (and so have {shortened(others)})" if others else ""
