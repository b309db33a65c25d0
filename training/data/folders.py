"""A folder of one's own pictures: a directory for each class, as torchvision's ImageFolder has it.

Which picture is for what is decided once, when a run is begun, and stands in the run's ``split.csv``. A ``split.csv``
in the folder itself decides it instead of chance.
"""

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import structlog
import torch

from training.data.listing import SPLIT_TABLE, class_of, find_pictures, named, tell_left_out
from training.data.pictures import Shape, damage, read_pictures, shape
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.errors import DataError
from training.recipes.recipe import Recipe, Size

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
COMPARED = (64, 64)
"""Height and width at which pictures are compared."""
READ_AT_ONCE = 500

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """A row of a split table."""

    path: str
    """Of the picture, relative to the folder; its first part is the class."""
    part: Part

    @property
    def label(self) -> str:
        """The class."""
        return class_of(self.path)


class Folder:
    """The pictures that a split table names, all brought to one size."""

    def __init__(self, root: Path, entries: Sequence[Entry], size: Size, channels: int) -> None:
        """``size`` is (height, width); ``channels`` are 1 (grey) or 3 (RGB)."""
        self.root = root
        self.entries = entries
        self.size = size
        self.channels = channels
        self.classes = tuple(sorted({entry.label for entry in entries}))

    def training(self) -> tuple[Split, Split]:
        return self._read("train"), self._read("validation")

    def test(self) -> Split:
        return self._read("test")

    def _read(self, part: Part) -> Split:
        chosen = [entry for entry in self.entries if entry.part == part]
        images = read_pictures([self.root / entry.path for entry in chosen], self.size, self.channels)
        numbers = {label: number for number, label in enumerate(self.classes)}
        return Split(images, torch.tensor([numbers[entry.label] for entry in chosen]))


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
    check(root, entries, {class_of(file) for file in files})
    tell_copies(root, entries)
    return entries


def listed(root: Path, readable: Sequence[str], files: Sequence[str]) -> list[Entry]:
    """What the ``split.csv`` in ``root`` says about ``readable``; pictures that it leaves out are left out.

    Raises:
        DataError: it cannot be read, or names a picture that is not among ``files``, or one twice.
    """
    there = set(files)
    encoded = {unicodedata.normalize("NFC", file): file for file in files}
    entries = [
        entry
        if entry.path in there
        else entry._replace(path=encoded.get(unicodedata.normalize("NFC", entry.path), entry.path))
        for entry in read_split(root / SPLIT_TABLE)
    ]
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
        by_class.setdefault(class_of(file), {}).setdefault(scene(file, recipe.scene), []).append(file)
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
    match = re.search(pattern, unicodedata.normalize("NFC", file))
    found = match and match[1 if match.re.groups else 0]
    if not found:
        raise DataError(
            f"scene={pattern} finds nothing in {file}; mend the pattern with --set scene=PATTERN, or leave scene "
            "out if every picture stands for itself"
        )
    return found


def check(root: Path, entries: Sequence[Entry], classes: set[str]) -> None:
    """See that every class has pictures to train on, and that there are some to validate on and to test on.

    Warn of classes that nothing is left of for one of the latter.

    Raises:
        DataError: one has not, or there are none.
    """
    for part in PARTS:
        have = {entry.label for entry in entries if entry.part == part}
        lacking = sorted(classes - have)
        if lacking and have and part != "train":
            log.warning("classes_without_pictures", split=part, count=len(lacking), classes=named(lacking))
        elif lacking:
            counts = Counter(entry.label for entry in entries)
            few = named(f"{label} ({counts[label]} readable pictures)" for label in lacking)
            raise DataError(
                f"nothing is left for {part} of {few}; add pictures (or, where scenes stay together, scenes), change "
                f"--set holdout=SHARE, or write {root / SPLIT_TABLE}"
            )


def tell_copies(root: Path, entries: Sequence[Entry]) -> None:
    """Warn of pictures that another part of the split has too: with them, the test says less than it seems to."""
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
            examples=named(" = ".join(f"{entry.path} ({entry.part})" for entry in alike[:3]) for alike in copies),
            cure=f"remove the copies, or keep them together by scene=PATTERN or {SPLIT_TABLE}",
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
