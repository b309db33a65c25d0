"""JPEG of every process and depth that one of the decoders reads; of the others, a message that says what they are."""

from functools import partial

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.errors import DamagedImageError, UnsupportedImageError
from imaging.fast_decoding import FRAMES, JPEG_END, PlainImage, decode_plain
from imaging.formats.jpeg_segments import EXIF, SOF, Frame, Marker, read_frame, segments
from imaging.formats.pillow_formats import open_with_pillow
from imaging.formats.stored_image import SEND_AGAIN, StoredImage
from imaging.modes import eight_bits
from imaging.orientation import apply_orientation, read_orientation, upright_size

UNREAD = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG") | {
    0xCB: "a lossless JPEG with arithmetic coding",
    0xF7: "a JPEG-LS picture",
}
"""Processes that no decoder reads."""
END = b"\xff\xd9"
DEEPEST = 16
"""Bits of a level."""
CURE = "send it as a JPEG of 8 bits or as PNG"


def open_jpeg(data: bytes) -> StoredImage:
    """Read the header of a JPEG file."""
    frame, exif, end = find_frame(data)
    count = len(frame.components) if frame is not None else 0
    if frame is None or (frame.precision == 8 and count in (1, 3, 4) and frame.marker not in UNREAD):
        return open_with_pillow(data, "JPEG", partial(decode_frame, data, frame))
    if frame.marker in UNREAD:
        raise UnsupportedImageError(f"this is {UNREAD[frame.marker]}, which is not taken", CURE)
    if count not in (1, 3) or not 2 <= frame.precision <= DEEPEST:
        raise UnsupportedImageError(
            f"this is a JPEG of {count} components of {frame.precision} bits, which is not taken", CURE
        )
    if not frame.width or not frame.height:
        raise DamagedImageError("the header of the JPEG picture is damaged: it has no pixels", SEND_AGAIN)
    if data.rfind(END) < end:
        raise DamagedImageError("the JPEG picture is cut short", SEND_AGAIN)
    orientation = read_orientation(exif)

    def load() -> Image.Image:
        levels = imagecodecs.jpeg8_decode(data)
        return apply_orientation(Image.fromarray(eight_bits(levels, 2**frame.precision - 1)), orientation)

    return StoredImage("JPEG", *upright_size(frame.width, frame.height, orientation), count == 3, load)


def decode_frame(data: bytes, frame: Frame | None) -> NDArray[np.uint8] | None:
    """The pixels as stored, see `imaging.fast_decoding.decode_plain`; None if they are left to Pillow.

    The quick decoder fills what is missing of a file that is cut short. Pillow refuses it.
    """
    if frame is None or frame.marker not in FRAMES or not data.endswith(JPEG_END):
        return None
    count = len(frame.components)
    return decode_plain(PlainImage("JPEG", frame.width, frame.height, count, data), opaque=True) if count != 4 else None


def find_frame(data: bytes) -> tuple[Frame | None, bytes | None, int]:
    """The frame of a JPEG file, the EXIF data before it, and the position after both; None for what is not there."""
    exif = None
    for segment in segments(data):
        content = data[segment.content : segment.end]
        if segment.marker in SOF:
            return read_frame(segment.marker, content), exif, segment.end
        if segment.marker == Marker.APP1 and exif is None and content.startswith(EXIF):
            exif = content
    return None, exif, len(data)
