"""JPEG files: the frame, the scans and how many blocks each of them visits, without decoding any."""

from imaging.formats import jpeg_segments
from imaging.formats.jpeg_segments import EXIF, LENGTH, MAX_JUNK, SOF, Frame, Marker, read_frame, segments
from imaging.limits.cost import Cost, ImplausibleError
from imaging.limits.metadata import add_exif

MAX_SCANS = 100
"""Encoders write up to twenty. Each scan may visit every block of the picture, and needs a few dozen bytes for it."""
MAX_SEGMENTS = 4096
MAX_TABLES = 65_536
"""Bytes of quantisation tables, which Pillow reads in Python too; a file needs up to 520."""
WINDOW = 2**20
"""Bytes that are searched in one go, as a search lets no other thread run."""

PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}

VISIT_S = 100e-9
"""One block in one scan; the slowest are those that refine."""
ARITHMETIC_VISIT_S = 1.5e-6
LOSSLESS_VISIT_S = 2e-6
SCAN_S = 120e-6
SEGMENT_S = 3e-6
METADATA_BYTE_S = 0.15e-6
JUNK_BYTE_S = 0.3e-6
SAMPLE_S = 4e-9
BLOCK_BYTES = 128
"""The coefficients of a block, which are kept where there are several scans."""


def examine_jpeg(data: bytes) -> Cost:
    """The cost of a JPEG file.

    Raises:
        ImplausibleError: it has too many scans or segments, or too much between them.
    """
    cost = Cost()
    frame: Frame | None = None
    exif = b""
    position, count, tables, ended = 2, 0, 0, False
    for segment in segments(data):
        cost.add_work((segment.start - position) * JUNK_BYTE_S, "bytes between segments")
        position, ended = segment.end, segment.marker in (Marker.SOS, Marker.EOI)
        count += 1
        if count > MAX_SEGMENTS:
            raise ImplausibleError(f"more than {MAX_SEGMENTS} segments before the picture")
        content = data[segment.content : segment.end]
        if segment.marker == Marker.SOS and frame is not None:
            add_scans(cost, data, segment.content - LENGTH.size, frame)
        elif segment.marker in SOF:
            frame = read_frame(segment.marker, content) or frame
            if frame is not None:
                cost.add_bitmap(frame.width, frame.height)
        elif segment.marker == Marker.DQT:
            tables += len(content)
            if tables > MAX_TABLES:
                raise ImplausibleError(f"more than {MAX_TABLES} bytes of quantisation tables")
        elif segment.marker == Marker.APP1 and content.startswith(EXIF):
            exif += content[len(EXIF) :]
        elif segment.marker == Marker.APP2 and content.startswith(b"MPF\0"):
            add_exif(cost, content[4:])
        elif segment.marker == Marker.APP13:
            cost.add_work(len(content) * METADATA_BYTE_S, "Photoshop's metadata")
    if not ended and position + MAX_JUNK < len(data):
        raise ImplausibleError(f"more than {MAX_JUNK} bytes between two segments")
    add_exif(cost, exif)
    cost.add_work(count * SEGMENT_S, f"{count} segments")
    if frame is not None:
        samples = len(frame.components)
        cost.bytes += cost.pixels * (8 if samples == 1 else 12 if frame.precision == 8 else 16)
        cost.seconds += cost.pixels * samples * SAMPLE_S
    return cost


def add_scans(cost: Cost, data: bytes, position: int, frame: Frame) -> None:
    """Add the scans of ``frame`` from the first on, whose length is at ``position``.

    Raises:
        ImplausibleError: there are more than `MAX_SCANS`.
    """
    several = frame.marker in PROGRESSIVE or (position + 2 < len(data) and data[position + 2] < len(frame.components))
    scans = visits = 0
    marker: int | None = Marker.SOS
    while marker is not None and marker != Marker.EOI:
        if marker == Marker.SOS:
            scans += 1
            visits += blocks_of_scan(data, position, frame)
            if not several:
                break
            if scans > MAX_SCANS:
                raise ImplausibleError(f"more than {MAX_SCANS} scans; encoders write up to twenty")
        if marker not in jpeg_segments.ALONE and position + 2 <= len(data):
            position += max(LENGTH.unpack_from(data, position)[0], 2)
        marker, position = next_marker(data, position)
    visit_s = VISIT_S
    if frame.marker in LOSSLESS:
        visit_s = LOSSLESS_VISIT_S
    elif frame.marker in ARITHMETIC:
        visit_s = ARITHMETIC_VISIT_S
    cost.add_work(scans * SCAN_S + visits * visit_s, f"{scans} scans of together {visits} blocks")
    if several:
        cost.bytes += frame.blocks * BLOCK_BYTES


def blocks_of_scan(data: bytes, position: int, frame: Frame) -> int:
    """The number of blocks that the scan whose length is at ``position`` visits."""
    count = data[position + 2] if position + 2 < len(data) else 0
    named = {data[place] for place in range(position + 3, min(position + 3 + 2 * count, len(data)), 2)}
    found = [component.blocks for component in frame.components if component.identifier in named]
    return sum(found) if len(found) == count else frame.blocks


def next_marker(data: bytes, position: int) -> tuple[int | None, int]:
    """The next marker that ends a scan, and the position behind it; None at the end of the file."""
    while position < len(data):
        found = jpeg_segments.MARKER.search(data, position, position + WINDOW)
        if found is not None:
            return found[1][0], found.end()
        position += WINDOW - 1
    return None, position
