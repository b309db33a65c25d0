"""The cost of reading metadata, each value of which becomes an object in Python."""

from imaging.formats.tiff_directory import SIZES, Directory, Reader
from imaging.limits.cost import Cost, ImplausibleError

MAX_ENTRIES = 4096
"""The most entries of a directory; libtiff reads no more either."""
TEXTS = {1, 2, 6, 7}
"""Types that become one object, however many values there are."""
SUBDIRECTORIES = (34665, 34853, 40965)
"""EXIF, GPS and interoperability, which Pillow reads whole."""
SHORTEST = 8
"""Bytes of the shortest EXIF data."""
ENTRY_S = 10e-6
VALUE_S = 2e-6
VALUE_BYTES = 200
"""Memory of the object that Python makes of a fraction."""


def add_exif(cost: Cost, data: bytes) -> None:
    """Add the reading of EXIF data, which are directories as in a TIFF file.

    Raises:
        ImplausibleError: a directory has too many entries.
    """
    if len(data) >= SHORTEST:
        reader = Reader(data)
        add_directory(cost, reader, read_directory(reader, reader.first()))


def add_directory(cost: Cost, reader: Reader, directory: Directory, besides: tuple[int, ...] = ()) -> None:
    """Add the reading of ``directory`` but for the tags ``besides``, and of the directories that it refers to.

    Raises:
        ImplausibleError: a directory has too many entries.
    """
    add_values(cost, reader, directory, besides)
    for tag in SUBDIRECTORIES:
        if tag in directory.entries:
            add_values(cost, reader, read_directory(reader, reader.number(directory, tag, 0)))


def read_directory(reader: Reader, position: int) -> Directory:
    """The directory at ``position``.

    Raises:
        ImplausibleError: it has more than `MAX_ENTRIES`.
    """
    count = reader.count(position)
    if count > MAX_ENTRIES:
        raise ImplausibleError(f"a directory of {count} entries; at most {MAX_ENTRIES} are read")
    return reader.directory(position)


def add_values(cost: Cost, reader: Reader, directory: Directory, besides: tuple[int, ...] = ()) -> None:
    """Add the reading of all entries but those of the tags ``besides``, each value of which is an object in Python."""
    entries = values = 0
    for tag, duplicates in directory.entries.items():
        for entry in duplicates:
            entries += 1
            if (
                tag not in besides
                and entry.kind not in TEXTS
                and entry.values * SIZES.get(entry.kind, 1) <= len(reader.data)
            ):
                values += entry.values
    cost.add_work(entries * ENTRY_S + values * VALUE_S, f"{values} values of metadata")
    cost.bytes += values * VALUE_BYTES
