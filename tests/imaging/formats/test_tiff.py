"""TIFF of every kind is read right or refused by its name; those that people have are read."""

import io
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imaging.decoding import open_image
from imaging.errors import UnsupportedImageError
from tests.imaging.formats.tiffs import (
    ASSOCIATED,
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FLOAT,
    JPEG,
    LAB,
    LZW,
    PACKBITS,
    PALETTE,
    RAW,
    RGB,
    SIGNED,
    UNASSOCIATED,
    UNSPECIFIED,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    write,
)
from tests.imaging.reading import MAX_PIXELS, difference, eight, right_or_refused, seen

HEIGHT, WIDTH = 20, 37
RISING = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 255 // (HEIGHT + WIDTH)
SMOOTH = np.dstack([RISING, RISING[::-1], RISING[:, ::-1]])


def noise(bits: int, samples: int = 1) -> NDArray[np.int64]:
    levels = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, samples))
    return levels if samples > 1 else levels[..., 0]


def grey(layout: Layout) -> NDArray[np.float64]:
    """What is seen of the noise as grey levels."""
    shown = eight(noise(layout.bits), layout.bits)
    return 255 - shown if layout.photometric == WHITE_IS_ZERO else shown


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_grey(bits: int, photometric: int) -> None:
    read = []
    for compression, order, fill, rows, planar in product((RAW, DEFLATE, LZW), "<>", (1, 2), (None, 3), (False, True)):
        layout = Layout(photometric, bits, compression, order, rows=rows, fill_order=fill, planar=planar)
        if right_or_refused(write(noise(bits), layout), grey(layout)):
            read.append(layout)
    if bits in (1, 2, 4, 8) or (bits, photometric) == (16, BLACK_IS_ZERO):
        assert {(layout.compression, layout.order) for layout in read} == set(product((RAW, DEFLATE, LZW), "<>"))


@pytest.mark.parametrize(("bits", "photometric"), [(12, BLACK_IS_ZERO), (16, BLACK_IS_ZERO), (16, WHITE_IS_ZERO)])
def test_grey_of_scanners_and_microscopes_is_read(bits: int, photometric: int) -> None:
    layout = Layout(photometric, bits)
    assert difference(write(noise(bits), layout), grey(layout)) == 0


@pytest.mark.parametrize("extra", [(), (UNSPECIFIED,), (ASSOCIATED,), (UNASSOCIATED,), (UNSPECIFIED, UNASSOCIATED)])
@pytest.mark.parametrize("bits", [8, 16])
def test_rgb(bits: int, extra: tuple[int, ...]) -> None:
    levels = noise(bits, 3 + len(extra))
    if ASSOCIATED in extra:
        levels[..., :3] = levels[..., :3] * levels[..., 3:] // (2**bits - 1)
    shown = eight(levels, bits)
    expected = shown[..., :3] * shown[..., 3:4] / 255 if UNASSOCIATED in extra[:1] else shown[..., :3]
    read = set()
    for compression, order, fill, planar, tile in product(
        (RAW, DEFLATE, LZW, PACKBITS), "<>", (1, 2), (False, True), (None, 16)
    ):
        layout = Layout(RGB, bits, compression, order, planar=planar, tile=tile, fill_order=fill, extra=extra)
        if right_or_refused(write(levels, layout), expected, tolerance=3):
            read.add((planar, tile))
    if len(extra) < 2:
        assert read == set(product((False, True), (None, 16)))


@pytest.mark.parametrize("extra", [UNSPECIFIED, ASSOCIATED, UNASSOCIATED])
def test_grey_with_alpha(extra: int) -> None:
    for photometric, bits, compression, planar in product((0, 1), (8, 16), (RAW, DEFLATE), (False, True)):
        levels = noise(bits, 2)
        if extra == ASSOCIATED:
            levels[..., 0] = levels[..., 0] * levels[..., 1] // (2**bits - 1)
        shown = eight(levels, bits)
        expected = shown[..., 0] * shown[..., 1] / 255 if extra == UNASSOCIATED else shown[..., 0]
        data = write(levels, Layout(photometric, bits, compression, planar=planar, extra=(extra,)))
        read = right_or_refused(data, expected, tolerance=2)
        assert read or (photometric, bits, planar) != (BLACK_IS_ZERO, 8, False)


@pytest.mark.parametrize("scale", [1, 257], ids=["levels of 8 bits in the palette", "levels of 16 bits in the palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette(bits: int, scale: int) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
    expected = np.moveaxis(colours[:, noise(bits)], 0, -1)
    for compression, order, planar, fill in product((RAW, LZW), "<>", (False, True), (1, 2)):
        layout = Layout(PALETTE, bits, compression, order, planar=planar, fill_order=fill)
        data = write(noise(bits), layout._replace(tags={320: (colours * scale).ravel().tolist()}))
        assert right_or_refused(data, expected, tolerance=0) or planar or fill == 2


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk(bits: int) -> None:
    levels = noise(bits, 4)
    inks = eight(levels, bits)
    expected = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    for compression, order, planar in product((RAW, LZW), "<>", (False, True)):
        data = write(levels, Layout(CMYK, bits, compression, order, planar=planar))
        assert right_or_refused(data, expected, tolerance=3) or planar
    with pytest.raises(UnsupportedImageError, match="inks"):
        seen(write(levels, Layout(CMYK, bits, tags={332: [2]})))


def test_ycbcr() -> None:
    stored = np.asarray(Image.fromarray(SMOOTH.astype(np.uint8)).convert("YCbCr"))
    for compression, planar, tile in product((RAW, LZW), (False, True), (None, 16)):
        layout = Layout(YCBCR, 8, compression, planar=planar, tile=tile)
        data = write(stored, layout._replace(tags={530: [1, 1]}))
        assert right_or_refused(data, SMOOTH, tolerance=3) or planar
        with pytest.raises(UnsupportedImageError, match="subsampled"):
            seen(write(stored, layout))


@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR])
def test_jpeg(photometric: int, tile: int | None) -> None:
    levels = (SMOOTH if photometric in (RGB, YCBCR) else RISING).astype(np.uint8)
    data = write(levels, Layout(photometric, 8, JPEG, tile=tile, tags={530: [1, 1]}))
    assert difference(data, 255 - levels if photometric == WHITE_IS_ZERO else levels) <= 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("compression", [LZW, DEFLATE])
def test_differences_instead_of_levels(bits: int, samples: int, compression: int) -> None:
    levels = noise(bits, samples)
    for order, tile, big in product("<>", (None, 16), (False, True)):
        layout = Layout(
            RGB if samples == 3 else BLACK_IS_ZERO, bits, compression, order, big=big, tile=tile, predictor=2
        )
        assert right_or_refused(write(levels, layout), eight(levels, bits)) or (big and order == ">")


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_is_upright_and_its_size_is_told_beforehand(turn: int) -> None:
    upright = noise(8)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[turn]
    for bits, photometric in product((8, 16), (WHITE_IS_ZERO, BLACK_IS_ZERO)):
        data = write(turned * (2**bits // 255), Layout(photometric, bits, orientation=turn))
        opened = open_image(data, MAX_PIXELS)
        assert (opened.width, opened.height) == (WIDTH, HEIGHT)
        assert difference(data, 255 - upright if photometric == WHITE_IS_ZERO else upright) <= 1


def test_only_the_first_page_counts() -> None:
    content = io.BytesIO()
    pages = [Image.fromarray(noise(8).astype(np.uint8)), Image.new("L", (5, 5))]
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    assert difference(content.getvalue(), noise(8)) == 0


REFUSED: dict[str, tuple[Any, Layout, str]] = {
    "signed levels of 8 bits": (noise(7), Layout(bits=8, sample_format=SIGNED), "signed integers"),
    "signed levels of 16 bits": (noise(16) - 2**15, Layout(bits=16, sample_format=SIGNED), "signed integers"),
    "levels of 32 bits": (noise(8), Layout(bits=32), "32 bits"),
    "floating-point numbers": (noise(8) / 255, Layout(bits=32, sample_format=FLOAT), "floating-point"),
    "half-precision numbers": (noise(8) / 255, Layout(bits=16, sample_format=FLOAT), "floating-point"),
    "double-precision numbers": (noise(8) / 255, Layout(bits=64, sample_format=FLOAT), "floating-point"),
    "L*a*b* colours": (noise(8, 3), Layout(LAB), r"L\*a\*b\*"),
    "the colours of a sensor": (noise(8), Layout(32803), "raw photograph"),
    "a raw photograph's thumbnail": (noise(8), Layout(tags={50706: [1]}), "raw photograph"),
    "depths that differ": (noise(8, 3), Layout(RGB, tags={258: [8, 8, 4]}), "different depths"),
    "three grey samples": (noise(8, 3), Layout(), "3 x 8 bits"),
    "old-style JPEG": (noise(8), Layout(compression=6), "old-style JPEG"),
    "JPEG 2000": (noise(8), Layout(compression=34712), "JPEG 2000"),
    "JPEG XL": (noise(8), Layout(compression=50002), "JPEG XL"),
    "BigTIFF in big-endian order": (noise(8), Layout(order=">", big=True), "BigTIFF"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_named(kind: str) -> None:
    levels, layout, name = REFUSED[kind]
    with pytest.raises(UnsupportedImageError, match=f"{name}.*not taken; s(av|end)"):
        seen(write(levels, layout))
