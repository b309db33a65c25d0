"""BMP files as browsers show them.

Pillow decodes most of them. It knows few bit masks, and fails on run-length encoded files that leave pixels out, which
browsers show black; both are decoded here.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.errors import DamagedImageError, UnsupportedImageError
from imaging.formats.pillow_formats import open_with_pillow
from imaging.formats.stored_image import SEND_AGAIN, StoredImage
from imaging.modes import eight_bits

HEADER = struct.Struct("<10xIIii2xHI12xI")
"""The fields of a `Header`."""
OLD_HEADER = struct.Struct("<10xIIHH2xH")
"""The fields of a header of OS/2 1.x."""
COLOURS_START, MASKS_START, PALETTE_START = 46, 54, 14
"""Positions of the number of colours and of the bit masks, and that from which the size of the header counts."""
OLD, MODERN, WITH_ALPHA, OS2 = 12, 40, 56, 64
"""Sizes of headers: that of OS/2 1.x, that of Windows, one with a mask for alpha, that of OS/2 2.x."""
RLE8, RLE4, BITFIELDS, ALPHA_BITFIELDS = 1, 2, 3, 6
RUN_LENGTHS = {RLE8: 8, RLE4: 4}
"""Bits of a pixel, by compression."""
OTHER_COMPRESSIONS = {4: "holds a JPEG", 5: "holds a PNG"}
END_OF_LINE, END_OF_PICTURE, MOVE = 0, 1, 2
"""Meanings of the byte after a zero; a larger one is a number of pixels that follow as they are."""
PALETTE_SIZE = 256
DEEPEST = 16
"""Bits of a level that count."""
CURE = "save it as a BMP of 24 bits, or as PNG"


class Header(NamedTuple):
    """The beginning of a BMP file."""

    start: int
    """Position of the pixels."""
    size: int
    """Size of the part after the first 14 bytes, up to the palette or the pixels."""
    width: int
    height: int
    """Negative if the upper rows come first."""
    bits: int
    compression: int
    colours: int
    """Number of colours in the palette; 0 stands for the most that its bits allow."""


def read_header(data: bytes) -> Header | None:
    """The header of a BMP file; None if it is cut short."""
    if len(data) >= OLD_HEADER.size and int.from_bytes(data[14:18], "little") == OLD:
        start, size, width, height, bits = OLD_HEADER.unpack_from(data)
        return Header(start, size, width, height, bits, 0, 0)
    return Header(*HEADER.unpack_from(data)) if len(data) >= HEADER.size else None


def open_bmp(data: bytes) -> StoredImage:
    """Read the header of a BMP file."""
    header = read_header(data)
    if header is None or header.size < MODERN:
        return open_with_pillow(data, "BMP")
    refuse_unread(header)
    if header.compression in RUN_LENGTHS:
        if header.bits != RUN_LENGTHS[header.compression] or header.height < 0:
            raise damage("the header contradicts itself")
        return stored(header, lambda: show_runs(header, data))
    if header.compression in (BITFIELDS, ALPHA_BITFIELDS) and header.bits in (16, 32):
        return stored(header, lambda: show_masked(header, data))
    if header.bits in (4, 8) and header.colours == 2:
        # Pillow would take a palette of black and white for that of a picture of one bit.
        data = data[:COLOURS_START] + bytes(4) + data[COLOURS_START + 4 :]
    return open_with_pillow(data, "BMP")


def refuse_unread(header: Header) -> None:
    """Refuse whole files that neither Pillow nor this module reads."""
    if header.size == OS2 and header.compression >= BITFIELDS:
        kind = "is compressed as OS/2 does"
    elif header.compression in OTHER_COMPRESSIONS:
        kind = OTHER_COMPRESSIONS[header.compression]
    elif header.bits == 2:
        kind = "has 2 bits a pixel"
    else:
        return
    raise UnsupportedImageError(f"this is a BMP that {kind}, which is not taken", CURE)


def damage(problem: str) -> DamagedImageError:
    """The error for a file that is not whole."""
    return DamagedImageError(f"the BMP picture is damaged or cut short ({problem})", SEND_AGAIN)


def stored(header: Header, load: Callable[[], Image.Image]) -> StoredImage:
    """The picture in a file that is decoded here."""
    if header.width <= 0 or header.height == 0:
        raise damage("it has no pixels")
    return StoredImage("BMP", header.width, abs(header.height), True, load)


def show_masked(header: Header, data: bytes) -> Image.Image:
    """Decode pixels whose colours are given by bit masks."""
    red, green, blue, alpha = struct.unpack_from("<4I", data.ljust(MASKS_START + 16, b"\0"), MASKS_START)
    if header.size < WITH_ALPHA and header.compression == BITFIELDS:
        alpha = 0
    dtype = np.dtype(f"<u{header.bits // 8}")
    row = -(-header.width * dtype.itemsize // 4) * 4
    height = abs(header.height)
    if len(data) < header.start + row * height:
        raise damage("pixels are missing")
    rows = np.frombuffer(data, np.uint8, row * height, header.start).reshape(height, row)
    pixels = rows.view(dtype)[:: 1 if header.height < 0 else -1, : header.width]
    channels = [unmask(pixels, mask) for mask in (red, green, blue)]
    if alpha and (opacity := unmask(pixels, alpha)).any():  # as in browsers, a picture is not all transparent
        channels.append(opacity)
    return Image.merge("RGBA" if len(channels) > 3 else "RGB", [Image.fromarray(channel) for channel in channels])


def unmask(pixels: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """Extract the levels that stand in the bits of ``mask``."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    white, shift = mask, 0
    while not white & 1 or white >> DEEPEST:
        white, shift = white >> 1, shift + 1
    if white & (white + 1):
        raise damage("a bit mask has gaps")
    return eight_bits(pixels >> shift & white, white)


def show_runs(header: Header, data: bytes) -> Image.Image:
    """Decode pixels that are run-length encoded."""
    start = PALETTE_START + header.size
    entries = np.frombuffer(data[start : start + 4 * (header.colours or 2**header.bits)], np.uint8)
    palette = np.zeros((PALETTE_SIZE, 3), np.uint8)
    read = entries[: len(entries) // 4 * 4].reshape(-1, 4)[: len(palette), 2::-1]
    palette[: len(read)] = read
    levels, drawn = decode_runs(header, data)
    return Image.fromarray((palette[levels] * drawn[..., np.newaxis])[::-1])


def decode_runs(header: Header, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``(H, W)`` levels from the lowest row up, and where they were written.

    Raises:
        DamagedImageError: the file ends before the picture.
    """
    width, height, position = header.width, header.height, header.start
    levels, drawn = bytearray(width * height), bytearray(width * height)
    x = y = 0
    while y < height:
        if position + 2 > len(data):
            if (x, y) == (width, height - 1):  # complete but for its end
                break
            raise damage("runs are missing")
        count, value = data[position : position + 2]
        position += 2
        if not count and value == END_OF_PICTURE:
            break
        if not count and value == END_OF_LINE:
            x, y = 0, y + 1
            continue
        if not count and value == MOVE:
            right, up = data[position : position + 2].ljust(2, b"\0")
            x, y, position = min(x + right, width), y + up, position + 2
            continue
        if count:
            run = bytes((value,)) * count if header.bits == 8 else bytes((value >> 4, value & 15)) * (count // 2 + 1)
        else:
            count, size = value, value if header.bits == 8 else (value + 1) // 2
            run = data[position : position + size]
            if header.bits == 4:
                run = bytes(nibble for byte in run for nibble in (byte >> 4, byte & 15))
            position += size + size % 2
        run = run[: min(count, width - x)]
        at = y * width + x
        levels[at : at + len(run)] = run
        drawn[at : at + len(run)] = b"\1" * len(run)
        x += len(run)
    shape = height, width
    return np.frombuffer(levels, np.uint8).reshape(shape), np.frombuffer(drawn, np.uint8).reshape(shape)
