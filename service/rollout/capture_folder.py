"""A folder of captured pictures, with a folder for each model that ``python -m training run my-images`` reads.

In that, pictures lie in a folder for each class, and ``labels.csv`` says which class the model gave them. Several
processes may write into the same folder: a lock makes them take turns.
"""

import csv
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from imaging.errors import ImageError
from imaging.formats.signatures import identify
from service.errors import CaptureError

TABLE: Final = "labels.csv"
COLUMNS: Final = ("path", "label")
MARKER: Final = ".captured"
"""File that names the model whose folder it is in. Folders without it, and copies, belong to somebody else."""
LOCK: Final = ".lock"
USAGE: Final = ".usage"
"""File with the number of pictures and bytes in the folder."""
RECOUNT_S: Final = 60.0
"""Time after which the folder is looked through again, and outdated pictures are deleted."""
EXTENSIONS: Final = {"JPEG": "jpg", "TIFF": "tif", "HEIF": "heic"}
"""Extensions of formats that are not called by them."""
NO_NAME = re.compile(r"[^\w .-]")
MAX_NAME: Final = 60
"""Characters of the name of a class folder."""


class Usage(NamedTuple):
    """What is in the folder."""

    pictures: int
    bytes: int


class CaptureFolder:
    """Writes pictures. All methods block, and are called by one thread at a time."""

    def __init__(self, folder: Path, max_pictures: int, max_bytes: int, days: int) -> None:
        """At most so many pictures of together so many bytes are kept, for so many ``days``."""
        self._folder = folder
        self._max = Usage(max_pictures, max_bytes)
        self._days_s = days * 86_400.0
        self._counted = float("-inf")
        self._broken: dict[str, str] = {}
        """What is wrong with the tables of models, as of the last count."""

    def create(self) -> None:
        """Create the folder, for nobody but the user of this process.

        Raises:
            OSError: it cannot be created, or not be written to.
            CaptureError: the table of a model cannot be used.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            self._usage()
        for problem in self._broken.values():
            raise CaptureError(problem)

    def add(self, content: bytes, model: str, label: str) -> str:
        """Write a picture for ``model``, of its class ``label``.

        Return ``written``, ``known`` if it is there, or ``no_room``.

        Raises:
            OSError: it cannot be written. No part of it is in the table.
            CaptureError: the table cannot be used, or the model's folder is not of this service.
        """
        label = "".join(letter if letter.isprintable() else " " for letter in label).strip() or "class"
        path = f"{folder_name(label)}/{hashlib.sha256(content).hexdigest()[:24]}.{extension(content)}"
        folder = self._folder / model
        with self._locked():
            usage = self._usage()
            if model in self._broken:
                raise CaptureError(self._broken[model])
            if (folder / path).exists():
                return "known"
            if usage.pictures >= self._max.pictures or usage.bytes + len(content) > self._max.bytes:
                return "no_room"
            folder.mkdir(mode=0o700, exist_ok=True)
            if not is_own(folder):
                if visible(folder):
                    raise CaptureError(f"{folder} was not made by this service; move it out of {self._folder}")
                self._write(folder / MARKER, model.encode())
            if not (folder / TABLE).exists():
                tidy(folder)
            self._write(folder / path, content)
            with (folder / TABLE).open("a", newline="", encoding="utf-8") as table:
                csv.writer(table).writerow((path, label))
            self._write(self._folder / USAGE, json.dumps((usage.pictures + 1, usage.bytes + len(content))).encode())
        return "written"

    def _write(self, file: Path, content: bytes) -> None:
        """Write a file as a whole or not at all."""
        aside = self._folder / f".{os.getpid()}.new"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            aside.write_bytes(content)
            aside.chmod(0o600)
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)

    def _usage(self) -> Usage:
        """What is in the folder; from time to time it is counted, and outdated pictures are deleted."""
        if time.monotonic() < self._counted + RECOUNT_S:
            with suppress(OSError, ValueError, TypeError):
                pictures, total = map(int, json.loads((self._folder / USAGE).read_text()))
                return Usage(pictures, total)
        usage = self._recount()
        self._write(self._folder / USAGE, json.dumps(usage).encode())
        self._counted = time.monotonic()
        return usage

    def _recount(self) -> Usage:
        oldest = time.time() - self._days_s
        pictures = total = 0
        self._broken = {}
        for folder in filter(is_own, visible(self._folder)):
            for file in pictures_in(folder):
                status = file.stat()
                if status.st_mtime < oldest:
                    file.unlink()
                    with suppress(OSError):  # others are in it
                        file.parent.rmdir()
                else:
                    pictures, total = pictures + 1, total + status.st_size
            try:
                tidy(folder)
            except OSError as error:
                self._broken[folder.name] = f"{folder / TABLE} cannot be used ({error.strerror}); correct it"
            except (UnicodeError, csv.Error) as error:
                self._broken[folder.name] = f"{folder / TABLE} cannot be read ({error}); save it as CSV in UTF-8"
        return Usage(pictures, total)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def is_own(folder: Path) -> bool:
    """Whether a folder was made here for the model it is called by. A copy under another name is not."""
    with suppress(OSError):
        return (folder / MARKER).read_bytes() == folder.name.encode()
    return False


def visible(folder: Path) -> list[Path]:
    """What is in a folder and not hidden."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures in the folders of the classes of a model."""
    for each in visible(folder):
        if each.is_dir():
            yield from (file for file in visible(each) if file.is_file())


def tidy(folder: Path) -> None:
    """Remove the rows of deleted pictures from the table of a model, or begin it.

    All other rows stay as they were corrected.

    Raises:
        OSError: it cannot be read or written.
        UnicodeError: it is not in UTF-8.
        csv.Error: it is no table.
    """
    rows: list[list[str]] = []
    with suppress(FileNotFoundError), (folder / TABLE).open(newline="", encoding="utf-8") as text:
        rows = list(csv.reader(text))
    kept = [row for row in rows[1:] if row and (folder / row[0]).exists()]
    if not rows or len(kept) < len(rows) - 1:
        aside = folder / f".{os.getpid()}.csv"
        with aside.open("w", newline="", encoding="utf-8") as text:
            csv.writer(text).writerows([rows[0] if rows else COLUMNS, *kept])
        aside.chmod(0o600)
        aside.replace(folder / TABLE)


def folder_name(label: str) -> str:
    """A name for the folder of a class, which cannot lead elsewhere."""
    return NO_NAME.sub("_", label)[:MAX_NAME].strip(" .") or "class"


def extension(content: bytes) -> str:
    """The extension of a picture file."""
    try:
        name = identify(content)
    except ImageError:  # it has been decoded, so this is for form
        return "png"
    return EXTENSIONS.get(name, name.lower())
