"""Writes pixels as PNG, JPEG or WebP files."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.formats.png import SIGNATURE

UP = 2
"""The PNG filter that writes each row as its difference to the one above."""
FASTEST = 1
SMALL = 4096
"""Bytes up to which zlib-ng without a filter is the fastest encoder; above it is libdeflate with one."""
JPEG_QUALITY = 90
WEBP_QUALITY = 90
WEBP_METHOD = 1
"""Effort of the encoder: higher ones take four times as long for files that are a tenth smaller."""

FileFormat = Literal["png", "jpeg", "webp"]
"""Formats that pictures are encoded in."""


def encode(pixels: NDArray[np.uint8], file_format: FileFormat) -> bytes:
    """``(h, w, C)`` as a PNG (exact), JPEG or WebP file: grey, RGB, or for PNG and WebP also RGBA."""
    if file_format == "png":
        return encode_png(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    content = io.BytesIO()
    if file_format == "jpeg":
        image.save(content, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(content, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    return content.getvalue()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """``(h, w, C)`` of one, three or four channels (RGBA) as a PNG file."""
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
    colour = {1: 0, 3: 2, 4: 6}[channels]
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))


def chunk(kind: bytes, content: bytes | bytearray) -> bytes:
    """A chunk of a PNG file."""
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)))


PNG_FINISH = chunk(b"IEND", b"")
