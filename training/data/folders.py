"""A folder of one's own pictures: a directory for each class, as torchvision's ImageFolder has it.

Which picture is for what is decided once, when a run is begun, and stands in the run's ``split.csv``. A ``split.csv``
in the folder itself decides it instead of chance.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import structlog
import torch

from imaging.formats import EXTENSIONS
from training.data.collection import Collection
from training.data.pictures import damage, read_pictures
from training.data.random_streams import Stream, seeded
from training.errors import DataError
from training.recipes.recipe import Recipe, Size

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
SPLIT_TABLE = "split.csv"
UNWRITABLE = {"Cc", "Cs"}
"""Kinds of characters that names in a table cannot have: control characters, and what is no UTF-8."""
SHOWN = 5
"""Files that an error names; of the others it says how many there are."""

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """A row of a split table."""

    path: str
    """Of the picture, relative to the folder; its first part is the class."""
    part: Part

    @property
    def label(self) -> str:
        """The class."""
        return Path(self.path).parts[0]


class Folder:
    """The pictures that a split table names, all brought to one size."""

    def __init__(self, root: Path, entries: Sequence[Entry], size: Size, channels: int) -> None:
        """``size`` is (height, width); ``channels`` are 1 (grey) or 3 (RGB)."""
        self.root = root
        self.entries = entries
        self.size = size
        self.channels = channels
        self.classes = tuple(sorted({entry.label for entry in entries}))

    def training(self) -> tuple[Collection, Collection]:
        return self._read("train"), self._read("validation")

    def test(self) -> Collection:
        return self._read("test")

    def _read(self, part: Part) -> Collection:
        chosen = [entry for entry in self.entries if entry.part == part]
        images = read_pictures([self.root / entry.path for entry in chosen], self.size, self.channels)
        return Collection(images, torch.tensor([self.classes.index(entry.label) for entry in chosen]))


def split_folder(root: Path, recipe: Recipe) -> list[Entry]:
    """Decide which picture under ``root`` is for what: as its ``split.csv`` says, or else by chance, class by class.

    Pictures in which ``recipe.scene`` finds the same text are of one scene, and stay together.

    Raises:
        DataError: there are no two classes, a class has too few pictures, some cannot be read and the recipe refuses
            such, or there are both scenes and a table; the message names them.
    """
    table = root / SPLIT_TABLE
    if table.exists() and recipe.scene is not None:
        raise DataError(
            f"{table} says which picture is for what, which leaves nothing to do for scene={recipe.scene}; leave out "
            "scene, or remove the table"
        )
    files = find_pictures(root)
    unreadable = damage([root / file for file in files])
    if unreadable and recipe.unreadable == "refuse":
        raise DataError(
            f"{named(map(str, unreadable))} cannot be read as pictures; repair or remove them, or leave them out with "
            "--set unreadable=skip"
        )
    for file, reason in unreadable.items():
        log.warning("picture_skipped", file=str(file), reason=reason)
    readable = [file for file in files if root / file not in unreadable]
    entries = listed(root, readable, files) if table.exists() else drawn(readable, recipe)
    check(root, entries, {Path(file).parts[0] for file in files})
    return entries


def find_pictures(root: Path) -> list[str]:
    """All picture files in the directories of ``root``, as paths relative to it, in order; hidden ones are none.

    Raises:
        DataError: ``root`` is no such folder, or has names that a table cannot hold.
    """
    found, others = [], []
    for folder in find_classes(root):
        visible = find_visible(folder)
        inside = [file for file in visible if is_picture(file)]
        if not inside:
            raise DataError(f"{folder} has no pictures ({', '.join(EXTENSIONS)}); add some, or remove the directory")
        found += [file.relative_to(root).as_posix() for file in inside]
        others += [file for file in visible if not is_picture(file)]
    if wrong := [file for file in found if any(unicodedata.category(letter) in UNWRITABLE for letter in file)]:
        raise DataError(
            f"{root} has {named(map(repr, wrong))}, which {SPLIT_TABLE} cannot name; rename what has control "
            "characters in its name, or bytes that are no UTF-8"
        )
    loose = [file for file in sorted(root.iterdir()) if is_picture(file) and not file.name.startswith(".")]
    tell_left_out(loose, "beside the directories of the classes")
    tell_left_out([file for file in others if file.is_dir() and file.is_symlink()], "links to directories")
    tell_left_out([file for file in others if not file.is_dir()], "no pictures of a format that is taken")
    return found


def find_classes(root: Path) -> list[Path]:
    """The directories of the classes, in order.

    Raises:
        DataError: ``root`` is no folder of such.
    """
    cure = "--data-root must name a folder with one directory for each class"
    if not root.is_dir():
        raise DataError(f"{root} is no folder; {cure}")
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"{root} holds {len(classes)} directories, and two classes is the least; {cure}")
    if {entry.name for entry in classes} <= {"train", "training", "val", "valid", "validation", "test"}:
        raise DataError(
            f"{root} is split into {named(entry.name for entry in classes)} already; {cure}, "
            f"with all its pictures in it, and {SPLIT_TABLE} with the columns path and split to keep that split"
        )
    return classes


def find_visible(folder: Path) -> list[Path]:
    """Everything in ``folder`` and the directories in it, in order, but nothing hidden."""
    found = sorted(folder.rglob("*"))
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def is_picture(file: Path) -> bool:
    """Whether ``file`` is one by its name."""
    return file.suffix.lower() in EXTENSIONS and file.is_file()


def tell_left_out(files: Sequence[Path | str], reason: str) -> None:
    """Warn of ``files``, if there are any."""
    if files:
        log.warning("files_left_out", reason=reason, count=len(files), example=repr(str(files[0])))


def listed(root: Path, readable: Sequence[str], files: Sequence[str]) -> list[Entry]:
    """What the ``split.csv`` in ``root`` says about ``readable``; pictures that it leaves out are left out.

    Raises:
        DataError: it cannot be read, or names a picture that is not among ``files``, or one twice.
    """
    entries = read_split(root / SPLIT_TABLE)
    there = set(files)
    if missing := [entry.path for entry in entries if entry.path not in there]:
        raise DataError(f"{root / SPLIT_TABLE} names {named(missing)}, which {root} has not; mend its column path")
    if twice := [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]:
        raise DataError(f"{root / SPLIT_TABLE} names {named(twice)} more than once; leave one row of each")
    named_there = {entry.path for entry in entries}
    tell_left_out([file for file in files if file not in named_there], f"not in {SPLIT_TABLE}")
    can_be_read = set(readable)
    return [entry for entry in entries if entry.path in can_be_read]


def drawn(files: Sequence[str], recipe: Recipe) -> list[Entry]:
    """Hold out a share of each class for validation and as much for the test, at random but the same each time.

    Raises:
        DataError: the recipe's pattern of scenes does not fit a file.
    """
    by_class: dict[str, dict[str, list[str]]] = {}
    for file in files:
        by_class.setdefault(Path(file).parts[0], {}).setdefault(scene(file, recipe.scene), []).append(file)
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
    """What tells the scene of ``file``: its whole path, or the part of it that ``pattern`` (its group) finds.

    Raises:
        DataError: the pattern, or its group, finds nothing in the path.
    """
    if pattern is None:
        return file
    match = re.search(pattern, file)
    found = match and match[1 if match.re.groups else 0]
    if not found:
        raise DataError(
            f"scene={pattern} finds nothing in {file}; mend the pattern with --set scene=PATTERN, or leave scene "
            "out if every picture stands for itself"
        )
    return found


def check(root: Path, entries: Sequence[Entry], classes: set[str]) -> None:
    """See that every class has pictures to train on, to validate on and to test on.

    Raises:
        DataError: one has not.
    """
    for part in PARTS:
        have = {entry.label for entry in entries if entry.part == part}
        if lacking := sorted(classes - have):
            counts = Counter(entry.label for entry in entries)
            few = named(f"{label} ({counts[label]} readable pictures)" for label in lacking)
            raise DataError(
                f"nothing is left for {part} of {few}; add pictures (or, where scenes stay together, scenes), change "
                f"--set holdout=SHARE, or write {root / SPLIT_TABLE}"
            )


def read_split(file: Path) -> list[Entry]:
    """A table with the columns ``path`` and ``split`` (train, validation or test).

    Raises:
        DataError: it is no such table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            rows = [(reader.line_num, row["path"], row["split"]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{file} cannot be read as a table with the columns path and split ({error})") from error
    if short := [str(line) for line, path, said in rows if not (path and said)]:
        raise DataError(f"{file} lacks path or split in line {named(short)}; write both, or remove the line")
    if wrong := sorted({said for _, _, said in rows if said not in PARTS}):
        raise DataError(f"{file} has {named(wrong)} in its column split; write {', '.join(PARTS)}")
    return [Entry(path, next(part for part in PARTS if part == said)) for _, path, said in rows]


def split_text(entries: Sequence[Entry]) -> str:
    """The table that `read_split` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "split"))
    writer.writerows(entries)
    return text.getvalue()


def counts(entries: Sequence[Entry]) -> dict[str, dict[Part, int]]:
    """Pictures of each class, in each part."""
    found = Counter((entry.label, entry.part) for entry in entries)
    return {label: {part: found[label, part] for part in PARTS} for label in sorted({e.label for e in entries})}


def named(names: Iterable[str]) -> str:
    """Some of ``names``, and how many more there are."""
    everything = list(names)
    more = f" and {len(everything) - SHOWN} more" if len(everything) > SHOWN else ""
    return ", ".join(everything[:SHOWN]) + more
