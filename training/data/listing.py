"""The pictures in a folder: which directories are classes, which files are pictures, and what is left out."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import structlog

from imaging.formats.signatures import EXTENSIONS
from training.errors import DataError

SPLIT_TABLE = "split.csv"
UNWRITABLE = {"Cc", "Cs"}
"""Kinds of characters that names in a table cannot have: control characters, and what is no UTF-8."""
SHOWN = 5
"""Files that an error names; of the others it says how many there are."""
SPLIT_NAME = re.compile(
    r"(train|training|test|testing|val|valid|validation|validate|validating|dev|development|eval|evaluation|holdout)"
    r"s?([ _-]?(set|data|split|images|pictures))?s?[ _-]?[0-9]*"
)
"""Names of directories that hold a part of a data set, in lower case."""
LEFTOVERS = (
    ".*",
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin"),  # NAS boxes
    *("thumbs.db", "ehthumbs*.db", "desktop.ini", "$recycle.bin", "recycler", "recycled", "system volume information"),
    *("__macosx", "icon\r", "network trash folder", "temporary items", "lost+found"),
    *("*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", "*.filepart", "*~", "~$*", "~lock*"),
    *("*.sync-conflict-*", "*conflicted copy*", "*_conflict-[0-9]*", "*case conflict*", "*.!sync", "*.bak", "*.swp"),
)
"""Patterns, in lower case, of what file systems, desktops, NAS boxes, downloads and synchronisation leave behind."""

log = structlog.get_logger(__name__)


def find_pictures(root: Path) -> list[str]:
    """Return all picture files in the directories of ``root``, as paths relative to it, in order.

    Raises:
        DataError: ``root`` is no such folder, or has names that a table cannot hold.
    """
    found, others, leftovers = [], [], [entry for entry in sorted(root.glob("*")) if is_leftover(entry)]
    for folder in find_classes(root):
        visible = list(walk(folder, leftovers))
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
    loose = [file for file in sorted(root.iterdir()) if is_picture(file) and not is_leftover(file)]
    tell_left_out(loose, "beside the directories of the classes")
    tell_left_out([file for file in others if file.is_dir()], "links to directories")
    tell_left_out([file for file in others if not file.is_dir()], "no pictures of a format that is taken")
    tell_left_out(leftovers, "hidden, or left behind by another program")
    return found


def find_classes(root: Path) -> list[Path]:
    """Return the directories of the classes, in order.

    Raises:
        DataError: ``root`` is no folder of such, or holds the parts of a data set instead.
    """
    cure = "--data-root must name a folder with one directory for each class"
    if not root.is_dir():
        raise DataError(f"{root} is no folder; {cure}")
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_leftover(entry))
    called = [entry for entry in classes if SPLIT_NAME.fullmatch(entry.name.casefold())]
    parts = called if len(called) > 1 or called == classes else [entry for entry in called if holds_classes(entry)]
    if parts:
        others = [entry.name for entry in classes if entry not in parts]
        beside = f", beside {named(others)}," if others else ""
        raise DataError(
            f"{root} is split into {named(entry.name for entry in parts)}{beside} already; {cure}, "
            f"with all its pictures in it, and {SPLIT_TABLE} with the columns path and split to keep that split"
        )
    if len({class_of(entry.name) for entry in classes}) < 2:
        raise DataError(f"{root} holds {len(classes)} directories, and two classes is the least; {cure}")
    return classes


def holds_classes(folder: Path) -> bool:
    """Whether ``folder`` holds directories and no pictures beside them, as a part of a data set does."""
    inside = [entry for entry in folder.iterdir() if not is_leftover(entry)]
    return any(entry.is_dir() for entry in inside) and not any(map(is_picture, inside))


def class_of(path: str) -> str:
    """Return the class that a relative path is of; a name is the same however its accents are encoded."""
    return unicodedata.normalize("NFC", Path(path).parts[0])


def walk(folder: Path, leftovers: list[Path]) -> Iterator[Path]:
    """Go through the files in ``folder`` and the directories in it, in order, and its links to directories.

    What `is_leftover` is added to ``leftovers`` instead, and not gone into.
    """
    for entry in sorted(folder.iterdir()):
        if is_leftover(entry):
            leftovers.append(entry)
        elif entry.is_dir() and not entry.is_symlink():
            yield from walk(entry, leftovers)
        else:
            yield entry


def is_leftover(file: Path) -> bool:
    """Whether ``file`` is hidden, or by its name was left behind by another program."""
    return any(fnmatchcase(file.name.casefold(), pattern) for pattern in LEFTOVERS)


def is_picture(file: Path) -> bool:
    """Whether ``file`` is one by its name."""
    return file.suffix.lower() in EXTENSIONS and file.is_file()


def tell_left_out(files: Sequence[Path | str], reason: str) -> None:
    """Warn of ``files``, if there are any."""
    if files:
        log.warning("files_left_out", reason=reason, count=len(files), example=repr(str(files[0])))


def named(names: Iterable[str]) -> str:
    """Name some of ``names``, and say how many more there are."""
    everything = list(names)
    more = f" and {len(everything) - SHOWN} more" if len(everything) > SHOWN else ""
    return ", ".join(everything[:SHOWN]) + more
