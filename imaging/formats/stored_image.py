"""A picture whose header has been read, and not yet its pixels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from imaging.errors import DamagedImageError, ImageError, ImageTooLargeError

SEND_AGAIN = "send it again whole"
DESCRIPTION = 200
"""Characters of a decoder's own words that are passed on."""


class StoredImage(NamedTuple):
    """What the header of a picture says, and the way to its pixels."""

    format: str
    width: int
    height: int
    """As it is seen, after its orientation."""
    coloured: bool
    load: Callable[[], Image.Image]
    """Gives the upright picture in mode L, RGB, RGBA or RGBa; may raise whatever the decoder raises."""


@contextmanager
def reporting_damage(picture_format: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DamagedImageError`, but for a lack of memory."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(
            f"decoding this {picture_format} file needs more memory than it may take", "save it again as PNG"
        ) from error
    except UnidentifiedImageError as error:
        raise DamagedImageError(
            f"the header of the {picture_format} picture is damaged or cut short", SEND_AGAIN
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0][:DESCRIPTION] if str(error) else type(error).__name__
        raise DamagedImageError(
            f"the {picture_format} picture is damaged or cut short ({reason})", SEND_AGAIN
        ) from error
