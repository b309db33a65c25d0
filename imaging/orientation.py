"""EXIF orientations: how a picture is turned to be seen upright."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns a picture of each orientation upright; 1 is upright already."""
SIDEWAYS = {5, 6, 7, 8}
"""Orientations that exchange width and height."""
HALF_TURN = -1
"""OpenCV's code for a flip in both directions."""


def read_orientation(exif: bytes | None) -> int:
    """The orientation in EXIF data; data that cannot be read turns nothing, as in browsers."""
    if not exif:
        return 1
    entries = Image.Exif()
    try:
        entries.load(exif)
        orientation = entries.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow raises whatever parsing garbage leads to
        return 1
    return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) of a picture stored in ``orientation``, as it is seen."""
    return (height, width) if orientation in SIDEWAYS else (width, height)


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is seen; not copied if it is upright."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def turn_levels(levels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """`apply_orientation` for an array ``(H, W)`` or ``(H, W, C)``, by OpenCV, which is faster."""
    if orientation == 6:
        return np.asarray(cv2.rotate(levels, cv2.ROTATE_90_CLOCKWISE), np.uint8)
    if orientation == 8:
        return np.asarray(cv2.rotate(levels, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)
    turned = cv2.transpose(levels) if orientation in SIDEWAYS else levels
    flips = {2: 1, 3: HALF_TURN, 4: 0, 7: HALF_TURN}
    return np.asarray(cv2.flip(turned, flips[orientation]) if orientation in flips else turned, np.uint8)
