"""Files on this machine and at URLs, which fsspec reads."""

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from export.format.remote import is_url, public_url
from imaging.formats.signatures import EXTENSIONS
from service.errors import InputError

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAGIC = re.compile(r"[*?\[]")
ATTEMPTS = 3
"""How often a picture at a URL is asked for."""
PAUSE_S = 0.5
"""Pause before the second attempt; it doubles before the next."""
STATED = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "generation")
"""What file systems state of a file by which a changed one is known."""


class UnreadableError(Exception):
    """A picture cannot be read; the message says why."""


def join(base: str, path: str) -> str:
    """Return ``path`` from the folder ``base``, both paths or URLs; absolute paths and URLs stay as they are."""
    if is_url(path):
        return path
    return f"{base.rstrip('/')}/{path}" if is_url(base) else str(Path(base, path))


def parent(place: str) -> str:
    """Return the folder of a file or URL."""
    return place.rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def expand(place: str) -> list[str]:
    """Return the places that a name with ``{000..012}`` stands for; numbers keep their leading zeros."""
    found = RANGE.search(place)
    if found is None:
        return [place]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    if not numbers:
        raise InputError(f"{place}: the range {found[0]} is empty; write the lower number first")
    head, tail = place[: found.start()], place[found.end() :]
    return [name for number in numbers for name in expand(f"{head}{number:0{len(first)}}{tail}")]


def file_system(place: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a place, and the path in it.

    Raises:
        InputError: fsspec knows no such protocol, or lacks the package for it.
    """
    try:
        system, path = url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise InputError(f"{public_url(place)} cannot be read: {error}") from error
    return system, path


def find(place: str) -> list[str]:
    """Return the files that ``place`` names: itself, or the sorted matches of a pattern.

    Raises:
        InputError: there is no such file, or the place cannot be read.
    """
    if not is_url(place) and Path(place).exists():
        return [place]
    system, path = file_system(place)
    try:
        if MAGIC.search(path):
            matches = sorted(system.glob(path))
            found = [name for name in matches if not system.isdir(name)] if len(matches) < 2 else matches
        else:
            found = [path] if system.exists(path) else []
    except Exception as error:
        raise InputError(f"{public_url(place)} cannot be read: {describe(error)}") from error
    if not found:
        raise InputError(f"there is no {public_url(place)}; name a folder, a file or a pattern like 'pictures/*.jpg'")
    return [system.unstrip_protocol(name) for name in found] if is_url(place) else found


def is_folder(place: str) -> bool:
    """Whether ``place`` is a folder.

    Raises:
        InputError: the place cannot be read.
    """
    if not is_url(place):
        return Path(place).is_dir()
    system, path = file_system(place)
    try:
        return bool(system.isdir(path))
    except Exception as error:
        raise InputError(f"{public_url(place)} cannot be read: {describe(error)}") from error


def walk(folder: str) -> Iterator[str]:
    """Yield the pictures in ``folder`` and its subfolders by their extensions, sorted within each; no hidden files.

    Raises:
        InputError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"the folder {error.filename} cannot be read: {describe(error)}") from error

    if is_url(folder):
        system, path = file_system(folder)
        tree: Any = system.walk(path, on_error="raise")
    else:
        system, tree = None, os.walk(folder, onerror=fail)
    try:
        for parent_folder, folders, files in tree:
            if isinstance(folders, list):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                    found = f"{parent_folder.rstrip('/')}/{name}"
                    yield found if system is None else system.unstrip_protocol(found)
    except (InputError, GeneratorExit):
        raise
    except Exception as error:
        raise InputError(f"{public_url(folder)} cannot be read: {describe(error)}") from error


def fingerprint(place: str) -> dict[str, str]:
    """Return what is known of a file, to notice that it has changed.

    Raises:
        InputError: the file cannot be read.
    """
    system, path = file_system(place)
    try:
        stated = system.info(path)
    except Exception as error:
        raise InputError(f"{public_url(place)} cannot be read: {describe(error)}") from error
    return {"file": public_url(place)} | {name: str(stated[name]) for name in STATED if stated.get(name) is not None}


def read_picture(place: str, max_bytes: int) -> bytes:
    """Read a picture file of at most ``max_bytes``, or one byte more of a larger one.

    Raises:
        UnreadableError: it cannot be read.
    """
    return read_url(place, max_bytes) if is_url(place) else read_file(place, max_bytes)


def read_file(path: str, max_bytes: int) -> bytes:
    """See `read_picture`. Pipes and devices are not read, since they may never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UnreadableError(f"{'a folder' if stat.S_ISDIR(mode) else 'no regular file'} is no picture")
            return read_up_to(file, max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UnreadableError(describe(error)) from error


def read_url(url: str, max_bytes: int) -> bytes:
    """See `read_picture`. A failed attempt is repeated, unless there is no such file."""
    for attempt in range(ATTEMPTS):
        try:
            system, path = file_system(url)
            with system.open(path, "rb") as file:
                return read_up_to(file, max_bytes + 1)
        except InputError as error:
            raise UnreadableError(str(error)) from error
        except Exception as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
                raise UnreadableError(describe(error)) from error
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError


def read_up_to(file: Any, size: int) -> bytes:
    """Read ``size`` bytes, or all up to the end."""
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def describe(error: BaseException) -> str:
    """Return the reason in an error of a file system, without secrets of a URL."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (reason.strip().splitlines() or [""])[0]
    return re.sub(r"\?\S*", "", first) or type(error).__name__


def size_of(place: str) -> int:
    """Return the bytes of a file, or 0 if they are not known."""
    return int(fingerprint(place).get("size", 0))


def file_name(place: str) -> str:
    """Return the last part of a path or URL."""
    return Path(public_url(place)).name
