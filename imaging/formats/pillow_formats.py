"""Formats that Pillow, or a plugin for it, reads nearly as browsers do: WebP, GIF, AVIF, HEIC, binary Netpbm."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from imaging.errors import UnsupportedImageError
from imaging.formats.stored_image import StoredImage
from imaging.modes import WHITE_16_BIT, eight_bits, simplify
from imaging.orientation import apply_orientation, read_orientation, turn_levels, upright_size

try:
    import pillow_heif
except ImportError:
    pillow_heif = None  # type: ignore[assignment]  # an extra

GREY = {"1", "L", "LA", "I", "I;16", "I;16B"}
"""Pillow's modes without colour."""

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; `limits.check` refuses above ours.


def open_with_pillow(
    data: bytes, picture_format: str, decode_quickly: Callable[[], NDArray[np.uint8] | None] = lambda: None
) -> StoredImage:
    """Read the header of a file of ``picture_format``, Pillow's name.

    ``decode_quickly`` returns the pixels as stored, or None if anything is wrong with them.
    """
    image = Image.open(io.BytesIO(data), formats=[picture_format])
    orientation = read_orientation(image.info.get("exif"))

    def load() -> Image.Image:
        image.load()
        return apply_orientation(simplify(image), orientation)

    def load_levels() -> NDArray[np.uint8] | None:
        levels = decode_quickly()
        return None if levels is None else turn_levels(levels, orientation)

    size = upright_size(*image.size, orientation)
    return StoredImage(picture_format, *size, image.mode not in GREY, load, load_levels)


def open_gif(data: bytes) -> StoredImage:
    """Read the header of a GIF file; as in browsers, all that its first frame does not cover is transparent."""
    image = Image.open(io.BytesIO(data), formats=["GIF"])
    frame = image.tile[0].extents

    def load() -> Image.Image:
        image.load()
        picture = simplify(image)
        if frame is None or frame == (0, 0, *image.size):
            return picture
        screen = Image.new("RGBA", image.size)
        screen.paste(picture.crop(frame), frame)
        return screen

    return StoredImage("GIF", *image.size, image.mode not in GREY, load)


def open_avif(data: bytes) -> StoredImage:
    """Read the header of an AVIF file."""
    if not features.check("avif"):
        raise UnsupportedImageError(
            "this is an AVIF picture, which the Pillow installed here does not read", "send JPEG"
        )
    return open_with_pillow(data, "AVIF")


def open_heif(data: bytes) -> StoredImage:
    """Read the header of a HEIC or HEIF file; its container says how it is turned, and its EXIF data do not count."""
    if pillow_heif is None:
        raise UnsupportedImageError(
            "this is a HEIC picture, for which stn-serve[heif] is not installed here", "install it, or send JPEG"
        )
    try:
        file = pillow_heif.open_heif(data)
    except SyntaxError as error:
        raise UnsupportedImageError(f"this is a HEIF picture that is not read ({error})", "send JPEG") from error
    width, height = file.size

    def load() -> Image.Image:
        return simplify(file.to_pillow())

    return StoredImage("HEIF", width, height, file.mode not in GREY, load)


def open_netpbm(data: bytes) -> StoredImage:
    """Read the header of a binary Netpbm file whose levels go up to 255, or 65535 where it is grey."""
    image = Image.open(io.BytesIO(data), formats=["PPM"])
    if any(tile.codec_name != "raw" for tile in image.tile):
        raise UnsupportedImageError(
            "this is a Netpbm picture whose levels do not go up to 255, which is not taken", "save it as PNG"
        )

    def load() -> Image.Image:
        image.load()
        return Image.fromarray(eight_bits(np.asarray(image), WHITE_16_BIT)) if image.mode == "I" else simplify(image)

    return StoredImage("PPM", *image.size, image.mode not in GREY, load)
