"""TIFF files: the cost of their directories, strips and tiles, without decoding them."""

from PIL.ExifTags import Base as Tag

from imaging.formats.tiff_directory import Directory, Reader
from imaging.limits.cost import Cost, ImplausibleError
from imaging.limits.jpeg_scans import BLOCK_BYTES, MAX_SCANS, SCAN_S, VISIT_S
from imaging.limits.metadata import add_directory, read_directory

MAX_DIRECTORIES = 10_000
"""Pages of one file."""
MAX_SEGMENTS = 200_000
"""Strips or tiles of one picture."""
LZMA, JPEG = 34925, {6, 7}
RAW = 1
DECODERS_OWN = {50000, 50001, LZMA}
"""Compressions whose streams choose how much memory they need: Zstandard, WebP, LZMA."""

SEGMENT_S = 20e-6
INPUT_BYTE_S = 2e-9
OUTPUT_BYTE_S = 6e-9
PIXEL_S = 18e-9
CANVAS_BYTES = 4
"""A pixel in Pillow."""
COPIES_BYTES = 8
"""A pixel in the copies that turn and convert it, which are made when the buffers of the decoder have gone."""


def examine_tiff(data: bytes) -> Cost:
    """The cost of the first page of a TIFF file.

    Raises:
        ImplausibleError: it has too many directories, entries, strips or tiles.
    """
    cost = Cost()
    reader = Reader(data)
    first = read_directory(reader, reader.first())
    count_directories(reader, first)
    add_directory(
        cost, reader, first, besides=(Tag.StripOffsets, Tag.StripByteCounts, Tag.TileOffsets, Tag.TileByteCounts)
    )
    cost.add_bitmap(reader.number(first, Tag.ImageWidth, 0), reader.number(first, Tag.ImageLength, 0))
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
    samples = max(reader.number(directory, Tag.SamplesPerPixel, 1), 1)
    bits = max(reader.number(directory, Tag.BitsPerSample, 1), 1)
    compression = reader.number(directory, Tag.Compression, RAW)
    planes = samples if reader.number(directory, Tag.PlanarConfiguration, 1) == 2 else 1
    tiled = Tag.TileOffsets in directory.entries or Tag.TileWidth in directory.entries
    if tiled:
        width = reader.number(directory, Tag.TileWidth, cost.width)
        height = reader.number(directory, Tag.TileLength, cost.height)
    else:
        width = cost.width
        height = min(reader.number(directory, Tag.RowsPerStrip, cost.height), cost.height)
    width, height = max(width, 1), max(height, 1)
    grid = -(-cost.width // width) * -(-cost.height // height) * planes
    offsets = [entry for tag in (Tag.StripOffsets, Tag.TileOffsets) for entry in directory.entries.get(tag, ())]
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
        for tags in ((Tag.StripOffsets, Tag.StripByteCounts), (Tag.TileOffsets, Tag.TileByteCounts))
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
