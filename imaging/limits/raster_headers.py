"""PNG, GIF, BMP, Netpbm, WebP, HEIC and AVIF files: the cost of decoding, read from their headers and chunks."""

import re
import struct

from imaging.formats.bmp import BITFIELDS, RUN_LENGTHS, read_header
from imaging.formats.png import CHUNK, chunks
from imaging.formats.png import HEADER as PNG_HEADER
from imaging.limits.cost import Cost, ImplausibleError
from imaging.limits.metadata import add_exif

PATH_BYTES = 12
"""A pixel in Pillow and in the copies that turn and convert it."""
OUTPUT_BYTE_S = 6e-9

MAX_PNG_CHUNKS = 100_000
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PNG_RGB_16 = 48
"""Bits of a pixel."""
PNG_CHUNK_S = 3e-6
PNG_KEY_BYTES = 24
"""A pixel where one colour of 16 bits is transparent: it is decoded twice and compared."""

MAX_GIF_BLOCKS = 100_000
GIF_BLOCK_S = 1e-6
GIF_PIXEL_S = 10e-9

BMP_MASKS_BYTES = 20
"""A pixel whose colours are given by bit masks."""
RUN_BYTE_S = 0.8e-6
"""A byte of run-length encoding, which `imaging.formats.bmp` reads in Python."""
RUN_PIXEL_S = 40e-9
BMP_COLOUR_S = 0.4e-6

NETPBM_HEADER = re.compile(
    rb"P([456])" + rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})" * 2 + rb"(?:(?:\s|#[^\r\n]*[\r\n])+(\d{1,10}))?"
)
MAX_NETPBM_HEADER = 65_536
"""Bytes, which Pillow reads one by one in Python."""
WEBP_PIXEL_S = 30e-9
WEBP_PIXEL_BYTES = 20
"""libwebp keeps the canvas of an animation twice and hands over a copy."""
MAX_WEBP_CHUNKS = 100_000
WEBP_FRAME_HEAD = 16
LOSSLESS_GROUP = 16
"""Pixels of a lossless WebP that share their Huffman codes, at the least."""
LOSSLESS_GROUP_BITS = 20
"""Bits of the shortest five Huffman codes of a group."""
MAX_LOSSLESS_GROUPS = 65_536
LOSSLESS_GROUP_BYTES, LOSSLESS_GROUP_S = 6000, 10e-6
"""The tables that libwebp makes of the codes of a group."""
MANY_LOSSLESS_GROUPS = 4096
"""Groups above which a file may need far more memory than its pixels, which only its decoder knows."""

MAX_BOXES = 4096
HEIF_PIXEL_S = 100e-9
HEIF_PIXEL_BYTES = 20
HEIF_METADATA = 2**22
"""Bytes at the beginning of a file that are searched for sizes."""


def examine_png(data: bytes) -> Cost:
    """The cost of a PNG file.

    Raises:
        ImplausibleError: it has too many chunks.
    """
    cost = Cost()
    count, row_bits, pixel_bytes = 0, 0, PATH_BYTES
    for chunk in chunks(data):
        count += 1
        if count > MAX_PNG_CHUNKS:
            raise ImplausibleError(f"more than {MAX_PNG_CHUNKS} chunks")
        start = chunk.start + CHUNK.size
        if chunk.kind == b"IHDR" and start + PNG_HEADER.size <= len(data):
            width, height, depth, colour = PNG_HEADER.unpack_from(data, start)
            cost.add_bitmap(width, height)
            row_bits = max(row_bits, depth * PNG_SAMPLES.get(colour, 4))
        elif chunk.kind == b"tRNS" and row_bits == PNG_RGB_16:
            pixel_bytes = PNG_KEY_BYTES
        elif chunk.kind == b"eXIf":
            add_exif(cost, data[start : chunk.end])
    cost.add_work(count * PNG_CHUNK_S, f"{count} chunks")
    cost.bytes += cost.pixels * pixel_bytes
    cost.seconds += cost.pixels * (2 + row_bits // 8) * OUTPUT_BYTE_S * (pixel_bytes / PATH_BYTES)
    return cost


def examine_gif(data: bytes) -> Cost:
    """The cost of the first frame of a GIF file, which may be larger than its screen.

    Raises:
        ImplausibleError: too many blocks stand before it.
    """
    cost = Cost()
    if len(data) < 13:
        return cost
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    cost.add_bitmap(width, height)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0
    while position < len(data):
        kind = data[position]
        if kind == 0x2C and position + 9 <= len(data):
            left, top, width, height = struct.unpack_from("<4H", data, position + 1)
            cost.add_bitmap(left + width, top + height)
            break
        blocks += 1
        if kind != 0x21:  # Pillow skips what it does not know byte by byte
            position += 1
        else:
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
                blocks += 1
                if blocks > MAX_GIF_BLOCKS:
                    break
            position += 1
        if blocks > MAX_GIF_BLOCKS:
            raise ImplausibleError(f"more than {MAX_GIF_BLOCKS} blocks before the picture")
    cost.add_work(blocks * GIF_BLOCK_S, f"{blocks} blocks before the picture")
    cost.bytes += cost.pixels * PATH_BYTES
    cost.seconds += cost.pixels * GIF_PIXEL_S
    return cost


def examine_bmp(data: bytes) -> Cost:
    """The cost of a BMP file."""
    cost = Cost()
    header = read_header(data)
    if header is None:
        return cost
    cost.add_bitmap(max(header.width, 0), abs(header.height))
    colours = min(header.colours or 1 << min(header.bits, 8), 65_536)
    cost.add_work(colours * BMP_COLOUR_S, f"{colours} colours of a palette")
    cost.bytes += cost.pixels * (BMP_MASKS_BYTES if header.compression >= BITFIELDS else PATH_BYTES)
    if header.compression in RUN_LENGTHS:
        cost.add_work(cost.pixels * RUN_PIXEL_S + len(data) * RUN_BYTE_S, f"{len(data)} bytes of run-length encoding")
    else:
        cost.seconds += cost.pixels * OUTPUT_BYTE_S * (2 if header.compression >= BITFIELDS else 1)
    return cost


def examine_netpbm(data: bytes) -> Cost:
    """The cost of a binary Netpbm file.

    Raises:
        ImplausibleError: it has a long header.
    """
    cost = Cost()
    header = NETPBM_HEADER.match(data, 0, MAX_NETPBM_HEADER)
    if header is None:
        if len(data) > MAX_NETPBM_HEADER:
            raise ImplausibleError(f"no header in its first {MAX_NETPBM_HEADER} bytes")
        return cost
    cost.add_bitmap(int(header[2]), int(header[3]))
    cost.bytes += cost.pixels * PATH_BYTES
    cost.add_work(len(header[0]) * 0.3e-6, "its header")
    cost.seconds += cost.pixels * 6 * OUTPUT_BYTE_S
    return cost


def examine_webp(data: bytes) -> Cost:
    """The cost of the first frame of a WebP file.

    Raises:
        ImplausibleError: it has too many chunks.
    """
    cost = Cost()
    position, count, animated = 12, 0, False
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        position = start + length + (length & 1)
        count += 1
        if count > MAX_WEBP_CHUNKS:
            raise ImplausibleError(f"more than {MAX_WEBP_CHUNKS} chunks")
        head = data[start : start + 24]
        if kind == b"VP8X" and len(head) >= 10:
            cost.add_bitmap(1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little"))
        elif kind == b"ANMF" and len(head) >= 12:
            cost.add_bitmap(1 + int.from_bytes(head[6:9], "little"), 1 + int.from_bytes(head[9:12], "little"))
            if not animated:  # the chunks inside of the first frame come next
                position, animated = start + WEBP_FRAME_HEAD, True
        elif kind == b"VP8 " and len(head) >= 10:
            width, height = struct.unpack_from("<HH", head, 6)
            cost.add_bitmap(width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and len(head) >= 5:
            size = int.from_bytes(head[1:5], "little")
            width, height = 1 + (size & 0x3FFF), 1 + (size >> 14 & 0x3FFF)
            cost.add_bitmap(width, height)
            add_huffman_codes(cost, width * height, length)
        elif kind == b"ALPH" and head[:1] and head[0] & 3:
            add_huffman_codes(cost, cost.pixels, length)
        elif kind == b"EXIF":
            exif = data[start : start + length]
            add_exif(cost, exif.removeprefix(b"Exif\0\0"))
    cost.bytes += cost.pixels * WEBP_PIXEL_BYTES
    cost.seconds += cost.pixels * WEBP_PIXEL_S
    return cost


def add_huffman_codes(cost: Cost, pixels: int, length: int) -> None:
    """Add the tables of the Huffman codes that ``length`` bytes of lossless WebP may have."""
    groups = min(pixels // LOSSLESS_GROUP, length * 8 // LOSSLESS_GROUP_BITS, MAX_LOSSLESS_GROUPS)
    if groups > MANY_LOSSLESS_GROUPS:
        cost.bounded = False
    else:
        cost.bytes += groups * LOSSLESS_GROUP_BYTES
        cost.add_work(groups * LOSSLESS_GROUP_S, f"{groups} groups of Huffman codes")


def examine_heif(data: bytes) -> Cost:
    """The cost of a HEIC or AVIF file by the sizes that it declares; what its stream holds, only its decoder knows.

    Raises:
        ImplausibleError: it declares too many sizes.
    """
    cost = Cost(bounded=False)
    position = boxes = 0
    while (position := data.find(b"ispe", position, HEIF_METADATA)) >= 0:
        if position + 16 <= len(data):
            cost.add_bitmap(*struct.unpack_from(">LL", data, position + 8))
        position += 4
        boxes += 1
        if boxes > MAX_BOXES:
            raise ImplausibleError(f"more than {MAX_BOXES} pictures inside")
    cost.bytes += cost.pixels * HEIF_PIXEL_BYTES
    cost.seconds += cost.pixels * HEIF_PIXEL_S
    return cost
