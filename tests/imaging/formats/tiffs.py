"""TIFF files written by hand, in every way that the format knows."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
RAW, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
SHORT, LONG, LONG8 = 3, 4, 16
CODES = {SHORT: "H", LONG: "I", LONG8: "Q"}


class Layout(NamedTuple):
    """How pixels are written."""

    photometric: int = BLACK_IS_ZERO
    bits: int = 8
    compression: int = RAW
    order: str = "<"
    """Of bytes: little-endian ("<") or big-endian (">")."""
    big: bool = False
    """BigTIFF."""
    planar: bool = False
    tile: int | None = None
    """Side of a tile; strips if there is none."""
    rows: int | None = None
    """Of a strip; all if it is not said."""
    predictor: int = 1
    fill_order: int = 1
    extra: tuple[int, ...] = ()
    """Meaning of the samples after the colours."""
    sample_format: int | None = None
    orientation: int | None = None
    tags: Mapping[int, Sequence[int]] = MappingProxyType({})
    """Other tags, as SHORT."""


def write(levels: NDArray[Any], layout: Layout) -> bytes:
    """A TIFF file of ``(H, W)`` or ``(H, W, C)`` levels."""
    pixels = levels if levels.ndim == 3 else levels[..., None]
    height, width, samples = pixels.shape
    planes = [pixels[..., [sample]] for sample in range(samples)] if layout.planar else [pixels]
    pieces = [encode(piece, layout) for plane in planes for piece in cut(plane, layout)]
    number = LONG8 if layout.big else LONG
    entries: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [layout.bits] * samples),
        259: (SHORT, [layout.compression]),
        262: (SHORT, [layout.photometric]),
        277: (SHORT, [samples]),
        284: (SHORT, [2 if layout.planar else 1]),
    }
    where, sizes = (324, 325) if layout.tile else (273, 279)
    entries[where] = (number, [0] * len(pieces))
    entries[sizes] = (number, [len(piece) for piece in pieces])
    if layout.tile:
        entries |= {322: (LONG, [layout.tile]), 323: (LONG, [layout.tile])}
    else:
        entries[278] = (LONG, [layout.rows or height])
    if layout.predictor != 1:
        entries[317] = (SHORT, [layout.predictor])
    if layout.fill_order != 1:
        entries[266] = (SHORT, [layout.fill_order])
    if layout.extra:
        entries[338] = (SHORT, layout.extra)
    if layout.sample_format:
        entries[339] = (SHORT, [layout.sample_format] * samples)
    if layout.orientation:
        entries[274] = (SHORT, [layout.orientation])
    entries |= {tag: (SHORT, values) for tag, values in layout.tags.items()}
    return assemble(entries, where, pieces, layout)


def assemble(
    entries: dict[int, tuple[int, Sequence[int]]], where: int, pieces: Sequence[bytes], layout: Layout
) -> bytes:
    """The file: header, directory, values that do not fit into it, pixels."""
    order, big = layout.order, layout.big
    slot, entry = (8, 20) if big else (4, 12)
    start = 16 if big else 8
    after = start + (8 if big else 2) + entry * len(entries) + slot
    content = after
    sizes = {tag: len(values) * struct.calcsize("=" + CODES[kind]) for tag, (kind, values) in entries.items()}
    content += sum(size + size % 2 for size in sizes.values() if size > slot)
    offsets = []
    for piece in pieces:
        offsets.append(content)
        content += len(piece)
    entries = entries | {where: (entries[where][0], offsets)}
    directory, values = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}{CODES[kind]}", *numbers)
        if len(packed) > slot:
            place = struct.pack(order + ("Q" if big else "I"), after + len(values))
            values += packed + bytes(len(packed) % 2)
            packed = place
        head = struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(numbers))
        directory += head + packed.ljust(slot, b"\0")
    signature = b"II" if order == "<" else b"MM"
    if big:
        header = signature + struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        header = signature + struct.pack(order + "HI", 42, start)
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    return header + count + directory + bytes(slot) + values + b"".join(pieces)


def cut(plane: NDArray[Any], layout: Layout) -> list[NDArray[Any]]:
    """The strips or tiles of a plane ``(H, W, C)``."""
    height, width, _ = plane.shape
    if layout.tile is None:
        rows = layout.rows or height
        return [plane[row : row + rows] for row in range(0, height, rows)]
    side = layout.tile
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[row : row + side, column : column + side]
        for row in range(0, height, side)
        for column in range(0, width, side)
    ]


def encode(piece: NDArray[Any], layout: Layout) -> bytes:
    """A strip or tile as it stands in the file."""
    if layout.compression == JPEG:
        squeezed = np.ascontiguousarray(piece if piece.shape[-1] > 1 else piece[..., 0])
        space = {1: "gray", 3: "rgb"}[piece.shape[-1]]
        stored = "ycbcr" if layout.photometric == YCBCR else space
        return bytes(
            imagecodecs.jpeg8_encode(squeezed, level=100, colorspace=space, outcolorspace=stored, subsampling="444")
        )
    if layout.predictor == 2:
        piece = np.mod(np.diff(piece.astype(np.int64), axis=1, prepend=0), 1 << layout.bits)
    content: bytes | bytearray = pack(piece, layout)
    if layout.compression == DEFLATE:
        content = zlib.compress(content)
    elif layout.compression == LZW:
        content = imagecodecs.lzw_encode(content)
    elif layout.compression == PACKBITS:
        content = imagecodecs.packbits_encode(content)
    if layout.fill_order == 2:
        content = np.packbits(np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")).tobytes()
    return bytes(content)


def pack(piece: NDArray[Any], layout: Layout) -> bytes:
    """Levels as bytes, rows beginning on a byte."""
    if layout.sample_format == FLOAT:
        return piece.astype(f"{layout.order}f{layout.bits // 8}").tobytes()
    if layout.bits % 8 == 0:
        return (piece.astype(np.int64) % (1 << layout.bits)).astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    rows = piece.reshape(len(piece), -1).astype(np.uint16)
    bits = rows[..., None] >> np.arange(layout.bits - 1, -1, -1) & 1
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
