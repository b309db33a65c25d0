"""Limits of the work that a picture may make: its file is examined before anything is decoded."""

from collections.abc import Callable
from typing import NamedTuple

from imaging.errors import ImageTooLargeError
from imaging.limits.cost import Cost, ImplausibleError
from imaging.limits.jpeg_scans import examine_jpeg
from imaging.limits.raster_headers import (
    examine_bmp,
    examine_gif,
    examine_heif,
    examine_netpbm,
    examine_png,
    examine_webp,
)
from imaging.limits.tiff_layout import examine_tiff

EXAMINERS: dict[str, Callable[[bytes], Cost]] = {
    "JPEG": examine_jpeg,
    "PNG": examine_png,
    "GIF": examine_gif,
    "BMP": examine_bmp,
    "WEBP": examine_webp,
    "TIFF": examine_tiff,
    "PPM": examine_netpbm,
    "HEIF": examine_heif,
    "AVIF": examine_heif,
}
"""The examiner of each format, by Pillow's name of it."""

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
PIXEL_BYTES = 24
"""The most that a pixel of an ordinary picture takes on its way to a model's input: a 16-bit PNG's with tRNS."""
PIXEL_S = 100e-9
"""The most work for a pixel of an ordinary picture: a HEIC's, or that of a progressive JPEG of many scans."""
SPARE_BYTES = 64 * 2**20
"""Memory allowed on top, for the same reason as `SPARE_S`."""
PLAIN_SAMPLE_S = 8e-9
SAVE_AGAIN = "scale it down, or open it in an image editor and save it again as PNG or baseline JPEG"
SPARE_S = 1.0
"""Work allowed on top, so that a small limit of pixels leaves room for tiles and metadata."""


class Limits(NamedTuple):
    """The largest size of a picture."""

    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE

    @property
    def max_bytes(self) -> int:
        """Memory that decoding may take, by which the largest ordinary picture has room."""
        return self.max_pixels * PIXEL_BYTES + SPARE_BYTES

    @property
    def max_seconds(self) -> float:
        """Work that decoding may make, by which the largest ordinary picture has time."""
        return self.max_pixels * PIXEL_S + SPARE_S


def examine(data: bytes, picture_format: str, limits: Limits) -> Cost:
    """The cost of decoding ``data``, a file of ``picture_format``.

    Raises:
        ImageTooLargeError: it is beyond the ``limits``.
    """
    try:
        cost = EXAMINERS[picture_format](data)
    except ImplausibleError as error:
        raise ImageTooLargeError(f"the {picture_format} file has {error}", SAVE_AGAIN) from None
    check(cost, picture_format, limits)
    return cost


def plain_cost(width: int, height: int, channels: int) -> Cost:
    """The cost of a picture without metadata whose pixels are decoded in one pass."""
    pixels = width * height
    return Cost(width, height, pixels * (8 if channels == 1 else 12), pixels * channels * PLAIN_SAMPLE_S)


def check(cost: Cost, picture_format: str, limits: Limits) -> None:
    """Refuse a picture that costs too much.

    Raises:
        ImageTooLargeError: it is beyond the ``limits``.
    """
    if cost.width > limits.max_side or cost.height > limits.max_side:
        raise ImageTooLargeError(
            f"the picture has {cost.size}, at most {limits.max_side} are taken on each side (max_side)", "scale it down"
        )
    if cost.pixels > limits.max_pixels:
        raise ImageTooLargeError(
            f"the picture has {cost.size}, at most {limits.max_pixels} are taken (max_pixels)", "scale it down"
        )
    if cost.bytes > limits.max_bytes:
        raise ImageTooLargeError(
            f"decoding this {picture_format} file of {cost.size} takes about {cost.bytes >> 20} MiB{cost.because}, "
            f"at most {limits.max_bytes >> 20} MiB are spent (a consequence of max_pixels)",
            SAVE_AGAIN,
        )
    if cost.seconds > limits.max_seconds:
        raise ImageTooLargeError(
            f"decoding this {picture_format} file of {cost.size} takes about {cost.seconds:.1f} s of work"
            f"{cost.because}, at most {limits.max_seconds:.1f} s are spent (a consequence of max_pixels)",
            SAVE_AGAIN,
        )
