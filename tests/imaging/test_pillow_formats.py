"""BMP, GIF, WebP, AVIF, HEIC and Netpbm, as browsers show them."""

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, features

import imaging.pillow_formats
from imaging.decoding import open_image
from imaging.errors import DamagedImageError, UnsupportedImageError
from tests.imaging.reading import MAX_PIXELS, difference, seen
from tests.imaging.tiffs import Layout, pack

HEIGHT, WIDTH = 6, 11
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
RISING = (np.add.outer(np.arange(32), np.arange(48)) * 3).astype(np.uint8)
SMOOTH = np.dstack([RISING, RISING[::-1], RISING[:, ::-1]])
RGB, BITFIELDS = 0, 3
ALPHA_16 = (0x7C00, 0x3E0, 0x1F, 0x8000)


def save(pixels: NDArray[np.uint8], picture_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, picture_format, **options)
    return content.getvalue()


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


def test_bmp_whose_alpha_is_zero_everywhere_is_opaque() -> None:
    red, green, blue, _ = np.moveaxis(COLOURS.astype(np.int64), -1, 0)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = bmp(red << 16 | green << 8 | blue, 32, masks=masks, compression=BITFIELDS, header=108)
    assert difference(data, COLOURS[..., :3]) == 0


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bmp(np.zeros((2, 2)), 32, masks=(0x3FF, 0xFFC00, 0x3FF00000), compression=BITFIELDS), "unusual bit masks"),
        (
            bmp(np.zeros((2, 2)), 16, masks=(0x7C00, 0x3E0, 0x1F, 0x8000), compression=BITFIELDS, header=108),
            "with alpha",
        ),
        (bmp(np.zeros((2, 2)), 24, compression=4), "holds a JPEG"),
        (bmp(np.zeros((2, 2)), 24, compression=5), "holds a PNG"),
        (bmp(np.zeros((2, 2)), 24, compression=4, header=64), "OS/2"),
        (bmp(np.zeros((2, 2), int), 2, palette=np.zeros((4, 3))), "of 2 bits"),
    ],
)
def test_bmp_of_other_kinds_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"{kind}.*save it as a BMP of 24 bits"):
        seen(data)


def gif_frame(data: bytes, left: int, top: int, width: int, height: int) -> bytes:
    """``data`` on a screen of another size, at another place."""
    position = data.index(b"\x2c\0\0\0\0")
    screen = data[:6] + struct.pack("<HH", width, height) + data[10:position]
    return screen + struct.pack("<BHH", 0x2C, left, top) + data[position + 5 :]


@pytest.mark.parametrize("transparent", [False, True])
def test_gif_is_transparent_where_its_first_frame_is_not(transparent: bool) -> None:
    picture = Image.fromarray(COLOURS[..., :3]).quantize(16)
    options = {"transparency": 3} if transparent else {}
    content = io.BytesIO()
    picture.save(content, "GIF", **options)
    inside = np.asarray(picture.convert("RGB")).copy()
    if transparent:
        inside[np.asarray(picture) == 3] = 200
    assert difference(content.getvalue(), inside, background=(200,)) == 0
    expected = np.full((HEIGHT + 5, WIDTH + 7, 3), 200)
    expected[3 : 3 + HEIGHT, 4 : 4 + WIDTH] = inside
    data = gif_frame(content.getvalue(), 4, 3, WIDTH + 7, HEIGHT + 5)
    assert difference(data, expected, background=(200,)) == 0


@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
def test_webp(lossless: bool, animated: bool) -> None:
    others = {"save_all": True, "append_images": [Image.fromarray(255 - SMOOTH)]} if animated else {}
    data = save(SMOOTH, "WEBP", lossless=lossless, quality=100, **others)
    assert difference(data, SMOOTH) <= (0 if lossless else 12)


def test_webp_with_alpha() -> None:
    data = save(COLOURS, "WEBP", lossless=True, exact=True)
    assert difference(data, COLOURS[..., :3] * (COLOURS[..., 3:] / 255)) <= 1


TURNS = {1: SMOOTH, 3: SMOOTH[::-1, ::-1], 6: np.rot90(SMOOTH, -1), 8: np.rot90(SMOOTH)}
"""What is seen of the smooth picture in some orientations."""


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
@pytest.mark.parametrize("turn", TURNS)
def test_avif(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = save(SMOOTH, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    assert difference(data, TURNS[turn]) <= 6


def heic(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    content = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(content, quality=-1, chroma=444, **options)
    return content.getvalue()


@pytest.mark.parametrize("turn", TURNS)
def test_heic(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = heic(SMOOTH, exif=exif.tobytes())
    assert difference(data, TURNS[turn]) <= 6
    opened = open_image(data, MAX_PIXELS)
    assert (opened.height, opened.width) == TURNS[turn].shape[:2]
    assert opened.coloured


def test_heic_with_alpha() -> None:
    glass = np.dstack([SMOOTH, RISING])
    assert difference(heic(glass), SMOOTH * (RISING[..., None] / 255)) <= 8


def test_heic_cut_short_is_damage() -> None:
    for part in (200, -100):
        with pytest.raises(DamagedImageError, match="HEIF"):
            seen(heic(SMOOTH)[:part])


def test_heic_without_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging.pillow_formats, "pillow_heif", None)
    with pytest.raises(UnsupportedImageError, match=r"HEIC picture.*stn-serve\[heif\].*send JPEG"):
        open_image(heic(SMOOTH), MAX_PIXELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_netpbm(dtype: type) -> None:
    scale = np.iinfo(dtype).max // 255
    header = f"P5 # a comment\n{WIDTH} {HEIGHT}\n{np.iinfo(dtype).max}\n".encode()
    grey = COLOURS[..., 0]
    levels = (grey.astype(dtype) * scale).astype(f">u{np.dtype(dtype).itemsize}")
    assert difference(header + levels.tobytes(), grey) == 0
    bits = COLOURS[..., 0] > 99
    assert difference(b"P4 %d %d\n" % (WIDTH, HEIGHT) + np.packbits(~bits, axis=1).tobytes(), bits * 255) == 0
    assert difference(b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + COLOURS[..., :3].tobytes(), COLOURS[..., :3]) == 0


def test_netpbm_of_other_levels_is_named() -> None:
    for data in (b"P5 1 1 100\n\x07", b"P6 1 1 65535\n" + bytes(6)):
        with pytest.raises(UnsupportedImageError, match="save it as PNG"):
            seen(data)
