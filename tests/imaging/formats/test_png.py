"""PNG of every depth and colour type, written by hand."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.decoding import decode, open_image
from imaging.errors import DamagedImageError
from tests.imaging.formats.tiffs import Layout, pack
from tests.imaging.reading import MAX_PIXELS, difference, eight
from tests.service.broken import chunk

HEIGHT, WIDTH = 6, 11
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
END = chunk(b"IEND", b"")
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of Adam7: first row and column, steps between rows and columns."""


def write(levels: NDArray[Any], bits: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG file of ``(H, W)`` or ``(H, W, C)`` levels, with ``chunks`` before the pixels."""
    height, width = levels.shape[:2]
    parts = [levels[row::down, column::right] for row, column, down, right in PASSES] if interlaced else [levels]
    rows = b"".join(
        b"\0" + pack(row[None], Layout(bits=bits, order=">")) for part in parts if part.size for row in part
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + END


def noise(bits: int, samples: int = 1) -> NDArray[np.int64]:
    levels = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, samples))
    return levels if samples > 1 else levels[..., 0]


def key(*levels: int) -> bytes:
    """The chunk that makes one grey level, or one colour, transparent."""
    return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))


def with_bad_checksum(whole: bytes) -> bytes:
    return whole[:-1] + bytes([whole[-1] ^ 1])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey(bits: int, interlaced: bool) -> None:
    assert difference(write(noise(bits), bits, GREY, interlaced=interlaced), eight(noise(bits), bits)) == 0


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_with_a_transparent_level(bits: int, interlaced: bool) -> None:
    levels = noise(bits)
    level = int(levels[2, 3])
    expected = np.where(levels == level, 255, eight(levels, bits))
    data = write(levels, bits, GREY, key(level), interlaced=interlaced)
    assert difference(data, expected, background=(255,)) == 0


def test_two_grey_levels_of_16_bits_that_differ_little_are_told_apart() -> None:
    levels = np.array([[300, 301, 40_000, 40_001]])
    expected = np.array([[200, 1, 156, 156]])
    assert difference(write(levels, 16, GREY, key(300)), expected, background=(200,)) == 0
    assert difference(write(levels, 16, GREY, key(40_001)), np.array([[1, 1, 156, 200]]), (200,)) == 0


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("transparent", [False, True])
def test_rgb(bits: int, transparent: bool, interlaced: bool) -> None:
    levels = noise(bits, 3)
    levels[0, 1] = levels[2, 3] ^ 1  # in 16 bits, the same but for the lower byte
    levels[0, 2] = levels[2, 3]
    colour = levels[2, 3]
    expected = eight(levels, bits)
    if transparent:
        expected[(levels == colour).all(axis=-1)] = 255
    chunks = [key(*colour.tolist())] if transparent else []
    data = write(levels, bits, RGB, *chunks, interlaced=interlaced)
    assert difference(data, expected, background=(255,)) <= (bits == 16)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_palette(bits: int, transparent: bool) -> None:
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (2**bits, 3))
    opacities = np.where(np.arange(2**bits) % 3 == 0, 0, 255)
    chunks = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    if transparent:
        chunks.append(chunk(b"tRNS", opacities.astype(np.uint8).tobytes()))
    levels = noise(bits)
    expected = colours[levels]
    if transparent:
        expected = np.where(opacities[levels][..., None] == 0, 255, expected)
    assert difference(write(levels, bits, PALETTE, *chunks), expected, background=(255,)) == 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("colour", "samples"), [(GREY_ALPHA, 2), (RGBA, 4)])
def test_alpha(bits: int, colour: int, samples: int) -> None:
    levels = noise(bits, samples)
    shown = eight(levels, bits)
    expected = shown[..., :-1] * shown[..., -1:] / 255
    expected = np.broadcast_to(expected, (HEIGHT, WIDTH, 3))
    assert difference(write(levels, bits, colour), expected) <= 1 + (bits == 16)


@pytest.mark.parametrize("kind", [b"tEXt", b"gAMA", b"tIME", b"pHYs", b"iCCP", b"bKGD", b"zTXt", b"prIv"])
@pytest.mark.parametrize("bits", [8, 16])
def test_an_ancillary_chunk_with_a_bad_checksum_is_ignored(kind: bytes, bits: int) -> None:
    damaged = with_bad_checksum(chunk(kind, b"garbage"))
    assert difference(write(noise(bits), bits, GREY, damaged), eight(noise(bits), bits)) == 0


def test_a_transparent_level_and_an_orientation_with_bad_checksums_are_ignored() -> None:
    levels = noise(8)
    sideways = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + bytes(4))
    chunks = [with_bad_checksum(key(int(levels[0, 0]))), with_bad_checksum(sideways)]
    assert difference(write(levels, 8, GREY, *chunks), levels, background=(200,)) == 0
    assert difference(write(levels, 8, GREY, sideways), np.rot90(levels, -1)) == 0


def test_pixels_with_a_bad_checksum_are_damage() -> None:
    data = write(noise(16), 16, GREY)
    position = data.index(b"IDAT") - 4
    damaged = data[:position] + with_bad_checksum(data[position : -len(END)]) + END
    for content in (damaged, with_bad_checksum(data[: data.index(b"IDAT") - 4]) + data[data.index(b"IDAT") - 4 :]):
        with pytest.raises(DamagedImageError):
            decode(open_image(content, MAX_PIXELS))
