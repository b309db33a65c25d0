"""JPEG of every process and depth that one of the decoders reads; of the others, a message that says what they are."""

import struct
from typing import NamedTuple

import imagecodecs
from PIL import Image

from imaging.errors import DamagedImageError, UnsupportedImageError
from imaging.formats.pillow_formats import open_with_pillow
from imaging.formats.stored_image import SEND_AGAIN, StoredImage
from imaging.modes import eight_bits
from imaging.orientation import apply_orientation, read_orientation, upright_size

SEGMENT = struct.Struct(">BBH")
FRAME = struct.Struct(">BHHB")
"""Precision, height, width, components."""
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers: each stands for a process."""
UNREAD = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG") | {
    0xCB: "a lossless JPEG with arithmetic coding",
    0xF7: "a JPEG-LS picture",
}
"""Processes that no decoder reads."""
SCAN, EXIF = 0xDA, 0xE1
EXIF_PREFIX = b"Exif\0\0"
ALONE = {0x01, *range(0xD0, 0xDA)}
"""Markers that no content follows."""
END = b"\xff\xd9"
CURE = "send it as a JPEG of 8 bits or as PNG"


class Frame(NamedTuple):
    """What stands before the pixels of a JPEG file."""

    process: int
    precision: int
    height: int
    width: int
    components: int
    exif: bytes | None
    end: int
    """Where the segments end that were looked at."""


def open_jpeg(data: bytes) -> StoredImage:
    """Read the header of a JPEG file."""
    frame = find_frame(data)
    if frame is None or (frame.precision == 8 and frame.components in (1, 3, 4) and frame.process not in UNREAD):
        return open_with_pillow(data, "JPEG")
    if frame.process in UNREAD:
        raise UnsupportedImageError(f"this is {UNREAD[frame.process]}, which is not taken", CURE)
    if frame.components not in (1, 3) or not 2 <= frame.precision <= 16:
        raise UnsupportedImageError(
            f"this is a JPEG of {frame.components} components of {frame.precision} bits, which is not taken", CURE
        )
    if not frame.width or not frame.height:
        raise DamagedImageError("the header of the JPEG picture is damaged: it has no pixels", SEND_AGAIN)
    if data.rfind(END) < frame.end:
        raise DamagedImageError("the JPEG picture is cut short", SEND_AGAIN)
    orientation = read_orientation(frame.exif)

    def load() -> Image.Image:
        levels = imagecodecs.jpeg8_decode(data)
        return apply_orientation(Image.fromarray(eight_bits(levels, 2**frame.precision - 1)), orientation)

    return StoredImage("JPEG", *upright_size(frame.width, frame.height, orientation), frame.components == 3, load)


def find_frame(data: bytes) -> Frame | None:
    """The frame header of a JPEG file, and its EXIF data if they stand before it; None if there is no such header."""
    position, exif = 2, None
    while position + SEGMENT.size <= len(data):
        start, marker, length = SEGMENT.unpack_from(data, position)
        if start != 0xFF or marker == SCAN:
            return None
        if marker == 0xFF or marker in ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        content = position + SEGMENT.size
        position += 2 + length
        if marker in FRAMES and content + FRAME.size <= len(data):
            precision, height, width, components = FRAME.unpack_from(data, content)
            return Frame(marker, precision, height, width, components, exif, position)
        if marker == EXIF and exif is None and data.startswith(EXIF_PREFIX, content):
            exif = data[content:position]
    return None
