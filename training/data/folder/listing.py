"""Find the classes and pictures in a folder, and the files to ignore."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import structlog

from imaging.formats.signatures import EXTENSIONS
from training.errors import DataError

SPLIT_TABLE = "split.csv"
CORNERS_TABLE = "corners.csv"
LABELS_TABLE = "labels.csv"
PARQUET_TABLE = "labels.parquet"
SHARD = ".tar"
"""Extension of WebDataset shards, in lower case."""
ONLY_CLASS = "thing"
"""The class of pictures that lie in the folder itself."""
UNWRITABLE = {"Cc", "Cs"}
"""Categories of characters that names in a table cannot have: control characters, and bytes that are not UTF-8."""
SHOWN = 5
"""Number of names in a message; further ones are only counted."""
SPLIT_NAME = re.compile(
    r"(train|training|test|testing|val|valid|validation|validate|validating|dev|development|eval|evaluation|holdout)"
    r"s?([ _-]?(set|data|split|images|pictures))?s?[ _-]?[0-9]*"
)
"""Names of directories that contain one split of a data set, in lower case."""
LEFTOVERS = (
    ".*",
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin"),  # NAS boxes
    *("thumbs.db", "ehthumbs*.db", "desktop.ini", "$recycle.bin", "recycler", "recycled", "system volume information"),
    *("__macosx", "icon\r", "network trash folder", "temporary items", "lost+found"),
    *("*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", "*.filepart", "*~", "~$*", "~lock*"),
    *("*.sync-conflict-*", "*conflicted copy*", "*_conflict-[0-9]*", "*case conflict*", "*.!sync", "*.bak", "*.swp"),
)
"""Patterns, in lower case, of files left by file systems, desktops, NAS boxes, downloads and synchronisation."""

log = structlog.get_logger(__name__)


def find_pictures(root: Path, *, one_class: bool = False) -> list[str]:
    """Return the paths of all pictures in the directories of ``root``, relative to it and in order.

    With ``one_class``, a single directory is enough, and without any, the pictures in ``root`` itself are returned.

    Raises:
        DataError: ``root`` has no class directories, an empty one, or names that a table cannot contain.
    """
    found, others, leftovers = [], [], [entry for entry in sorted(root.glob("*")) if is_leftover(entry)]
    folders = find_classes(root, at_least=0 if one_class else 2)
    loose = [file for file in sorted(root.iterdir()) if is_picture(file) and not is_leftover(file)]
    if not folders and not loose:
        raise DataError(f"{root} has no pictures ({', '.join(EXTENSIONS)}); name another folder with --data-root")
    for folder in folders:
        visible = list(walk(folder, leftovers))
        inside = [file for file in visible if is_picture(file)]
        if not inside:
            raise DataError(f"{folder} has no pictures ({', '.join(EXTENSIONS)}); add some, or remove the directory")
        found += [file.relative_to(root).as_posix() for file in inside]
        others += [file for file in visible if not is_picture(file)]
    if not folders:
        found = [file.name for file in loose]
    if wrong := [file for file in found if any(unicodedata.category(letter) in UNWRITABLE for letter in file)]:
        raise DataError(
            f"{root} has {shortened(map(repr, wrong))}, which {SPLIT_TABLE} cannot list; rename files whose names "
            "contain control characters, or bytes that are not UTF-8"
        )
    warn_of_ignored(loose if folders else [], "not in a class directory")
    warn_of_ignored([file for file in others if file.is_dir()], "links to directories")
    warn_of_ignored([file for file in others if not file.is_dir()], "not pictures of a supported format")
    warn_of_ignored(leftovers, "hidden, or left by another program")
    return found


def find_classes(root: Path, at_least: int = 2) -> list[Path]:
    """Return the class directories, in order.

    Raises:
        DataError: ``root`` does not have ``at_least`` so many classes, or contains splits instead of classes.
    """
    cure = (
        f"--data-root must name a folder with one directory for each class, or with {LABELS_TABLE}, or with WebDataset "
        "shards"
    )
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; {cure}")
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_leftover(entry))
    called = [entry for entry in classes if SPLIT_NAME.fullmatch(entry.name.casefold())]
    parts = called if len(called) > 1 or called == classes else [entry for entry in called if holds_classes(entry)]
    if parts:
        others = [entry.name for entry in classes if entry not in parts]
        beside = f", beside {shortened(others)}," if others else ""
        raise DataError(
            f"{root} is split into {shortened(entry.name for entry in parts)}{beside} already; {cure}, "
            f"with all of its pictures; to keep the split, add {SPLIT_TABLE} with the columns path and split"
        )
    if len({unicodedata.normalize("NFC", entry.name) for entry in classes}) < at_least:
        if (shards := [entry for entry in root.iterdir() if is_shard(entry)]) and (hiders := hiding(root)):
            raise DataError(
                f"{root} has {len(shards)} WebDataset shards, which are read only where no directories and pictures "
                f"are beside them; move {shortened(entry.name for entry in hiders)} out of it"
            )
        raise DataError(
            f"{root} has {len(classes)} directories, but at least two classes are needed; {cure}; one class is enough "
            f"only if {CORNERS_TABLE} says where the thing lies, and the recipe's weight corners is above 0"
        )
    return classes


def hiding(root: Path) -> list[Path]:
    """Return the directories and pictures in ``root``, beside which no shards are read, in order."""
    return [
        entry for entry in sorted(root.iterdir()) if (entry.is_dir() or is_picture(entry)) and not is_leftover(entry)
    ]


def is_shard(file: Path) -> bool:
    """Return whether ``file`` has the extension of a shard and is not a directory, nor hidden."""
    return file.suffix.lower() == SHARD and not file.is_dir() and not file.name.startswith(".")


def holds_classes(folder: Path) -> bool:
    """Return whether ``folder`` contains directories but no pictures, like one split of a data set."""
    inside = [entry for entry in folder.iterdir() if not is_leftover(entry)]
    return any(entry.is_dir() for entry in inside) and not any(map(is_picture, inside))


def class_of(path: str) -> str:
    """Return the class of a relative path: its directory, in Unicode's composed form (NFC), or else `ONLY_CLASS`."""
    first, *within = Path(path).parts
    return unicodedata.normalize("NFC", first) if within else ONLY_CLASS


def plain(path: str) -> str:
    """Return a relative path as this project writes it, without ``./``; nothing stays nothing."""
    return PurePosixPath(path).as_posix() if path else path


def walk(folder: Path, leftovers: list[Path]) -> Iterator[Path]:
    """Yield all files below ``folder`` in order, and links to directories.

    Leftovers are added to ``leftovers`` instead; directories among them are not entered.
    """
    for entry in sorted(folder.iterdir()):
        if is_leftover(entry):
            leftovers.append(entry)
        elif entry.is_dir() and not entry.is_symlink():
            yield from walk(entry, leftovers)
        else:
            yield entry


def is_leftover(file: Path) -> bool:
    """Return whether ``file`` is hidden or was left by another program, judging by its name."""
    return any(fnmatchcase(file.name.casefold(), pattern) for pattern in LEFTOVERS)


def is_picture(file: Path) -> bool:
    """Return whether ``file`` has the extension of a picture."""
    return file.suffix.lower() in EXTENSIONS and file.is_file()


def warn_of_ignored(files: Sequence[Path | str], reason: str) -> None:
    """Warn that ``files`` are ignored, if there are any."""
    if files:
        log.warning("files_left_out", reason=reason, count=len(files), example=repr(str(files[0])))


def shortened(names: Iterable[str]) -> str:
    """Join the first few of ``names``, and say how many more there are."""
    everything = list(names)
    more = f" and {len(everything) - SHOWN} more" if len(everything) > SHOWN else ""
    return ", ".join(everything[:SHOWN]) + more
