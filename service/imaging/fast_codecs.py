"""A quick way to and from pixels for plain pictures, which most are. Whatever is special is left to Pillow.

Plain is a PNG of 8-bit grey or RGB and a baseline or progressive JPEG of grey or YCbCr, each whole and without anything
that changes how it is to be seen: no palette, no transparency, no EXIF data, no Adobe marker. Of these the decoders
here give the very pixels that Pillow gives.
"""

import struct
import zlib
from functools import lru_cache
from typing import Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

PNG = b"\x89PNG\r\n\x1a\n"
PNG_START = struct.Struct(">8sI4sIIBBBBB4x")
"""Signature and header chunk: ..., width, height, depth, colour, compression, filter, interlacing, checksum."""
PNG_CHUNK = struct.Struct(">I4s")
PNG_CHANNELS = {(8, 0): 1, (8, 2): 3}
"""By depth and type of colour."""
HARMLESS = {b"IDAT", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"}
"""Chunks that change no pixel as Pillow reads them."""
UP = 2
"""The PNG filter that writes each row as its difference to the one above."""
FASTEST = 1
SMALL = 4096
"""Bytes up to which zlib-ng without a filter is the fastest encoder; above it is libdeflate with one."""

JPEG = b"\xff\xd8\xff\xe0"
JPEG_END = b"\xff\xd9"
JPEG_SEGMENT = struct.Struct(">BBH")
JPEG_FRAME = struct.Struct(">BHHB")
"""Precision, height, width, components."""
FRAMES = {0xC0, 0xC1, 0xC2}
SCAN = 0xDA
TABLES = {0xC4, 0xDB, 0xDD, 0xE0, 0xFE}
"""Huffman and quantisation tables, restart interval, JFIF, comment."""
JPEG_CHANNELS = {1, 3}


class Plain(NamedTuple):
    """What the header of a plain picture says."""

    format: Literal["PNG", "JPEG"]
    width: int
    height: int
    channels: int


def look(data: bytes) -> Plain | None:
    """The header of ``data`` if it is a plain picture; pixels are not looked at."""
    try:
        if data.startswith(PNG):
            return look_at_png(data)
        if data.startswith(JPEG) and data.endswith(JPEG_END):
            return look_at_jpeg(data)
    except struct.error:  # it ends in the middle
        return None
    return None


def look_at_png(data: bytes) -> Plain | None:
    """See `look`."""
    _, length, kind, width, height, depth, colour, *how = PNG_START.unpack_from(data)
    channels = PNG_CHANNELS.get((depth, colour))
    if (length, kind, how) != (13, b"IHDR", [0, 0, 0]) or channels is None or not width or not height:
        return None
    position = PNG_START.size
    while True:
        length, kind = PNG_CHUNK.unpack_from(data, position)
        position += length + 12
        if kind == b"IEND":
            return Plain("PNG", width, height, channels) if position <= len(data) else None
        if kind not in HARMLESS:
            return None


def look_at_jpeg(data: bytes) -> Plain | None:
    """See `look`."""
    found, position = None, 2
    while True:
        start, marker, length = JPEG_SEGMENT.unpack_from(data, position)
        if start != 0xFF:
            return None
        if marker == SCAN:
            return found
        if marker in FRAMES and found is None:
            depth, height, width, channels = JPEG_FRAME.unpack_from(data, position + JPEG_SEGMENT.size)
            if depth != 8 or channels not in JPEG_CHANNELS or not width or not height:
                return None
            found = Plain("JPEG", width, height, channels)
        elif marker not in TABLES:
            return None
        position += 2 + length


def decode(data: bytes, plain: Plain) -> NDArray[np.uint8] | None:
    """The pixels of a plain picture, ``(H, W)`` or ``(H, W, 3)``; none if there is anything wrong with them."""
    try:
        pixels: NDArray[np.uint8] = (
            imagecodecs.spng_decode(data) if plain.format == "PNG" else imagecodecs.jpeg8_decode(data)
        )
    except RuntimeError:  # the errors of all decoders are derived from it
        return None
    shape = (plain.height, plain.width) if plain.channels == 1 else (plain.height, plain.width, plain.channels)
    if pixels.shape == (*shape, 1):
        pixels = pixels[..., 0]
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """``(h, w, C)`` of one or three channels as a PNG file."""
    height, width, channels = pixels.shape
    levels = pixels.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    if rows.size <= SMALL:
        rows[:, 0] = 0
        rows[:, 1:] = levels
        content = imagecodecs.zlibng_encode(rows.tobytes(), FASTEST)
    else:
        rows[:, 0] = UP
        rows[0, 1:] = levels[0]
        np.subtract(levels[1:], levels[:-1], out=rows[1:, 1:])
        content = imagecodecs.deflate_encode(rows.tobytes(), FASTEST)
    return b"".join((png_beginning(width, height, channels), chunk(b"IDAT", content), PNG_FINISH))


@lru_cache(maxsize=256)
def png_beginning(width: int, height: int, channels: int) -> bytes:
    """Signature and header."""
    colour = {1: 0, 3: 2}[channels]
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))


def chunk(kind: bytes, content: bytes | bytearray) -> bytes:
    """A chunk of a PNG file."""
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)))


PNG_FINISH = chunk(b"IEND", b"")
