"""For every kind of picture: what the service says it did to it is what is seen in the rectified image.

Decoding, fitting, sampling and scaling are done again here, by other means than the service's.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Service
from tests.service.answers import predict
from tests.service.pictures import DIGITS, HEIGHT, WIDTH, Grey, difference, drawing, encode, noise, read, save

COLOUR = drawing(60, 48)
GREY = np.asarray(Image.fromarray(COLOUR).convert("L"))
WIDE = GREY.astype(np.uint16) * 251 + 13  # levels that are no multiples of 257
GLASS = np.dstack([COLOUR, np.broadcast_to(np.linspace(0, 255, 60), (48, 60)).astype(np.uint8)])
GREY_GLASS = np.dstack([GREY, GLASS[..., 3]])
INKS = Image.fromarray(COLOUR).convert("CMYK")
ORIENTATION = 0x0112

TURN: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""From the upright picture to the pixels that are stored, by EXIF orientation."""


def palette(transparent: int | bytes | None = None) -> bytes:
    image = Image.fromarray(COLOUR).quantize(32)
    return save(image, "PNG") if transparent is None else save(image, "PNG", transparency=transparent)


def animation(picture_format: str, **options: Any) -> bytes:
    others = [Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR[::-1])]
    return save(Image.fromarray(COLOUR), picture_format, save_all=True, append_images=others, **options)


KINDS: dict[str, bytes] = {
    "PNG 1-bit": save(Image.fromarray(GREY).convert("1"), "PNG"),
    "PNG grey": encode(GREY),
    "PNG grey with a transparent level": encode(GREY // 32 * 32, transparency=64),
    "PNG palette": palette(),
    "PNG palette with a transparent colour": palette(5),
    "PNG palette with half transparent colours": palette(bytes(range(0, 256, 8))),
    "PNG grey and alpha": encode(GREY_GLASS),
    "PNG RGB": encode(COLOUR),
    "PNG RGB with a transparent colour": encode(COLOUR, transparency=tuple(COLOUR[30, 40].tolist())),
    "PNG RGBA": encode(GLASS),
    "PNG 16-bit grey": encode(WIDE),
    "JPEG grey": encode(GREY, "JPEG"),
    "JPEG RGB": encode(COLOUR, "JPEG"),
    "JPEG progressive": encode(COLOUR, "JPEG", progressive=True),
    "JPEG CMYK": save(INKS, "JPEG"),
    "WebP lossless": encode(COLOUR, "WEBP", lossless=True),
    "WebP lossy": encode(COLOUR, "WEBP"),
    "WebP RGBA": encode(GLASS, "WEBP", lossless=True, exact=True),
    "WebP animated": animation("WEBP", lossless=True),
    "BMP 1-bit": save(Image.fromarray(GREY).convert("1"), "BMP"),
    "BMP grey": encode(GREY, "BMP"),
    "BMP palette": save(Image.fromarray(COLOUR).quantize(32), "BMP"),
    "BMP RGB": encode(COLOUR, "BMP"),
    "BMP RGBA": encode(GLASS, "BMP"),
    "GIF": encode(COLOUR, "GIF"),
    "GIF with a transparent colour": save(Image.fromarray(COLOUR).quantize(16), "GIF", transparency=3),
    "GIF animated": animation("GIF"),
    "TIFF 1-bit": save(Image.fromarray(GREY).convert("1"), "TIFF"),
    "TIFF grey": encode(GREY, "TIFF"),
    "TIFF RGB": encode(COLOUR, "TIFF"),
    "TIFF RGBA": encode(GLASS, "TIFF"),
    "TIFF 16-bit grey": encode(WIDE, "TIFF"),
    "TIFF 16-bit grey big-endian": save(Image.fromarray(WIDE.astype(">u2")), "TIFF"),
    "TIFF CMYK": save(INKS, "TIFF"),
    "TIFF LZW": encode(COLOUR, "TIFF", compression="tiff_lzw"),
    "TIFF deflated": encode(GREY, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF of several pages": animation("TIFF"),
    "1 x 1": encode(COLOUR[30:31, 40:41]),
    "1 x 1 JPEG": encode(COLOUR[30:31, 40:41], "JPEG"),
    "7 x 301": encode(drawing(7, 301)),
    "301 x 7": encode(drawing(301, 7)),
    "300 x 200": encode(drawing(300, 200)),
    "300 x 200 BMP": encode(drawing(300, 200), "BMP"),
    "1200 x 800": encode(drawing(1200, 800), "JPEG"),
    "of the model's size": encode(noise(1)),
}


def grey_levels(content: bytes) -> NDArray[np.float64]:
    """The first frame as grey levels over black: ``(H, W)``."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.mode.startswith("I;16"):
            return np.asarray(image) / 257
        if image.mode == "CMYK":
            inks = 255 - np.asarray(image).astype(float)
            return luma(inks[..., :3] * inks[..., 3:] / 255)
        pixels = np.asarray(image.convert("RGBA")).astype(float)  # (H, W, 4)
    return luma(pixels[..., :3] * pixels[..., 3:] / 255)


def luma(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R 601: ``(H, W, 3)`` -> ``(H, W)``."""
    return np.tensordot(colours, [0.299, 0.587, 0.114], axes=1)


def fit(picture: NDArray[np.float64]) -> Grey:
    """``picture`` as the model sees it."""
    levels = Image.fromarray(np.rint(picture).astype(np.uint8))
    return np.asarray(levels.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def sample(picture: NDArray[Any], theta: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """What theta cuts out of ``picture``, bilinear between pixel centres, zero outside: ``(height, width)``."""
    columns = (2 * np.arange(width) + 1) / width - 1
    rows = (2 * np.arange(height) + 1) / height - 1
    x, y = np.meshgrid(columns, rows)
    at_x, at_y = np.tensordot(theta, np.stack([x, y, np.ones_like(x)]), axes=1)
    in_height, in_width = picture.shape
    at_column = ((at_x + 1) * in_width - 1) / 2
    at_row = ((at_y + 1) * in_height - 1) / 2
    left, top = np.floor(at_column).astype(int), np.floor(at_row).astype(int)
    sampled = np.zeros((height, width))
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < in_height) & (column >= 0) & (column < in_width)
            weight = np.maximum(0, 1 - np.abs(at_row - row)) * np.maximum(0, 1 - np.abs(at_column - column))
            level = picture[np.clip(row, 0, in_height - 1), np.clip(column, 0, in_width - 1)]
            sampled += np.where(inside, weight * level, 0)
    return sampled


@pytest.mark.parametrize("kind", KINDS)
def test_theta_corners_and_the_rectified_image_agree_on(server: Service, kind: str) -> None:
    answer = predict(server, KINDS[kind])
    picture = grey_levels(KINDS[kind])
    theta = np.array(answer["theta"])
    rectified = read(answer["rectified"])
    assert difference(sample(fit(picture), theta, *rectified.shape[::-1]), rectified) <= 2
    height, width = picture.shape
    borders = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    expected = [((x + 1) / 2 * width, (y + 1) / 2 * height) for x, y in borders @ theta.T]
    assert difference(np.array(answer["corners"]), np.array(expected)) < 1e-6 * max(width, height)


@pytest.mark.parametrize("turn", TURN)
@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_picture_is_answered_like_the_upright_one(server: Service, picture_format: str, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    stored = Image.fromarray(np.ascontiguousarray(TURN[turn](COLOUR)))
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    content = save(stored, picture_format, exif=exif.tobytes(), **options.get(picture_format, {}))
    found, expected = predict(server, content), predict(server, encode(COLOUR))
    lossy = picture_format == "JPEG"
    assert np.abs(read(found["rectified"]).astype(float) - read(expected["rectified"])).mean() <= (3 if lossy else 0)
    assert difference(np.array(found["corners"]), np.array(expected["corners"])) <= (0.5 if lossy else 0)


TRANSPARENT = 77
DIGIT = np.where(DIGITS[1] == TRANSPARENT, TRANSPARENT + 1, DIGITS[1])
SAME: dict[str, bytes] = {
    "RGB": encode(np.dstack([DIGIT] * 3)),
    "RGBA": encode(np.dstack([DIGIT] * 3 + [np.full_like(DIGIT, 255)])),
    "grey and alpha": encode(np.dstack([DIGIT, np.full_like(DIGIT, 255)])),
    "16-bit": encode(DIGIT.astype(np.uint16) * 257),
    "palette": save(Image.fromarray(DIGIT).convert("P"), "PNG"),
    "palette with an unused transparent colour": save(
        Image.fromarray(DIGIT).convert("P"), "PNG", transparency=TRANSPARENT
    ),
    "BMP": encode(DIGIT, "BMP"),
    "GIF": encode(DIGIT, "GIF"),
    "TIFF": encode(DIGIT, "TIFF"),
    "TIFF LZW": encode(DIGIT, "TIFF", compression="tiff_lzw"),
    "TIFF 16-bit": encode(DIGIT.astype(np.uint16) * 257, "TIFF"),
    "WebP": encode(np.dstack([DIGIT] * 3), "WEBP", lossless=True),
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_pixels_get_the_same_answer_as(server: Service, form: str) -> None:
    found, expected = (predict(server, content, top_k=1000) for content in (SAME[form], encode(DIGIT)))
    assert [p["label"] for p in found["predictions"]] == [p["label"] for p in expected["predictions"]]
    for one, other in zip(found["predictions"], expected["predictions"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert difference(np.array(found["theta"]), np.array(expected["theta"])) < 1e-5
    assert difference(read(found["rectified"]), read(expected["rectified"])) <= 1


def test_only_the_first_frame_of_an_animation_counts(server: Service) -> None:
    still = predict(server, encode(COLOUR, "WEBP", lossless=True))
    for moving in (animation("WEBP", lossless=True), animation("TIFF")):
        assert predict(server, moving)["rectified"] == still["rectified"]


def test_what_is_transparent_shows_the_black_background(server: Service) -> None:
    see_through = np.dstack([np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20), np.uint8)])
    assert not read(predict(server, encode(see_through))["rectified"]).any()
