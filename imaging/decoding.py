"""Decoding of a file to upright pixels, the same for training and the service."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.fast_decoding import PlainImage, decode_plain, open_plain
from imaging.formats.bmp import open_bmp
from imaging.formats.jpeg import open_jpeg
from imaging.formats.pillow_formats import open_avif, open_gif, open_heif, open_netpbm, open_with_pillow
from imaging.formats.png import open_png
from imaging.formats.signatures import identify
from imaging.formats.stored_image import StoredImage, reporting_damage
from imaging.formats.tiff import open_tiff
from imaging.limits.cost import Cost
from imaging.limits.limits import MAX_PIXELS, MAX_SIDE, Limits, check, examine, plain_cost

OPENERS: dict[str, Callable[[bytes], StoredImage]] = {
    "PNG": open_png,
    "JPEG": open_jpeg,
    "TIFF": open_tiff,
    "BMP": open_bmp,
    "GIF": open_gif,
    "WEBP": partial(open_with_pillow, picture_format="WEBP"),
    "AVIF": open_avif,
    "HEIF": open_heif,
    "PPM": open_netpbm,
}
"""The function that reads the header of a file, by format."""

OpenedImage = PlainImage | StoredImage


class ExaminedImage(NamedTuple):
    """A file of a known format, and the cost of decoding it, which is within the limits."""

    data: bytes
    format: str
    cost: Cost
    plain: PlainImage | None


def examine_image(data: bytes, limits: Limits) -> ExaminedImage:
    """Tell the format of ``data`` and what it costs to decode it; no decoder sees it before.

    Raises:
        DamagedImageError: it is empty.
        UnsupportedImageError: it is of a kind that is not read.
        ImageTooLargeError: it is beyond the ``limits``.
    """
    plain = open_plain(data)
    if plain is not None and plain.one_pass:
        cost = plain_cost(plain.width, plain.height, plain.channels)
        check(cost, plain.format, limits)
        return ExaminedImage(data, plain.format, cost, plain)
    picture_format = identify(data)
    return ExaminedImage(data, picture_format, examine(data, picture_format, limits), plain)


def open_examined(examined: ExaminedImage) -> OpenedImage:
    """Read the header of a file that has been examined, not yet its pixels.

    Raises:
        DamagedImageError: its header is damaged.
        UnsupportedImageError: it is of a kind that is not read.
    """
    return examined.plain or open_stored(examined.data, examined.format)


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> OpenedImage:
    """Examine ``data`` and read its header; see `examine_image` and `open_examined`."""
    return open_examined(examine_image(data, Limits(max_pixels, max_side)))


def open_stored(data: bytes, picture_format: str) -> StoredImage:
    """Read the header of a picture of any format, by the general way."""
    with reporting_damage(picture_format):
        return OPENERS[picture_format](data)


def decode(opened: OpenedImage) -> Image.Image:
    """The upright picture in mode L, RGB, RGBX (opaque), RGBA or RGBa; see `decode_with_levels`."""
    return decode_with_levels(opened)[0]


def decode_with_levels(opened: OpenedImage) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """The upright picture in mode L, RGB, RGBX (opaque), RGBA or RGBa, and the same pixels if they are at hand.

    These are ``(H, W)`` of grey, ``(H, W, 3)`` of RGB, or ``(H, W, 4)`` of RGB with 255 in the last channel, as Pillow
    stores it.

    Raises:
        DamagedImageError: the pixels are damaged or cut short.
        UnsupportedImageError: they are of a kind that has no agreed meaning.
        ImageTooLargeError: they need more memory than this process may take.
    """
    with reporting_damage(opened.format):
        levels = decode_plain(opened, opaque=True) if isinstance(opened, PlainImage) else opened.load_levels()
        if levels is not None:
            return as_image(levels), levels
        if isinstance(opened, PlainImage):
            opened = open_stored(opened.data, opened.format)  # which may know a way, and tells what is wrong
        return opened.load(), None


def as_image(levels: NDArray[np.uint8]) -> Image.Image:
    """A picture of the pixels of `decode_with_levels`, which are not copied unless they are RGB."""
    if levels.ndim == 3 and levels.shape[2] == 3:
        return Image.fromarray(levels)
    mode = "L" if levels.ndim == 2 else "RGBX"
    return Image.frombuffer(mode, levels.shape[1::-1], levels, "raw", mode, 0, 1)
