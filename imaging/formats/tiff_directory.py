"""The structure of TIFF files and EXIF data: directories of tagged values."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by the type of an entry."""
INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
UINT32, RATIONAL = 4, 5


class Entry(NamedTuple):
    """One entry of a directory."""

    kind: int
    values: int
    position: int
    """Position of the values."""


class Directory(NamedTuple):
    """The entries of one directory by tag, duplicates included, and the position of the next one."""

    entries: dict[int, list[Entry]]
    next: int


class Reader:
    """The directories of TIFF data. Whatever is missing is left to the decoder to complain of."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = ">" if data[:2] == b"MM" else "<"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self._pointer = "Q" if self.big else "L"
        self._count = struct.Struct(self.order + ("Q" if self.big else "H"))
        self._entry = struct.Struct(self.order + ("HHQ" if self.big else "HHL"))
        self._next = struct.Struct(self.order + self._pointer)

    def first(self) -> int:
        """The position of the first directory; 0 if there is none."""
        return self._read(self._next, 8 if self.big else 4)

    def count(self, position: int) -> int:
        """The number of entries of the directory at ``position`` that are inside the file."""
        size = self._entry.size + (8 if self.big else 4)
        return max(min(self._read(self._count, position), (len(self.data) - position - self._count.size) // size), 0)

    def directory(self, position: int) -> Directory:
        """The directory at ``position``."""
        entries: dict[int, list[Entry]] = {}
        inline = 8 if self.big else 4
        count = self.count(position)
        position += self._count.size
        for _ in range(count):
            tag, kind, values = self._entry.unpack_from(self.data, position)
            place = position + self._entry.size
            if values * SIZES.get(kind, 1) > inline:
                place = self._read(self._next, place)
            entries.setdefault(tag, []).append(Entry(kind, values, place))
            position += self._entry.size + inline
        return Directory(entries, self._read(self._next, position))

    def next_of(self, position: int) -> int:
        """The position of the directory after the one at ``position``; 0 if there is none."""
        count = self._read(self._count, position)
        return self._read(self._next, position + self._count.size + count * (20 if self.big else 12))

    def number(self, directory: Directory, tag: int, otherwise: int) -> int:
        """The largest value of ``tag`` that any reader may take, of those at the beginning of each of its entries."""
        found = [max(self.numbers(entry, 8), default=None) for entry in directory.entries.get(tag, ())]
        return max((value for value in found if value is not None), default=otherwise)

    def numbers(self, entry: Entry, most: int) -> tuple[int, ...]:
        """Up to ``most`` values of an entry of whole numbers, as far as they are there."""
        code = INTEGERS.get(entry.kind)
        if code is None or entry.position >= len(self.data):
            return ()
        size = SIZES[entry.kind]
        count = min(entry.values, most, (len(self.data) - entry.position) // size)
        return struct.unpack_from(f"{self.order}{count}{code}", self.data, entry.position)

    def _read(self, layout: struct.Struct, position: int) -> int:
        if not 0 <= position <= len(self.data) - layout.size:
            return 0
        value: int = layout.unpack_from(self.data, position)[0]
        return value


class Tags:
    """The tags of the first picture of a TIFF file, of which the last counts where one stands twice, as in Pillow."""

    def __init__(self, data: bytes) -> None:
        self._reader = Reader(data)
        self._entries = self._reader.directory(self._reader.first()).entries
        self.little_endian = self._reader.order == "<"

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def values(self, tag: int, default: Sequence[float]) -> Sequence[float]:
        """The numbers of ``tag``, or ``default`` if there are none."""
        if tag not in self:
            return default
        entry = self._entries[tag][-1]
        if entry.kind != RATIONAL:
            return self._reader.numbers(entry, entry.values) or default
        parts = self._reader.numbers(Entry(UINT32, 2 * entry.values, entry.position), 2 * entry.values)
        return tuple(top / max(bottom, 1) for top, bottom in zip(parts[::2], parts[1::2], strict=False)) or default

    def value(self, tag: int, default: int) -> int:
        """The first number of ``tag``, or ``default`` if there is none."""
        return int(self.values(tag, (default,))[0])
