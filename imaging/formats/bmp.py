"""BMP files as browsers show them: Pillow decodes them, except for those that are run-length encoded.

Of the latter Pillow takes pixels that were left out for the first colour of the palette; browsers show them black.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.errors import DamagedImageError, UnsupportedImageError
from imaging.formats.pillow_formats import open_with_pillow
from imaging.formats.stored_image import SEND_AGAIN, StoredImage

HEADER = struct.Struct("<10xIIii2xHI12xI")
"""See `Header`."""
COLOURS_START, ALPHA_START, PALETTE_START = 46, 66, 14
"""Where the number of colours and the mask of alpha stand, and from where the size of the header counts."""
MODERN, WITH_ALPHA, OS2 = 40, 56, 64
"""Sizes of headers: at least what Windows writes, at least with a mask for alpha, that of OS/2."""
RLE8, RLE4, BITFIELDS = 1, 2, 3
OTHER_COMPRESSIONS = {4: "holds a JPEG", 5: "holds a PNG", 6: "has masks with alpha"}
END_OF_LINE, END_OF_PICTURE, MOVE = 0, 1, 2
"""What the byte after a zero means; a larger one is a number of pixels that follow as they are."""
PALETTE_SIZE = 256
CURE = "save it as a BMP of 24 bits, or as PNG"


class Header(NamedTuple):
    """The beginning of a BMP file."""

    start: int
    """Of the pixels."""
    size: int
    """Of what follows the first 14 bytes, up to the palette or the pixels."""
    width: int
    height: int
    """Negative if the upper rows come first."""
    bits: int
    compression: int
    colours: int
    """In the palette; 0 stands for as many as there can be."""


def open_bmp(data: bytes) -> StoredImage:
    """Read the header of a BMP file."""
    header = Header(*HEADER.unpack_from(data)) if len(data) >= HEADER.size else None
    if header is None or header.size < MODERN:
        return open_with_pillow(data, "BMP")
    refuse_unread(header, data)
    if (header.bits, header.compression) in ((8, RLE8), (4, RLE4)):
        return open_run_length_encoded(header, data)
    if header.bits in (4, 8) and header.colours == 2:
        # Pillow would take a palette of black and white for that of a picture of one bit.
        data = data[:COLOURS_START] + bytes(4) + data[COLOURS_START + 4 :]
    try:
        return open_with_pillow(data, "BMP")
    except OSError as error:
        if "bitfields" not in str(error):
            raise
        raise refusal("has unusual bit masks") from error


def refuse_unread(header: Header, data: bytes) -> None:
    """Refuse what Pillow would not read right, or not at all, though it is whole."""
    if header.size == OS2 and header.compression >= BITFIELDS:
        raise refusal("is compressed as OS/2 does")
    if header.compression in OTHER_COMPRESSIONS:
        raise refusal(OTHER_COMPRESSIONS[header.compression])
    if header.bits == 2:
        raise refusal("has 2 bits a pixel")
    masks = header.bits == 16 and header.compression == BITFIELDS and header.size >= WITH_ALPHA
    if masks and any(data[ALPHA_START : ALPHA_START + 4]):
        raise refusal("has 16 bits a pixel with alpha")


def refusal(kind: str) -> UnsupportedImageError:
    """The error for a whole file of a kind that is not read."""
    return UnsupportedImageError(f"this is a BMP that {kind}, which is not taken", CURE)


def open_run_length_encoded(header: Header, data: bytes) -> StoredImage:
    """See `open_bmp`."""
    if header.width <= 0 or header.height <= 0:
        raise DamagedImageError("the header of the BMP picture is damaged: it has no pixels", SEND_AGAIN)

    def load() -> Image.Image:
        start = PALETTE_START + header.size
        entries = np.frombuffer(data[start : start + 4 * (header.colours or 2**header.bits)], np.uint8)
        palette = np.zeros((PALETTE_SIZE, 3), np.uint8)
        read = entries[: len(entries) // 4 * 4].reshape(-1, 4)[: len(palette), 2::-1]
        palette[: len(read)] = read
        levels, drawn = decode_runs(header, data)
        return Image.fromarray((palette[levels] * drawn[..., np.newaxis])[::-1])

    return StoredImage("BMP", header.width, header.height, True, load)


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
            raise DamagedImageError("the BMP picture is cut short", SEND_AGAIN)
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
