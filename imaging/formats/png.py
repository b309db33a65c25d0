"""PNG of every depth and colour type, as browsers show it.

Pillow decodes the pixels. It is given the chunks that they need and nothing else, so that what is wrong with a text, a
time or a colour profile does not matter. Transparent levels are compared here, in the depth in which they are written.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.errors import DamagedImageError
from imaging.formats.stored_image import SEND_AGAIN, StoredImage
from imaging.modes import simplify
from imaging.orientation import apply_orientation, read_orientation, upright_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK = struct.Struct(">I4s")
HEADER = struct.Struct(">IIBB")
"""Width, height, depth and type of colour, at the beginning of the header chunk."""
GREY, RGB, PALETTE, GREY_ALPHA = 0, 2, 3, 4
DEPTHS = (
    {(GREY, depth) for depth in (1, 2, 4, 8, 16)}
    | {(RGB, 8), (RGB, 16), (PALETTE, 1), (PALETTE, 2)}
    | {(PALETTE, 4), (PALETTE, 8), (GREY_ALPHA, 8), (GREY_ALPHA, 16), (6, 8), (6, 16)}
)
CRITICAL = {b"IHDR", b"PLTE", b"IDAT"}
"""Chunks without which there are no pixels; a wrong checksum in one of them is damage."""
END = b"IEND"
LOW_BYTES = "RGB;16L"
"""Pillow's name for reading the second of the two bytes of each 16-bit level."""


class Chunk(NamedTuple):
    """A part of a PNG file."""

    kind: bytes
    start: int
    """Position of the chunk; its content begins 8 bytes later."""
    end: int
    """End of the content; the checksum follows."""


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG file, up to its end chunk or to where it is cut short."""
    position = len(SIGNATURE)
    while position + CHUNK.size <= len(data):
        length, kind = CHUNK.unpack_from(data, position)
        end = position + CHUNK.size + length
        yield Chunk(kind, position, end)
        if kind == END:
            return
        position = end + 4


def content(data: bytes, chunk: Chunk) -> bytes | None:
    """The content of a chunk; None if its checksum is wrong or it is cut short."""
    found = data[chunk.start + CHUNK.size : chunk.end]
    checksum = zlib.crc32(found, zlib.crc32(chunk.kind))
    return found if data[chunk.end : chunk.end + 4] == checksum.to_bytes(4) else None


def open_png(data: bytes) -> StoredImage:
    """Read the header of a PNG file; as in browsers, ancillary chunks with a wrong checksum do not count."""
    pieces, key, exif, last = [SIGNATURE], None, None, b""
    depth, colour = 0, GREY
    for chunk in chunks(data):
        if chunk.kind in CRITICAL and content(data, chunk) is None:
            name = chunk.kind.decode()
            raise DamagedImageError(f"the PNG picture is damaged or cut short (checksum of {name})", SEND_AGAIN)
        if chunk.kind == b"IHDR":
            _, _, depth, colour = HEADER.unpack_from(data, chunk.start + CHUNK.size)
            if (colour, depth) not in DEPTHS:
                raise DamagedImageError(f"the PNG picture is damaged ({depth} bits, colour type {colour})", SEND_AGAIN)
        elif chunk.kind == b"tRNS" and key is None and last != b"IDAT":
            key = content(data, chunk)
            if key is not None and colour == PALETTE:
                pieces.append(data[chunk.start : chunk.end + 4])
        elif chunk.kind == b"eXIf":
            exif = content(data, chunk)
        if chunk.kind in CRITICAL or chunk.kind == END:
            pieces.append(data[chunk.start : chunk.end + 4])
            last = chunk.kind
    orientation = read_orientation(exif)
    transparent = transparent_level(key, depth, colour)
    file = b"".join(pieces)
    image = Image.open(io.BytesIO(file), formats=["PNG"])
    width, height = upright_size(*image.size, orientation)

    def load() -> Image.Image:
        image.load()
        if transparent is None:
            return apply_orientation(simplify(image), orientation)
        opacity = opaque_where_not(transparent, image, file, depth)
        seen = simplify(image).convert("RGBA")
        seen.putalpha(Image.fromarray(opacity))
        return apply_orientation(seen, orientation)

    return StoredImage("PNG", width, height, colour not in (GREY, GREY_ALPHA), load)


def transparent_level(key: bytes | None, depth: int, colour: int) -> tuple[int, ...] | None:
    """The one level (grey) or the three (RGB) that are transparent, as they are written; None if there are none."""
    samples = {GREY: 1, RGB: 3}.get(colour)
    if key is None or samples is None or len(key) < 2 * samples:
        return None
    return tuple(level & (1 << depth) - 1 for level in struct.unpack_from(f">{samples}H", key))


def opaque_where_not(transparent: tuple[int, ...], image: Image.Image, file: bytes, depth: int) -> NDArray[np.uint8]:
    """The alpha channel of a decoded picture whose ``file`` says that one colour is transparent."""
    if len(transparent) == 1:
        shown = transparent[0] * (255 // (2**depth - 1)) if depth < 8 else transparent[0]
        clear = np.asarray(simplify(image) if depth < 8 else image) == shown
    elif depth == 8:
        clear = (np.asarray(image) == transparent).all(axis=-1)
    else:
        high, low = np.divmod(transparent, 256)
        clear = (np.asarray(image) == high).all(axis=-1) & (np.asarray(low_bytes(file)) == low).all(axis=-1)
    return np.where(clear, np.uint8(0), np.uint8(255))


def low_bytes(file: bytes) -> Image.Image:
    """The lower half of the levels of a 16-bit RGB picture, of which Pillow otherwise gives the upper half."""
    image = Image.open(io.BytesIO(file), formats=["PNG"])
    image.tile = [tile._replace(args=LOW_BYTES) for tile in image.tile]
    return image
