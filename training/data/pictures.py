"""Picture files, brought to one size in memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from training.errors import DataError
from training.recipes.recipe import Size

WHITE_16_BIT = 65535
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""
SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""


def read_pictures(files: Sequence[Path], size: Size, channels: int) -> Tensor:
    """``files`` stretched to ``size`` = (height, width), as the service does with what it is sent.

    Returns:
        ``(N, C, H, W)`` uint8 with 1 (grey) or 3 (RGB) channels.

    Raises:
        DataError: one of them is not there, is no picture or is damaged; the message names it.
    """
    read = partial(read_picture, size=size, channels=channels)
    pixels = np.empty((len(files), channels, *size), np.uint8)
    with ThreadPoolExecutor() as threads:  # decoding and resizing let go of the interpreter
        for position, picture in enumerate(threads.map(read, files)):
            pixels[position] = picture
    return torch.from_numpy(pixels)


def read_picture(file: Path, size: Size, channels: int) -> NDArray[np.uint8]:
    """One picture as ``(C, H, W)`` uint8, turned as its EXIF orientation says, on black where it is transparent.

    Raises:
        DataError: it is not there, is no picture or is damaged.
    """
    height, width = size
    with opened(file) as stored:
        stored.load()
        picture = eight_bits(turn_upright(stored))
        if picture.has_transparency_data:
            coloured = picture.convert("RGBA")
            picture = Image.new("RGBA", coloured.size, "black")
            picture.alpha_composite(coloured)
        picture = picture.convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """``file`` as Pillow opens it; damage is told by whatever Pillow raises while it is open.

    Raises:
        DataError: it is not there, is no picture or is damaged.
    """
    try:
        with Image.open(file) as picture:
            yield picture
    except FileNotFoundError as error:
        raise DataError(f"{file} is not there; name the folder of the pictures with --data-root") from error
    except Exception as error:
        raise DataError(f"{file} cannot be read as a picture ({error}); repair or remove it") from error


def orientation(picture: Image.Image) -> int | None:
    """As EXIF data has it, if it turns the picture; EXIF data that cannot be read says nothing."""
    try:
        said = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow raises whatever parsing garbage leads to
        return None
    return said if said in UPRIGHT else None


def turn_upright(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation says it is to be seen."""
    said = orientation(picture)
    return picture if said is None else picture.transpose(UPRIGHT[said])


def eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of 16-bit grey levels as one of 8 bits; others as they are.

    Raises:
        ValueError: its levels have no agreed white.
    """
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    levels = np.asarray(picture)
    if picture.mode == "F" or levels.min() < 0 or levels.max() > WHITE_16_BIT:
        raise ValueError("its pixels are of 32 bits, which have no agreed white; convert it to 8 or 16 bits")
    return Image.fromarray(np.rint(levels * (255 / WHITE_16_BIT)).astype(np.uint8))


def damage(files: Sequence[Path]) -> dict[Path, str]:
    """Which of ``files`` cannot be read as pictures, and why."""

    def reason(file: Path) -> str | None:
        try:
            read_picture(file, (1, 1), channels=3)
        except DataError as error:
            return str(error.__cause__)
        return None

    with ThreadPoolExecutor() as threads:
        return {file: why for file, why in zip(files, threads.map(reason, files), strict=True) if why is not None}


class Shape(NamedTuple):
    """What the header of a picture file says."""

    width: int
    height: int
    coloured: bool


def shape(file: Path) -> Shape:
    """Of the picture as it is looked at, after its EXIF orientation.

    Raises:
        DataError: it is not there, or is no picture.
    """
    with opened(file) as picture:
        width, height = picture.size[::-1] if orientation(picture) in SIDEWAYS else picture.size
        return Shape(width, height, picture.mode not in ("1", "L", "LA", "I", "I;16", "F"))
