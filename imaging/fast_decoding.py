"""A fast way to the pixels of plain pictures, which most are. All others take the general way (`decoding`).

A plain picture is a PNG of 8-bit grey or RGB, or a baseline or progressive JPEG of grey or YCbCr. It is whole, and
nothing in it changes how it is seen: no palette, no transparency, no EXIF data, no Adobe marker. The decoders used here
give exactly the pixels that Pillow gives.
"""

import struct
from typing import Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from imaging.formats.jpeg_segments import FRAME
from imaging.formats.png import CHUNK, SIGNATURE

PNG_START = struct.Struct(">8sI4sIIBBBBB4x")
"""Signature and header chunk: ..., width, height, depth, colour, compression, filter, interlacing, checksum."""
PNG_CHANNELS = {(8, 0): 1, (8, 2): 3}
"""Channels by depth and type of colour."""
HARMLESS = {b"IDAT", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"}
"""Chunks that change no pixel as Pillow reads them."""
MAX_CHUNKS = 4096
"""The most chunks of a plain PNG; one of ten megabytes has about a thousand."""
MAX_HEADER = 2**17
"""Bytes before the pixels of a plain JPEG."""

JPEG = b"\xff\xd8\xff\xe0"
JPEG_END = b"\xff\xd9"
FRAMES = {0xC0, 0xC1, 0xC2}
PROGRESSIVE = 0xC2
SCAN = 0xDA
JPEG_SEGMENT = struct.Struct(">BBH")
TABLES = {0xC4, 0xDB, 0xDD, 0xE0, 0xFE}
"""Huffman and quantisation tables, restart interval, JFIF, comment."""
JPEG_CHANNELS = {1, 3}


class PlainImage(NamedTuple):
    """A plain picture, and what its header says."""

    format: Literal["PNG", "JPEG"]
    width: int
    height: int
    channels: int
    data: bytes
    """The whole file."""
    one_pass: bool = True
    """Whether each pixel is decoded once, and not in one scan after another."""

    @property
    def coloured(self) -> bool:
        """Whether it is RGB and not grey."""
        return self.channels == 3


def open_plain(data: bytes) -> PlainImage | None:
    """The header of ``data`` if it is a plain picture; its pixels are not decoded."""
    try:
        if data.startswith(SIGNATURE):
            return open_plain_png(data)
        if data.startswith(JPEG) and data.endswith(JPEG_END):
            return open_plain_jpeg(data)
    except (struct.error, IndexError):  # it ends in the middle
        return None
    return None


def open_plain_png(data: bytes) -> PlainImage | None:
    """See `open_plain`."""
    _, length, kind, width, height, depth, colour, *how = PNG_START.unpack_from(data)
    channels = PNG_CHANNELS.get((depth, colour))
    if (length, kind, how) != (13, b"IHDR", [0, 0, 0]) or channels is None or not width or not height:
        return None
    position = PNG_START.size
    for _ in range(MAX_CHUNKS):
        length, kind = CHUNK.unpack_from(data, position)
        position += length + 12
        if kind == b"IEND":
            return PlainImage("PNG", width, height, channels, data) if position <= len(data) else None
        if kind not in HARMLESS:
            return None
    return None


def open_plain_jpeg(data: bytes) -> PlainImage | None:
    """See `open_plain`."""
    found, position = None, 2
    while position < MAX_HEADER:  # a loop of its own, as `jpeg_segments` takes five times as long
        start, marker, length = JPEG_SEGMENT.unpack_from(data, position)
        if start != 0xFF:
            return None
        if marker == SCAN:
            # Where not all components come in the first scan, others follow.
            return found and (found if data[position + 4] == found.channels else found._replace(one_pass=False))
        if marker in FRAMES and found is None:
            depth, height, width, channels = FRAME.unpack_from(data, position + JPEG_SEGMENT.size)
            if depth != 8 or channels not in JPEG_CHANNELS or not width or not height:
                return None
            found = PlainImage("JPEG", width, height, channels, data, one_pass=marker != PROGRESSIVE)
        elif marker not in TABLES:
            return None
        position += 2 + length
    return None


def decode_plain(opened: PlainImage, opaque: bool = False) -> NDArray[np.uint8] | None:
    """The pixels of a plain picture, ``(H, W)`` or ``(H, W, 3)``; None if there is anything wrong with them.

    With ``opaque``, those of a coloured JPEG are ``(H, W, 4)``, with 255 in the last channel.
    """
    spare = opaque and opened.coloured and opened.format == "JPEG"
    try:
        pixels: NDArray[np.uint8] = (
            imagecodecs.spng_decode(opened.data)
            if opened.format == "PNG"
            else imagecodecs.jpeg8_decode(opened.data, outcolorspace="RGBA" if spare else None)
        )
    except (RuntimeError, ValueError, MemoryError):  # the errors of all decoders are derived from the first
        return None
    size = opened.height, opened.width
    shape = size if opened.channels == 1 else (*size, opened.channels + spare)
    if pixels.shape == (*shape, 1):
        pixels = pixels[..., 0]
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None
