"""A folder of the user's pictures, with one directory per class, as in torchvision's ImageFolder.

A table of labels or WebDataset shards can tell the classes in place of directories. With corners that say where the
thing lies, one class is enough, and no directory is needed.

The split is decided once, when a run is created, and recorded in the run's ``split.csv``. It is random, unless the
folder itself has a ``split.csv``.
"""

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import structlog
import torch

from training.data.folder.corners import COLUMNS as CORNERS_COLUMNS
from training.data.folder.corners import Outline, corners_of, find_corners, outlines_in
from training.data.folder.labels import read_labels, warn_of_unlabelled
from training.data.folder.listing import (
    CORNERS_TABLE,
    SPLIT_TABLE,
    class_of,
    find_pictures,
    plain,
    shortened,
    warn_of_ignored,
)
from training.data.folder.store import stream_pictures
from training.data.folder.tables import Table, read_csv
from training.data.pictures import Shape, damage, read_pictures, shape
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.errors import DataError
from training.recipes.recipe import Recipe, Size

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
COMPARED = (64, 64)
"""Height and width at which pictures are compared to find copies."""
READ_AT_ONCE = 500
SPLIT_COLUMNS = "a split has the columns path and split"

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """A row of a split table."""

    path: str
    """Path of the picture relative to the folder."""
    part: Part
    named: str | None = None
    """The class, if a table tells it; otherwise it is the path's first component."""

    @property
    def label(self) -> str:
        """The class."""
        return self.named or class_of(self.path)


class Folder:
    """The pictures of a split table, resized to one size."""

    def __init__(
        self,
        root: Path,
        entries: Sequence[Entry],
        size: Size,
        channels: int,
        scene_pattern: str | None = None,
        outlines: Sequence[Outline] = (),
        *,
        streamed: bool = False,
        cache: Path | None = None,
    ) -> None:
        """Describe the pictures; none is read yet.

        Args:
            root: the folder.
            entries: its split table.
            size: height and width to which pictures are resized.
            channels: 1 (grey) or 3 (RGB).
            scene_pattern: pictures of one `scene` are a group.
            outlines: the corners of some of the pictures.
            streamed: whether the pictures are read from a file instead of memory (`stream_pictures`).
            cache: the folder of that file.
        """
        self.root = root
        self.entries = entries
        self.size = size
        self.channels = channels
        self.scene_pattern = scene_pattern
        self.outlines = outlines
        self.streamed = streamed
        self.cache = cache
        self.classes = tuple(sorted({entry.label for entry in entries}))

    def training(self) -> tuple[Split, Split]:
        return self._read("train"), self._read("validation")

    def test(self) -> Split:
        return self._read("test")

    def _read(self, part: Part) -> Split:
        chosen = [entry for entry in self.entries if entry.part == part]
        paths = [entry.path for entry in chosen]
        if self.streamed:
            images = stream_pictures(self.root, paths, self.size, self.channels, self.cache)
        else:
            images = read_pictures([self.root / path for path in paths], self.size, self.channels)
        numbers = {label: number for number, label in enumerate(self.classes)}
        labels = torch.tensor([numbers[entry.label] for entry in chosen])
        is_marked = not {outline.path for outline in self.outlines}.isdisjoint(paths)
        corners = corners_of(self.root, paths, self.outlines) if is_marked else None
        if self.scene_pattern is None:
            return Split(images, labels, corners=corners)
        scenes = [(None if entry.named else entry.label, scene(entry.path, self.scene_pattern)) for entry in chosen]
        positions = {name: position for position, name in enumerate(dict.fromkeys(scenes))}
        return Split(images, labels, torch.tensor([positions[name] for name in scenes]), corners=corners)


def split_folder(root: Path, recipe: Recipe, labels: Table | None) -> list[Entry]:
    """Split the pictures under ``root``: as its ``split.csv`` says, or else at random, class by class.

    ``labels`` is the table that tells the classes (`find_labels`), or None if directories do.

    Pictures whose paths have the same match of ``recipe.scene`` belong to one scene, and stay in one split.

    Raises:
        DataError: there are fewer than two classes and no corners, a class has too few pictures, pictures are damaged
            and the recipe does not skip them, or there are both scenes and a table.
    """
    table = split_table(root, labels)
    if table is not None and recipe.scene is not None:
        raise DataError(
            f"{table.name} decides the split, so scene={recipe.scene} has no effect; leave out scene, or remove the "
            "table"
        )
    one_class = recipe.corners > 0 and corners_table(root, labels) is not None
    classes = classes_of(root, labels, one_class=one_class)
    files = list(classes)
    unreadable = damage([root / file for file in files])
    if unreadable and recipe.unreadable == "refuse":
        raise DataError(
            f"{shortened(map(str, unreadable))} cannot be read as pictures; repair or remove them, or skip them with "
            "--set unreadable=skip"
        )
    for file, reason in unreadable.items():
        log.warning("picture_skipped", file=str(file), reason=reason)
    readable = [file for file in files if root / file not in unreadable]
    told = labels is not None
    entries = (
        split_at_random(readable, classes, recipe, told=told)
        if table is None
        else read_table(root, table, readable, files)
    )
    entries = [entry._replace(named=classes[entry.path] if told else None) for entry in entries]
    check_classes(root, entries, set(classes.values()))
    warn_of_copies(root, entries)
    return entries


def split_table(root: Path, labels: Table | None) -> Table | None:
    """Return the table of ``root`` that tells the split, if there is one: its own, or that of the ``labels``.

    Raises:
        DataError: there are two, or it cannot be read.
    """
    own = root / SPLIT_TABLE
    if labels is None or "split" not in labels.columns:
        return read_csv(own, SPLIT_COLUMNS) if own.exists() else None
    if own.exists():
        raise DataError(f"{own} and {labels.name} both tell the split; remove the one or the column")
    return labels


def classes_of(root: Path, table: Table | None, *, one_class: bool) -> dict[str, str]:
    """Return the class of each picture in ``root``, as its ``table`` or else the directories tell it, in order.

    Raises:
        DataError: the table or the directories are wrong, or there are fewer than two classes, unless ``one_class``.
    """
    if table is None:
        return {file: class_of(file) for file in find_pictures(root, one_class=one_class)}
    found = dict(read_labels(root, table))
    warn_of_unlabelled(root, table, found)
    if len(set(found.values())) < 2 and not one_class:
        raise DataError(
            f"{table.name} has a single label, but at least two classes are needed; one is enough with corners"
        )
    return found


def corners_table(root: Path, labels: Table | None) -> Table | None:
    """Return the table of ``root`` that tells corners, if there is one: its own, or that of the ``labels``.

    Raises:
        DataError: there are two, or it cannot be read.
    """
    own = root / CORNERS_TABLE
    column = labels is not None and "x1" in labels.columns
    if own.exists() and labels is not None and column:
        raise DataError(f"{own} and {labels.name} both tell corners; remove the one or the columns")
    return read_csv(own, CORNERS_COLUMNS) if own.exists() else labels if column else None


def labelled_corners(root: Path, recipe: Recipe, entries: Sequence[Entry], labels: Table | None) -> list[Outline]:
    """Return the corners that a table in ``root`` tells, for the pictures of the split.

    Raises:
        DataError: the table cannot be read, a row is wrong, or there is nothing to learn: a single class, and no
            training picture with corners.
    """
    table = corners_table(root, labels)
    if table is None:
        return []
    if not recipe.corners:
        log.warning("corners_left_out", file=table.name, cure="set corners=10 (the weight of their loss)")
        return []
    outlines = find_corners(root, outlines_in(table), [entry.path for entry in entries])
    with_corners = {each.path for each in outlines}
    parts = {entry.part for entry in entries if entry.path in with_corners}
    if "train" not in parts and len({entry.label for entry in entries}) == 1:
        raise DataError(
            f"{table.name} has corners of no picture that is trained on, and with a single class there is nothing "
            f"else to learn; add rows, or assign pictures with corners to train in {root / SPLIT_TABLE}"
        )
    if outlines and parts != set(PARTS):
        log.warning(
            "splits_without_corners",
            splits=", ".join(part for part in PARTS if part not in parts),
            cure=f"label more pictures, or assign labelled ones in {SPLIT_TABLE}",
        )
    return outlines


def read_table(root: Path, table: Table, readable: Sequence[str], files: Sequence[str]) -> list[Entry]:
    """Return the split that ``table`` tells; pictures in ``root`` that it does not list are ignored.

    Raises:
        DataError: a row is wrong, or a picture is missing from ``files``, or listed twice.
    """
    there = set(files)
    encoded = {unicodedata.normalize("NFC", file): file for file in files}
    entries = [
        entry
        if entry.path in there
        else entry._replace(path=encoded.get(unicodedata.normalize("NFC", entry.path), entry.path))
        for entry in entries_in(table)
    ]
    if missing := [entry.path for entry in entries if entry.path not in there]:
        raise DataError(f"{table.name} lists {shortened(missing)}, not found in {root}; correct column path")
    if twice := [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]:
        raise DataError(f"{table.name} lists {shortened(twice)} more than once; keep one row of each")
    listed = {entry.path for entry in entries}
    warn_of_ignored([file for file in files if file not in listed], f"not in {Path(table.name).name}")
    wanted = set(readable)
    return [entry for entry in entries if entry.path in wanted]


def split_at_random(
    files: Sequence[str], classes: Mapping[str, str], recipe: Recipe, *, told: bool = False
) -> list[Entry]:
    """Hold out a share of each of the ``classes`` for validation, and the same for the test, reproducibly at random.

    If a table has ``told`` the classes, a scene may show several of them; it counts as one of its first picture's.

    Raises:
        DataError: the recipe's pattern for scenes does not match a file.
    """
    by_class: dict[str, dict[str, list[str]]] = {}
    home: dict[str, str] = {}
    for file in files:
        name = scene(file, recipe.scene)
        label = home.setdefault(name, classes[file]) if told else classes[file]
        by_class.setdefault(label, {}).setdefault(name, []).append(file)
    entries = []
    generator = seeded(Stream.SPLIT)
    for scenes in by_class.values():
        groups = list(scenes.values())
        wanted = recipe.holdout * sum(map(len, groups))
        shuffled = [groups[position] for position in torch.randperm(len(groups), generator=generator).tolist()]
        for part in ("test", "validation"):
            held = 0
            while held < wanted and shuffled:
                group = shuffled.pop()
                held += len(group)
                entries += [Entry(file, part) for file in group]
        entries += [Entry(file, "train") for group in shuffled for file in group]
    return sorted(entries)


def scene(file: str, pattern: str | None) -> str:
    """Return the scene of ``file``: its path, or the part that ``pattern`` (or its first group) matches.

    Raises:
        DataError: the pattern, or its group, does not match.
    """
    if pattern is None:
        return file
    match = re.search(pattern, unicodedata.normalize("NFC", file))
    found = match and match[1 if match.re.groups else 0]
    if not found:
        raise DataError(
            f"scene={pattern} does not match {file}; correct it with --set scene=PATTERN, or leave scene out if the "
            "pictures are independent"
        )
    return found


def check_classes(root: Path, entries: Sequence[Entry], classes: set[str]) -> None:
    """Check that every class has training pictures, and that there are validation and test pictures.

    Classes without validation or test pictures cause a warning.

    Raises:
        DataError: a class has no training pictures, or there are no validation or test pictures.
    """
    for part in PARTS:
        have = {entry.label for entry in entries if entry.part == part}
        lacking = sorted(classes - have)
        if lacking and have and part != "train":
            log.warning("classes_without_pictures", split=part, count=len(lacking), classes=shortened(lacking))
        elif lacking:
            counts = Counter(entry.label for entry in entries)
            few = shortened(f"{label} ({counts[label]} readable pictures)" for label in lacking)
            raise DataError(
                f"nothing is left for {part} of {few}; add pictures (or, where scenes stay together, scenes), change "
                f"--set holdout=SHARE, or write {root / SPLIT_TABLE}"
            )


def warn_of_copies(root: Path, entries: Sequence[Entry]) -> None:
    """Warn of pictures that occur in several splits, because they make test results too optimistic."""
    seen: dict[tuple[Shape, bytes], list[Entry]] = {}
    for start in range(0, len(entries), READ_AT_ONCE):
        some = entries[start : start + READ_AT_ONCE]
        pictures = read_pictures([root / entry.path for entry in some], COMPARED, channels=3)
        for entry, picture in zip(some, pictures.numpy(), strict=True):
            pixels = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
            seen.setdefault((shape(root / entry.path), pixels), []).append(entry)
    copies = [alike for alike in seen.values() if len({entry.part for entry in alike}) > 1]
    if copies:
        log.warning(
            "copies_in_several_splits",
            count=sum(map(len, copies)),
            examples=shortened(" = ".join(f"{entry.path} ({entry.part})" for entry in alike[:3]) for alike in copies),
            cure=f"remove the copies, or put them into one split with scene=PATTERN or {SPLIT_TABLE}",
        )


def read_split(file: Path) -> list[Entry]:
    """Read a table with the columns ``path`` and ``split`` (train, validation or test), and sometimes ``label``.

    Raises:
        DataError: it cannot be read, or a row is incomplete or wrong.
    """
    return entries_in(read_csv(file, SPLIT_COLUMNS))


def entries_in(table: Table) -> list[Entry]:
    """Return the rows of a table; see `read_split`."""
    if missing := [name for name in ("path", "split") if name not in table.columns]:
        raise DataError(f"{table.name} has no column {', '.join(missing)}; {SPLIT_COLUMNS}")
    rows = [
        (row.where, plain(row.cells["path"] or ""), (row.cells["split"] or "").strip(), row.cells.get("label"))
        for row in table.rows
    ]
    if short := [where for where, path, split, _ in rows if not (path and split)]:
        raise DataError(f"path or split is missing in {shortened(short)}; write both, or remove the row")
    if wrong := sorted({split for _, _, split, _ in rows if split not in PARTS}):
        raise DataError(f"{table.name} has {shortened(wrong)} in its column split; write {', '.join(PARTS)}")
    return [Entry(path, next(part for part in PARTS if part == split), label) for _, path, split, label in rows]


def split_text(entries: Sequence[Entry]) -> str:
    """Return the content of the table that `read_split` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if any(entry.named for entry in entries):
        writer.writerow(("path", "split", "label"))
        writer.writerows(entries)
    else:
        writer.writerow(("path", "split"))
        writer.writerows(entry[:2] for entry in entries)
    return text.getvalue()


def counts(entries: Sequence[Entry]) -> dict[str, dict[Part, int]]:
    """Return the number of pictures of each class in each split."""
    found = Counter((entry.label, entry.part) for entry in entries)
    return {label: {part: found[label, part] for part in PARTS} for label in sorted({e.label for e in entries})}
