"""Formats that Pillow reads as browsers do: WebP, BMP, GIF, AVIF and binary Netpbm."""

import io
from functools import partial

from PIL import Image

from imaging.modes import simplify
from imaging.orientation import apply_orientation, read_orientation, upright_size
from imaging.stored import StoredImage

GREY = {"1", "L", "LA", "I", "I;16", "I;16B"}
"""Pillow's modes without colour."""

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; `decoding.check_cost` refuses above ours.


def open_with_pillow(data: bytes, picture_format: str) -> StoredImage:
    """Read the header of a file of ``picture_format``, Pillow's name."""
    image = Image.open(io.BytesIO(data), formats=[picture_format])
    orientation = read_orientation(image.info.get("exif"))
    width, height = upright_size(*image.size, orientation)
    return StoredImage(picture_format, width, height, image.mode not in GREY, partial(load, image, orientation))


def load(image: Image.Image, orientation: int) -> Image.Image:
    """The pixels of a picture that Pillow opened."""
    image.load()
    return apply_orientation(simplify(image), orientation)
