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
    line: int
    """Number of the row's line in the file."""
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
    """Read a table of corners. A row without any number is left out.

    Raises:
        DataError: it cannot be read, lacks a column, or a row is incomplete or wrong; the message names the line.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); {COLUMNS}") from error
    if missing := [name for name in ("path", *BOX) if name not in names]:
        raise DataError(f"{file} has no column {', '.join(missing)}; {COLUMNS}")
    marks = [name for name in QUADRILATERAL if name in names]
    if 0 < len(lacking := [name for name in QUADRILATERAL[4:] if name not in names]) < 4:
        raise DataError(f"{file} has no column {', '.join(lacking)}; {COLUMNS}")
    outlines = [outline(file, line, row) for line, row in rows if any((row.get(name) or "").strip() for name in marks)]
    check_once(file, outlines)
    return outlines


def check_once(file: Path, outlines: Sequence[Outline]) -> None:
    """Check that each picture has one row.

    Raises:
        DataError: one has several.
    """
    if twice := [path for path, count in Counter(each.path for each in outlines).items() if count > 1]:
        lines = [str(each.line) for each in outlines if each.path == twice[0]]
        raise DataError(
            f"{file} has {twice[0]} in lines {', '.join(lines)}{and_more(twice[1:])}; keep one row of each picture, "
            "with the thing that is to be straightened"
        )


def is_left_out(root: Path, path: str) -> bool:
    """Return whether ``path`` names a file in ``root``, letter by letter, also where the system ignores case."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or not {"..", "\\"}.isdisjoint((*inside.parts, *path)):
        return False
    file = root / path
    name = unicodedata.normalize("NFC", file.name)
    return file.is_file() and any(unicodedata.normalize("NFC", each.name) == name for each in file.parent.iterdir())


def outline(file: Path, line: int, row: dict[str, str]) -> Outline:
    """Return one row of ``file``; see `read_corners`."""
    where = f"{file}, line {line}"
    path = plain(row["path"] or "")
    if not path:
        raise DataError(f"{where} lacks the path; write it, or remove the line")
    if None in row:
        raise DataError(f"{where} has more cells than columns; {COLUMNS}")
    written = {name: (row[name] or "").strip() for name in QUADRILATERAL if name in row}
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
                "line, since pictures without corners are welcome"
            )
        numbers.append(number)
    return Outline(path, line, tuple(numbers))


def find_corners(file: Path, paths: Collection[str]) -> list[Outline]:
    """Read the table ``file``, and return the rows of the pictures ``paths`` in its folder.

    Rows of other pictures in the folder, which the split leaves out, are left out too.

    Raises:
        DataError: the table cannot be read, a picture is not in the folder, or its corners cannot be right; the message
            names the line.
    """
    root = file.parent
    encoded = {unicodedata.normalize("NFC", path): path for path in paths} | {path: path for path in paths}
    known = [
        (encoded.get(each.path, encoded.get(unicodedata.normalize("NFC", each.path))), each)
        for each in read_corners(file)
    ]
    if missing := [each for path, each in known if path is None and not is_left_out(root, each.path)]:
        raise DataError(
            f"{file}, line {missing[0].line}: {missing[0].path} is not among the pictures of {root}"
            f"{and_more([each.path for each in missing[1:]])}; correct column path (relative to the folder), or remove "
            "the lines"
        )
    found = [each._replace(path=path) for path, each in known if path is not None]
    check_once(file, found)
    for each in found:
        if wrong := problem(each, shape(root / each.path)):
            raise DataError(f"{file}, line {each.line}: {wrong}")
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
