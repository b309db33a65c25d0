"""A picture whose header has been read, and not yet its pixels."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imaging.errors import DamagedImageError, ImageError, ImageTooLargeError

SEND_AGAIN = "send it again whole"
OUT_OF_MEMORY = re.compile(r"memory|allocat|security limit|c\+\+ exception", re.IGNORECASE)
"""Words of decoders that were refused memory and raise no `MemoryError`: libavif, libheif, libtiff, libjpeg."""
DESCRIPTION = 200
"""Characters of a decoder's own words that are passed on."""


class StoredImage(NamedTuple):
    """The facts in the header of a picture, and a function that decodes its pixels."""

    format: str
    width: int
    height: int
    """Width and height as seen, after the orientation is applied."""
    coloured: bool
    load: Callable[[], Image.Image]
    """Returns the upright picture in mode L, RGB, RGBA or RGBa; raises the errors of its decoder."""
    load_levels: Callable[[], NDArray[np.uint8] | None] = lambda: None
    """Returns the same pixels sooner, see `imaging.decoding.decode_with_levels`; None where only `load` can."""


@contextmanager
def reporting_damage(picture_format: str) -> Iterator[None]:
    """Turn what a decoder raises into an `ImageTooLargeError` if it ran out of memory, else a `DamagedImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            raise ImageTooLargeError(
                f"decoding this {picture_format} file needs more memory than it may take",
                "scale the picture down, or save it again as PNG",
            ) from error
        if isinstance(error, UnidentifiedImageError):
            problem = f"the header of the {picture_format} picture is damaged or cut short"
        else:
            reason = str(error).splitlines()[0][:DESCRIPTION] if str(error) else type(error).__name__
            problem = f"the {picture_format} picture is damaged or cut short ({reason})"
        raise DamagedImageError(problem, SEND_AGAIN) from error
