"""WebDataset shards: tars with ``KEY.jpg`` and ``KEY.cls`` or ``KEY.json``, from which pictures are read in place.

A picture is called ``SHARD.tar/MEMBER``, like a file in a directory. Only the headers of a shard are read to find it.
"""

import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from imaging.archives import DAMAGE, StrictTarInfo
from imaging.formats.signatures import EXTENSIONS
from training.data.folder.listing import SHARD, is_leftover, is_shard, warn_of_ignored
from training.data.folder.tables import MARKS, Row, Table, as_text
from training.errors import DataError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
PREFIX = re.compile(r"(?P<part>train|training|val|valid|validation|dev|test)(?![a-z])")
"""The beginning of a shard's name that tells the split, in lower case."""
PART = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
TEXT_BYTES = 2**20
"""Largest label."""
OPEN = 4096
"""Number of shards whose contents are remembered."""
FORM = "each picture KEY.jpg needs a KEY.cls (the class as text), or a KEY.json with a label"


class Member(NamedTuple):
    """A file in a shard."""

    shard: Path
    name: str
    offset: int
    """Position of its first byte in the shard."""
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def read_bytes(self) -> bytes:
        """Return its content."""
        with self.shard.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)

    def stat(self) -> os.stat_result:
        """Return the facts of its shard, which change when the member does."""
        return self.shard.stat()


def locate(file: Path) -> Path | Member:
    """Return what to read for ``file``: itself, or the member that its path names in a shard.

    Raises:
        DataError: the shard cannot be read, or has no such member.
    """
    shard = shard_of(file)
    if shard is None:
        return file
    found = members(shard).get(file.relative_to(shard).as_posix())
    if found is None:
        raise DataError(f"{file} does not exist any more; put the shard back that the run was begun with")
    return found


def is_member(file: Path) -> bool:
    """Return whether the path names a member of a shard."""
    shard = shard_of(file)
    return shard is not None and file.relative_to(shard).as_posix() in members(shard)


def shard_of(file: Path) -> Path | None:
    """Return the shard in which a path lies, if it does."""
    return next((each for each in file.parents if each.suffix.lower() == SHARD and each.is_file()), None)


def members(shard: Path) -> Mapping[str, Member]:
    """Return the files in a shard by name.

    Raises:
        DataError: it cannot be read.
    """
    facts = shard.stat()
    return scan(shard, facts.st_size, facts.st_mtime_ns)


@lru_cache(OPEN)
def scan(shard: Path, size: int, _modified: int) -> Mapping[str, Member]:
    """Read the headers of a shard of ``size`` bytes; see `members`."""
    found: dict[str, Member] = {}
    try:
        with tarfile.open(shard, "r:", tarinfo=StrictTarInfo) as archive:
            while (header := archive.next()) is not None:
                # tarfile keeps all members, so that memory would grow twice with their number.
                archive.members = []  # type: ignore[attr-defined]  # typeshed lacks it
                if header.issparse() or header.offset_data + header.size > size:
                    raise tarfile.ReadError(f"{header.name} is not whole")
                name, target = (Path(each.lstrip("/")).as_posix() for each in (header.name, header.linkname))
                if header.isfile():
                    found[name] = Member(shard, name, header.offset_data, header.size)
                elif header.islnk():
                    if target not in found:
                        raise tarfile.ReadError(f"{name} is a link to {target}, which is not in front of it")
                    found[name] = found[target]._replace(name=name)
            rest = size - archive.offset
        if rest > 2 * tarfile.RECORDSIZE or any(Member(shard, "", size - rest, rest).read_bytes()):
            raise tarfile.ReadError("it goes on after its end mark, as where tars were joined or a copy was broken off")
    except (tarfile.TarError, OSError, *DAMAGE) as error:
        raise DataError(
            f"{shard} cannot be read as a tar without compression ({error}); unpack and pack it again, or remove it"
        ) from error
    return found


def find_shards(root: Path) -> list[Path]:
    """Return the shards in the folder ``root``, in order.

    Raises:
        DataError: some are compressed, so that their pictures cannot be read in any order, or are no files.
    """
    shards = [file for file in sorted(root.iterdir()) if is_shard(file)]
    if missing := [file for file in shards if not file.is_file()]:
        raise DataError(f"{missing[0]} is no file that can be read, but perhaps a broken link; mend or remove it")
    if packed := [file for file in sorted(root.iterdir()) if file.name.lower().endswith(COMPRESSED)]:
        raise DataError(f"{packed[0]} is compressed; pictures are read from plain tars in any order, so decompress it")
    return shards


def read_shards(root: Path, shards: Sequence[Path]) -> Table:
    """Return what the shards in ``root`` say of their pictures: class, corners, and the split if their names tell it.

    Raises:
        DataError: a shard cannot be read, a picture has no label, or the names tell only some splits.
    """
    parts = parts_of(root, shards)
    rows = [
        Row(f"{shard}, {name}", {"path": f"{shard.name}/{name}", "split": part} | dict(cells))
        for shard, part in zip(shards, parts, strict=True)
        for name, cells in labelled(shard)
    ]
    columns = ["path", "label", *([] if None in parts else ["split"])]
    if any(mark in row.cells for row in rows for mark in MARKS):
        columns += MARKS
    return Table(f"{root}/*{SHARD}", tuple(columns), rows)


def parts_of(root: Path, shards: Sequence[Path]) -> list[str | None]:
    """Return the split of each shard, as their names tell it; None of all if they tell none, or only training.

    Raises:
        DataError: some names tell it, and others do not, or a split has no shard.
    """
    matches = [PREFIX.match(shard.name.lower()) for shard in shards]
    told = [PART.get(match["part"], match["part"]) if match else None for match in matches]
    if set(told) in ({None}, {"train"}):
        return [None] * len(shards)
    if None in told:
        raise DataError(
            f"{shards[told.index(None)]} does not tell its split, as other shards do; begin all names with train, val "
            "or test, or none"
        )
    if lacking := [part for part in ("train", "validation", "test") if part not in told]:
        raise DataError(
            f"{root} has no shards for {' and '.join(lacking)}, but shards for other splits; begin the names of some "
            "with train, val and test, or of none, to split at random"
        )
    return list(told)


def labelled(shard: Path) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Yield name, and label and corners, of each picture in a shard.

    Raises:
        DataError: a picture has no label, or one that cannot be read.
    """
    samples: dict[str, dict[str, Member]] = {}
    for name, member in members(shard).items():
        key, _, ending = Path(name).name.partition(".")
        files = samples.setdefault((Path(name).parent / key).as_posix(), {})
        if (other := files.setdefault(f".{ending.lower()}", member)) is not member and is_read(other):
            raise DataError(f"{member} has the key of {other.name}; keep one picture and one label for each key")
    for files in samples.values():
        pictures = [file for ending, file in files.items() if ending in EXTENSIONS]
        if len(pictures) > 1:
            raise DataError(
                f"{pictures[1]} has the key of {pictures[0].name}; keep one picture and one label for each key"
            )
        for picture in pictures:
            yield picture.name, label(picture, files)


def is_read(member: Member) -> bool:
    """Return whether the extension of a member is that of a picture or a label."""
    return member.name.lower().endswith((*EXTENSIONS, ".cls", ".json"))


def warn_of_unread(root: Path, labelled: Collection[str]) -> None:
    """Warn of the pictures in the shards of ``root`` that are not among the paths ``labelled``."""
    inside = [member for shard in find_shards(root) for member in members(shard).values()]
    left = [
        f"{member.shard.name}/{member.name}"
        for member in inside
        if member.name.lower().endswith(EXTENSIONS) and not is_leftover(Path(member.name))
    ]
    warn_of_ignored(
        [path for path in left if path not in labelled],
        "more than an extension after the first dot; rename them to KEY.jpg",
    )


def label(picture: Member, files: Mapping[str, Member]) -> dict[str, str | None]:
    """Return the cells that the other files of a picture's key tell.

    Raises:
        DataError: they do not tell the class, or cannot be read.
    """
    cells: dict[str, str | None] = {}
    if (file := files.get(".json")) is not None:
        try:
            told = json.loads(text(file))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} cannot be read as JSON ({error}); {FORM}") from error
        if not isinstance(told, dict):
            raise DataError(f"{file} is no JSON object; {FORM}")
        cells = {
            name: as_text(told[name]) for name in ("label", *MARKS) if isinstance(told.get(name), str | int | float)
        }
    if (file := files.get(".cls")) is not None:
        cells["label"] = text(file)
    if not (cells.get("label") or "").strip():
        raise DataError(f"{picture} has no label; {FORM}")
    return cells


def text(file: Member) -> str:
    """Return the content of a small file.

    Raises:
        DataError: it is too large, or no text.
    """
    if file.size > TEXT_BYTES:
        raise DataError(f"{file} has {file.size} bytes, more than a label needs; {FORM}")
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error.reason}); {FORM}") from error
