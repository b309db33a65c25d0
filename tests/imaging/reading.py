"""What `imaging` makes of a file, as plain arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.decoding import decode, open_image
from imaging.errors import UnsupportedImageError
from imaging.modes import over_background

MAX_PIXELS = 10**6


def seen(data: bytes, background: tuple[int, ...] = (0,)) -> NDArray[np.int64]:
    """``(H, W, 3)`` as a viewer shows it on ``background``."""
    opened = open_image(data, MAX_PIXELS)
    image = decode(opened)
    assert image.size == (opened.width, opened.height), "what the header says is what is decoded"
    if image.mode in ("RGBA", "RGBa"):
        image = over_background(np.asarray(image.convert("RGBA").convert("RGBa")), background)
    return np.asarray(image.convert("RGB")).astype(np.int64)


def difference(data: bytes, expected: NDArray[Any], background: tuple[int, ...] = (0,)) -> float:
    """The largest between what is seen and ``(H, W)`` or ``(H, W, 3)`` levels up to 255."""
    colours = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    shown = seen(data, background)
    assert shown.shape == colours.shape
    return float(np.abs(shown - colours).max())


def right_or_refused(data: bytes, expected: NDArray[Any], tolerance: float = 1) -> bool:
    """Whether a file is read; if it is, then right."""
    try:
        found = difference(data, expected)
    except UnsupportedImageError as error:
        assert "not taken; " in str(error)
        return False
    assert found <= tolerance
    return True


def eight(levels: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Levels of ``bits`` on the scale to 255."""
    scaled: NDArray[np.float64] = np.rint(levels.astype(float) * 255 / (2**bits - 1))
    return scaled
