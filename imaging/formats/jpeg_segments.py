"""The structure of JPEG files: the segments before the pixels, and the frame that they describe."""

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAX_JUNK = 65_536
"""Bytes between segments that are searched for the next one; Pillow reads them one by one in Python."""
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Any marker but the restarts inside of a scan."""
LENGTH = struct.Struct(">H")
FRAME = struct.Struct(">BHHB")
"""Precision, height, width, components."""
SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of frames: each stands for a process."""
ALONE = {0x01, 0xD8}
"""Markers without a length."""
EXIF = b"Exif\0\0"


class Marker(IntEnum):
    """Markers with a meaning of their own here."""

    EOI = 0xD9
    SOS = 0xDA
    DQT = 0xDB
    APP1 = 0xE1
    APP2 = 0xE2
    APP13 = 0xED


class Segment(NamedTuple):
    """A part of a JPEG file."""

    marker: int
    start: int
    """Position of the marker."""
    content: int
    """Position of the content, after the length."""
    end: int


class Component(NamedTuple):
    """One colour of a frame."""

    identifier: int
    blocks: int


class Frame(NamedTuple):
    """The head of a frame."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def blocks(self) -> int:
        """The number of blocks of all components."""
        return sum(component.blocks for component in self.components)


def segments(data: bytes) -> Iterator[Segment]:
    """The segments up to the first scan or the end of the picture, or to a gap of more than `MAX_JUNK` bytes."""
    position = 2
    while found := MARKER.search(data, position, position + MAX_JUNK):
        marker, content = found[1][0], found.end()
        position = content
        if marker not in ALONE and marker != Marker.EOI:
            content += LENGTH.size
            position += max(LENGTH.unpack_from(data, position)[0], 2) if content <= len(data) else 2
        yield Segment(marker, found.start(), content, position)
        if marker in (Marker.SOS, Marker.EOI):
            return


def read_frame(marker: int, content: bytes) -> Frame | None:
    """The head of a frame; None if it is cut short."""
    if len(content) < FRAME.size:
        return None
    precision, height, width, count = FRAME.unpack_from(content)
    raw = [content[start : start + 3] for start in range(FRAME.size, min(len(content), FRAME.size + 3 * count), 3)]
    sampling = [(part[0], max(part[1] >> 4, 1), max(part[1] & 15, 1)) for part in raw if len(part) == 3]
    across = max((h for _, h, _ in sampling), default=1)
    down = max((v for _, _, v in sampling), default=1)
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    return Frame(
        marker, precision, width, height, tuple(Component(name, columns * h * rows * v) for name, h, v in sampling)
    )
