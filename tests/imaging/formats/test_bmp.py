"""BMP of every depth, written by hand."""

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.errors import DamagedImageError, UnsupportedImageError
from tests.imaging.formats.tiffs import Layout, pack
from tests.imaging.reading import difference, seen

HEIGHT, WIDTH = 6, 11
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
RGB, RLE8, RLE4, BITFIELDS = 0, 1, 2, 3
INKS = np.random.default_rng(3).integers(0, 256, (16, 3))
NONE = -1
"""A pixel that is left out."""


def bmp(
    levels: NDArray[Any],
    bits: int,
    *,
    palette: NDArray[Any] | None = None,
    masks: tuple[int, ...] = (),
    compression: int = RGB,
    top_down: bool = False,
    header: int = 40,
    used: int = 0,
) -> bytes:
    """A BMP file of ``(H, W)`` levels of ``bits``."""
    stored = levels if top_down else levels[::-1]
    if bits < 16:
        packed = [pack(row[None, :, None], Layout(bits=bits)) for row in stored]
    else:
        packed = [row.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes() for row in stored]
    pixels = b"".join(row + bytes(-len(row) % 4) for row in packed)
    height, width = levels.shape
    after = b"".join(struct.pack("<I", mask) for mask in masks)
    beyond = header - 40
    info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression,
                       len(pixels), 2835, 2835, used, 0)  # fmt: skip
    info += after.ljust(beyond, b"\0")[:beyond] if beyond else after
    if palette is not None:
        info += np.pad(palette[:, ::-1], ((0, 0), (0, 1))).astype(np.uint8).tobytes()
    start = 14 + len(info)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + info + pixels


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_with_a_palette(bits: int, top_down: bool) -> None:
    generator = np.random.default_rng(bits)
    palette = generator.integers(0, 256, (2**bits, 3))
    levels = generator.integers(0, 2**bits, (HEIGHT, WIDTH))
    assert difference(bmp(levels, bits, palette=palette, top_down=top_down), palette[levels]) == 0


@pytest.mark.parametrize("white_first", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_with_a_palette_of_black_and_white(bits: int, white_first: bool) -> None:
    palette = np.array([[0] * 3, [255] * 3])[:: -1 if white_first else 1]
    levels = np.random.default_rng(bits).integers(0, 2, (HEIGHT, WIDTH))
    assert difference(bmp(levels, bits, palette=palette, used=2), palette[levels]) == 0


@pytest.mark.parametrize("top_down", [False, True])
def test_bmp_of_true_colours(top_down: bool) -> None:
    red, green, blue, alpha = np.moveaxis(COLOURS.astype(np.int64), -1, 0)
    packed = red << 16 | green << 8 | blue
    assert difference(bmp(packed, 24, top_down=top_down), COLOURS[..., :3]) == 0
    assert difference(bmp(packed | alpha << 24, 32, top_down=top_down), COLOURS[..., :3]) == 0, (
        "its fourth byte is idle"
    )
    five = (red >> 3) << 10 | (green >> 3) << 5 | blue >> 3
    assert difference(bmp(five, 16, top_down=top_down), COLOURS[..., :3]) <= 8


def test_bmp_with_masks() -> None:
    red, green, blue, alpha = np.moveaxis(COLOURS.astype(np.int64), -1, 0)
    six = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    masks = (0xF800, 0x7E0, 0x1F)
    assert difference(bmp(six, 16, masks=masks, compression=BITFIELDS), COLOURS[..., :3]) <= 8
    whole = alpha << 24 | red << 16 | green << 8 | blue
    with_alpha = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    expected = COLOURS[..., :3] * (COLOURS[..., 3:] / 255)
    assert difference(bmp(whole, 32, masks=with_alpha, compression=BITFIELDS, header=108), expected) <= 1


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (16, (0x1F, 0x7E0, 0xF800)),
        (32, (0x3FF, 0xFFC00, 0x3FF00000)),
        (32, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000)),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        (32, (0xFF, 0xFF0000, 0xFF00)),
        (32, (0xFFFFF000, 0xF00, 0xFF)),
    ],
)
def test_bmp_with_any_masks(bits: int, masks: tuple[int, ...], top_down: bool) -> None:
    packed = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH))
    levels = [(packed & mask) / mask * 255 for mask in masks]
    expected = np.dstack(levels[:3]) * (levels[3][..., None] / 255 if len(masks) > 3 else 1)
    data = bmp(packed, bits, masks=masks, compression=BITFIELDS, header=108, top_down=top_down)
    assert difference(data, expected) <= 1
    if len(masks) == 3:
        assert difference(bmp(packed, bits, masks=masks, compression=BITFIELDS), expected) <= 1


def test_bmp_whose_alpha_is_never_set_is_opaque() -> None:
    packed = COLOURS[..., 0].astype(np.int64)
    masks = (0xFF, 0xFF, 0xFF, 0xFF000000)
    assert difference(bmp(packed, 32, masks=masks, compression=BITFIELDS, header=108), COLOURS[..., 0]) == 0


@pytest.mark.parametrize(
    "data",
    [
        bmp(np.zeros((2, 2)), 32, masks=(0xFF, 0xF0F00, 0xFF000000), compression=BITFIELDS),
        bmp(np.zeros((2, 2)), 16, masks=(0xF00, 0xF0, 0xF), compression=BITFIELDS)[:-3],
        bmp(np.zeros((2, 2), int), 8, palette=np.zeros((256, 3)), compression=RLE4),
        bmp(np.zeros((2, 2), int), 4, palette=np.zeros((16, 3)), compression=RLE8),
        bmp(np.zeros((2, 2), int), 8, palette=np.zeros((256, 3)), compression=RLE8, top_down=True),
    ],
    ids=["a mask with a gap", "missing pixels", "RLE4 of 8 bits", "RLE8 of 4 bits", "RLE8 from the top"],
)
def test_bmp_that_contradicts_itself_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedImageError, match="BMP picture is damaged or cut short"):
        seen(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bmp(np.zeros((2, 2)), 24, compression=4), "holds a JPEG"),
        (bmp(np.zeros((2, 2)), 24, compression=5), "holds a PNG"),
        (bmp(np.zeros((2, 2)), 24, compression=4, header=64), "OS/2"),
        (bmp(np.zeros((2, 2), int), 2, palette=np.zeros((4, 3))), "2 bits"),
    ],
)
def test_bmp_of_other_kinds_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"{kind}.*save it as a BMP of 24 bits"):
        seen(data)


def run_length_encoded(runs: bytes, bits: int = 8) -> bytes:
    """A BMP file of 4 x 3 pixels."""
    whole = bmp(np.zeros((3, 4), int), bits, palette=INKS, compression=RLE8 if bits == 8 else RLE4, used=16)
    return whole[: struct.unpack_from("<I", whole, 10)[0]] + runs


RUNS: dict[str, tuple[bytes, list[list[int]]]] = {
    "whole rows": (b"\4\5\0\0\4\6\0\0\4\7\0\1", [[7] * 4, [6] * 4, [5] * 4]),
    "pixels as they are": (b"\0\4\1\2\3\4\0\0\0\3\5\6\7\0\1\2\0\0\4\3\0\1", [[3] * 4, [5, 6, 7, 2], [1, 2, 3, 4]]),
    "rows that end early": (b"\2\5\0\0\0\0\1\4\0\1", [[4] + [NONE] * 3, [NONE] * 4, [5, 5, NONE, NONE]]),
    "no end": (b"\4\5\0\0\4\6\0\0\4\7", [[7] * 4, [6] * 4, [5] * 4]),
    "a move": (b"\1\5\0\2\1\1\2\6\0\1", [[NONE] * 4, [NONE, NONE, 6, 6], [5] + [NONE] * 3]),
    "rows that are too long": (b"\7\5\0\0\4\6\4\7\0\1", [[NONE] * 4, [6] * 4, [5] * 4]),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_length_encoding_shows_black_what_it_leaves_out(name: str) -> None:
    runs, levels = RUNS[name]
    expected = np.vstack([INKS, [[0] * 3]])[np.array(levels)]
    assert difference(run_length_encoded(runs), expected) == 0


def test_run_length_encoding_of_four_bits() -> None:
    runs = b"\4\x5a\0\0\0\3\x12\x30\1\x40\0\0\3\x67\0\1"
    levels = np.array([[6, 7, 6, NONE], [1, 2, 3, 4], [5, 10, 5, 10]])
    expected = np.vstack([INKS, [[0] * 3]])[levels]
    assert difference(run_length_encoded(runs, bits=4), expected) == 0


def test_run_length_encoding_cut_short_is_damage() -> None:
    for runs in (b"", b"\4", b"\4\5\0\0\4\6"):
        with pytest.raises(DamagedImageError, match="cut short"):
            seen(run_length_encoded(runs))
