"""Depths, colour models and transparency, brought to 8 bits of grey or RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.errors import UnsupportedImageError

SIMPLE = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBa"} | dict.fromkeys(
    ("P", "CMYK", "YCbCr", "RGBX"), "RGB"
)
"""The mode that pictures of each of Pillow's modes are brought to ("RGBa": RGB weighted by alpha)."""
WHITE_16_BIT = 2**16 - 1
ROWS = 64
"""Rows of a picture that are converted in one go."""


def simplify(image: Image.Image) -> Image.Image:
    """A decoded picture in one of the modes L, RGB, RGBA and RGBa.

    Raises:
        UnsupportedImageError: its levels have no agreed black and white.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray(eight_bits(np.asarray(image), WHITE_16_BIT))
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    mode = SIMPLE.get(image.mode)
    if mode is None:
        raise UnsupportedImageError(
            f"this is a picture of mode {image.mode}, which is not taken", "save it as 8-bit grey or RGB"
        )
    if mode in ("L", "RGB") and image.has_transparency_data:
        mode = "RGBA"
    return as_mode(image, mode)


def eight_bits(levels: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Levels from 0 to ``white`` as the nearest ones from 0 to 255."""
    shown = np.empty(levels.shape, np.uint8)
    for start in range(0, len(levels), ROWS):  # of a large picture at once it would take four times its memory
        wide = levels[start : start + ROWS].astype(np.uint32)
        wide *= 255
        wide += white // 2
        wide //= white
        shown[start : start + ROWS] = np.minimum(wide, 255, out=wide)
    return shown


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode``; not copied if it is in it already."""
    return image if image.mode == mode else image.convert(mode)


def as_channels(image: Image.Image, channels: int) -> Image.Image:
    """A picture of mode L or RGB with one channel (grey, ITU-R 601) or three."""
    return as_mode(image, "L" if channels == 1 else "RGB")


def over_background(weighted: NDArray[np.uint8], background: tuple[int, ...]) -> Image.Image:
    """``(H, W, 4)``, colours weighted by alpha and alpha, as an RGB picture on ``background``: one level or three."""
    colour = np.array(background * (3 // len(background)))
    seen = weighted[..., :3] + colour * (1 - weighted[..., 3:] / 255)
    return Image.fromarray(np.rint(seen).clip(0, 255).astype(np.uint8))
