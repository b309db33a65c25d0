"""GIF, WebP, AVIF, HEIC and Netpbm, as browsers show them."""

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, features

import imaging.formats.pillow_formats
from imaging.decoding import open_image
from imaging.errors import DamagedImageError, UnsupportedImageError
from tests.imaging.reading import MAX_PIXELS, difference, seen

HEIGHT, WIDTH = 6, 11
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
RISING = (np.add.outer(np.arange(32), np.arange(48)) * 3).astype(np.uint8)
SMOOTH = np.dstack([RISING, RISING[::-1], RISING[:, ::-1]])


def save(pixels: NDArray[np.uint8], picture_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, picture_format, **options)
    return content.getvalue()


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


@pytest.mark.parametrize("turn", TURNS)
def test_webp_that_is_turned(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    assert difference(save(SMOOTH, "WEBP", lossless=True, exif=exif), TURNS[turn]) == 0


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
    monkeypatch.setattr(imaging.formats.pillow_formats, "pillow_heif", None)
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
