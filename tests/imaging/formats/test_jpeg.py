"""JPEG of every process and depth."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imaging.decoding import decode, open_image
from imaging.errors import DamagedImageError, UnsupportedImageError
from tests.imaging.reading import MAX_PIXELS, difference, eight

HEIGHT, WIDTH = 24, 40
RISING = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) / (HEIGHT + WIDTH - 2)
COLOURS = np.dstack([RISING, RISING[::-1], RISING[:, ::-1]])


def levels(shape: NDArray[np.float64], bits: int) -> NDArray[np.uint16]:
    return np.ascontiguousarray(np.rint(shape * (2**bits - 1))).astype(np.uint16 if bits > 8 else np.uint8)


def encode(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, **options))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


@pytest.mark.parametrize("shape", [RISING, COLOURS], ids=["grey", "colour"])
def test_12_bits(shape: NDArray[np.float64]) -> None:
    written = levels(shape, 12)
    data = encode(written, bitspersample=12, subsampling="444")
    assert difference(data, eight(written, 12)) <= 2


@pytest.mark.parametrize("bits", [7, 8, 12, 16])
@pytest.mark.parametrize("shape", [RISING, COLOURS], ids=["grey", "colour"])
def test_lossless(shape: NDArray[np.float64], bits: int) -> None:
    written = levels(shape, bits)
    data = encode(written, lossless=True, bitspersample=bits, outcolorspace="rgb")
    assert difference(data, eight(written, bits)) <= 1


def test_12_bits_turned_by_exif_data() -> None:
    written = levels(RISING, 12)
    data = encode(written, bitspersample=12)
    exif = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + bytes(4))
    assert difference(data[:2] + exif + data[2:], eight(np.rot90(written, -1), 12)) <= 1


def test_12_bits_cut_short_are_damage() -> None:
    data = encode(levels(RISING, 12), bitspersample=12)
    with pytest.raises(DamagedImageError, match="cut short"):
        open_image(data[: len(data) // 2], MAX_PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_and_ycck_as_adobe_writes_them(progressive: bool) -> None:
    inks = Image.fromarray(levels(COLOURS, 8)).convert("CMYK")
    content = io.BytesIO()
    inks.save(content, "JPEG", quality=100, subsampling=0, progressive=progressive)
    expected = np.asarray(inks.convert("RGB"))
    assert difference(content.getvalue(), expected) <= 3
    stored = 255 - np.asarray(inks)
    data = encode(stored, colorspace="cmyk", outcolorspace="ycck")
    assert difference(data, expected) <= 10


def test_rgb_and_ycbcr_are_told_by_the_adobe_marker() -> None:
    written = levels(COLOURS, 8)
    data = encode(written, colorspace="rgb", outcolorspace="rgb")
    assert b"Adobe" in data
    assert difference(data, written) <= 3


@pytest.mark.parametrize(
    ("marker", "precision", "components", "kind"),
    [
        (0xC5, 8, 3, "hierarchical"),
        (0xCE, 8, 1, "hierarchical"),
        (0xCB, 8, 1, "arithmetic"),
        (0xF7, 8, 1, "JPEG-LS"),
        (0xC0, 8, 2, "2 components"),
        (0xC1, 12, 4, "4 components of 12 bits"),
    ],
)
def test_other_processes_are_named(marker: int, precision: int, components: int, kind: str) -> None:
    frame = struct.pack(">BHHB", precision, 8, 8, components) + b"\1\x11\0" * components
    with pytest.raises(UnsupportedImageError, match=f"{kind}.*send it as a JPEG of 8 bits"):
        decode(open_image(b"\xff\xd8" + segment(marker, frame) + b"\xff\xd9", MAX_PIXELS))
