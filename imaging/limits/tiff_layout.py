"""TIFF files and the EXIF data of others: the cost of their directories, strips and tiles, without decoding them."""

import struct
from typing import NamedTuple

from imaging.limits.cost import Cost, ImplausibleError
from imaging.limits.jpeg_scans import BLOCK_BYTES, MAX_SCANS, SCAN_S, VISIT_S

MAX_ENTRIES = 4096
"""Of one directory; libtiff reads no more either."""
MAX_DIRECTORIES = 10_000
"""Pages of one file."""
MAX_SEGMENTS = 200_000
"""Strips or tiles of one picture."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by the type of an entry."""
INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
TEXTS = {1, 2, 6, 7}
"""Types that become one object, however many values there are."""

WIDTH, LENGTH, BITS, COMPRESSION, STRIP_OFFSETS, SAMPLES = 256, 257, 258, 259, 273, 277
ROWS_PER_STRIP, STRIP_COUNTS, PLANAR, TILE_WIDTH, TILE_LENGTH = 278, 279, 284, 322, 323
TILE_OFFSETS, TILE_COUNTS = 324, 325
SUBDIRECTORIES = (34665, 34853, 40965)
"""EXIF, GPS and interoperability, which Pillow reads whole."""
LZMA, JPEG = 34925, {6, 7}
RAW = 1
DECODERS_OWN = {50000, 50001, LZMA}
"""Compressions whose streams choose how much memory they need: Zstandard, WebP, LZMA."""

ENTRY_S = 10e-6
VALUE_S = 2e-6
VALUE_BYTES = 200
"""Of a value that is a fraction; Python makes an object of each."""
SEGMENT_S = 20e-6
INPUT_BYTE_S = 2e-9
OUTPUT_BYTE_S = 6e-9
PIXEL_S = 18e-9
CANVAS_BYTES = 4
"""A pixel in Pillow."""
COPIES_BYTES = 8
"""A pixel in the copies that turn and convert it, which are made when the buffers of the decoder have gone."""


class Entry(NamedTuple):
    """One entry of a directory."""

    kind: int
    values: int
    position: int
    """Of its values."""


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

    def directory(self, position: int) -> Directory:
        """The directory at ``position``.

        Raises:
            ImplausibleError: it has more than `MAX_ENTRIES`.
        """
        entries: dict[int, list[Entry]] = {}
        inline = 8 if self.big else 4
        here = (len(self.data) - position - self._count.size) // (self._entry.size + inline)
        count = min(self._read(self._count, position), here)
        if count > MAX_ENTRIES:
            raise ImplausibleError(f"a directory of {count} entries; at most {MAX_ENTRIES} are read")
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


def add_exif(cost: Cost, data: bytes) -> None:
    """Add the reading of EXIF data, which are directories as in a TIFF file.

    Raises:
        ImplausibleError: a directory has too many entries.
    """
    if len(data) < 8:
        return
    reader = Reader(data)
    first = reader.directory(reader.first())
    add_values(cost, reader, first)
    for tag in SUBDIRECTORIES:
        if tag in first.entries:
            add_values(cost, reader, reader.directory(reader.number(first, tag, 0)))


def examine_tiff(data: bytes) -> Cost:
    """The cost of the first page of a TIFF file.

    Raises:
        ImplausibleError: it has too many directories, entries, strips or tiles.
    """
    cost = Cost()
    reader = Reader(data)
    first = reader.directory(reader.first())
    count_directories(reader, first)
    tables = (STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS)
    add_values(cost, reader, first, besides=tables)
    for tag in SUBDIRECTORIES:
        if tag in first.entries:
            add_values(cost, reader, reader.directory(reader.number(first, tag, 0)))
    cost.add_bitmap(reader.number(first, WIDTH, 0), reader.number(first, LENGTH, 0))
    add_segments(cost, reader, first)
    return cost


def count_directories(reader: Reader, directory: Directory) -> None:
    """Follow the pages of a file.

    Raises:
        ImplausibleError: there are more than `MAX_DIRECTORIES`.
    """
    seen: set[int] = set()
    position = directory.next
    while position and position not in seen:
        seen.add(position)
        if len(seen) > MAX_DIRECTORIES:
            raise ImplausibleError(f"more than {MAX_DIRECTORIES} pages")
        position = reader.next_of(position)


def add_segments(cost: Cost, reader: Reader, directory: Directory) -> None:
    """Add the pixels of a page, as its strips or tiles are decoded.

    Raises:
        ImplausibleError: there are more than `MAX_SEGMENTS`.
    """
    samples = max(reader.number(directory, SAMPLES, 1), 1)
    bits = max(reader.number(directory, BITS, 1), 1)
    compression = reader.number(directory, COMPRESSION, RAW)
    planes = samples if reader.number(directory, PLANAR, 1) == 2 else 1
    tiled = TILE_OFFSETS in directory.entries or TILE_WIDTH in directory.entries
    if tiled:
        width = reader.number(directory, TILE_WIDTH, cost.width)
        height = reader.number(directory, TILE_LENGTH, cost.height)
    else:
        width = cost.width
        height = min(reader.number(directory, ROWS_PER_STRIP, cost.height), cost.height)
    width, height = max(width, 1), max(height, 1)
    grid = -(-cost.width // width) * -(-cost.height // height) * planes
    offsets = [entry for tag in (STRIP_OFFSETS, TILE_OFFSETS) for entry in directory.entries.get(tag, ())]
    listed = min(max((entry.values for entry in offsets), default=0), len(reader.data) // 2)
    if compression == RAW:  # Pillow decodes every strip that is listed
        segments, area = max(grid, listed), min(width, max(cost.width, 1)) * min(height, max(cost.height, 1))
    else:
        segments, area = grid, width * height
    if max(segments, listed) > MAX_SEGMENTS:
        raise ImplausibleError(f"{max(segments, listed)} strips or tiles; at most {MAX_SEGMENTS} are read")
    decoded = area * -(-bits * samples // 8)
    buffers = decoded + (area * 4 if compression != RAW else 0)
    cost.bytes += cost.pixels * CANVAS_BYTES + max(buffers, cost.pixels * COPIES_BYTES)
    cost.seconds += cost.pixels * PIXEL_S
    cost.add_work(
        segments * (SEGMENT_S + decoded / planes * OUTPUT_BYTE_S),
        f"{segments} strips or tiles of {width} x {height} pixels",
    )
    add_input(cost, reader, directory, grid, compression, area)
    cost.bounded = cost.bounded and compression not in DECODERS_OWN


def add_input(cost: Cost, reader: Reader, directory: Directory, segments: int, compression: int, area: int) -> None:
    """Add the reading of compressed bytes, and the scans of JPEG data inside."""
    tables = [
        [number for entry in directory.entries.get(tag, ())[:1] for number in reader.numbers(entry, segments)]
        for tags in ((STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS))
        for tag in tags
    ]
    pairs = [pair for offsets, counts in (tables[:2], tables[2:]) for pair in zip(offsets, counts, strict=False)]
    size = len(reader.data)
    total = sum(min(count, size) for _, count in pairs)
    cost.add_work(total * INPUT_BYTE_S, "strips or tiles that share their bytes")
    if compression in JPEG:
        blocks = -(-area // 64) * 3
        scans: dict[tuple[int, int], int] = {}
        read = 0
        for pair in pairs:
            if pair not in scans:
                offset, count = pair
                read += min(count, size)
                if read > 2 * size:
                    raise ImplausibleError("strips or tiles that overlap")
                scans[pair] = reader.data.count(b"\xff\xda", offset, offset + count)
                if scans[pair] > MAX_SCANS:
                    raise ImplausibleError(f"a JPEG strip or tile of {scans[pair]} scans; at most {MAX_SCANS} are read")
        visits = sum(scans[pair] for pair in pairs)
        cost.add_work(visits * (SCAN_S + blocks * VISIT_S), f"{visits} scans of JPEG data")
        if visits > len(pairs):  # several scans of a strip or tile, whose coefficients are kept
            cost.bytes += blocks * BLOCK_BYTES
