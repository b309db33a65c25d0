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
from torch import Tensor

from imaging.decoding import open_image
from imaging.errors import ImageError
from imaging.preprocessing import preprocess
from training.errors import DataError
from training.recipes.recipe import Size

MAX_PIXELS, MAX_SIDE = 2**28, 2**16
"""Of a picture; the service takes fewer unless it is told otherwise."""


class Input(NamedTuple):
    """What pictures are brought to: an `imaging.preprocessing.InputSpec`."""

    height: int
    width: int
    channels: int
    background: tuple[int, ...]


def read_pictures(files: Sequence[Path], size: Size, channels: int) -> Tensor:
    """``files`` stretched to ``size`` = (height, width), read by the code that reads what the service is sent.

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
    """One picture as ``(C, H, W)`` uint8, upright, on black where it is transparent.

    Raises:
        DataError: it is not there, is no picture or is damaged.
    """
    with reporting(file):
        opened = open_image(file.read_bytes(), MAX_PIXELS, MAX_SIDE)
        return preprocess(opened, Input(*size, channels, (0,) * channels)).pixels.transpose(2, 0, 1)


@contextmanager
def reporting(file: Path) -> Iterator[None]:
    """Tell what is wrong with ``file`` as a `DataError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{file} is not there; name the folder of the pictures with --data-root") from error
    except (ImageError, OSError) as error:
        raise DataError(f"{file} cannot be read as a picture ({problem(error)}); repair or remove it") from error


def problem(error: BaseException | None) -> str:
    """What is wrong with a file, without what its sender could do about it."""
    return error.problem if isinstance(error, ImageError) else str(error)


def damage(files: Sequence[Path]) -> dict[Path, str]:
    """The ones of ``files`` that cannot be read as pictures, and why."""

    def reason(file: Path) -> str | None:
        try:
            read_picture(file, (1, 1), channels=3)
        except DataError as error:
            return problem(error.__cause__)
        return None

    with ThreadPoolExecutor() as threads:
        return {file: why for file, why in zip(files, threads.map(reason, files), strict=True) if why is not None}


class Shape(NamedTuple):
    """What the header of a picture file says."""

    width: int
    height: int
    coloured: bool


def shape(file: Path) -> Shape:
    """Width, height and colour of a picture as it is seen, after its EXIF orientation.

    Raises:
        DataError: it is not there, or is no picture.
    """
    with reporting(file):
        opened = open_image(file.read_bytes(), MAX_PIXELS, MAX_SIDE)
        return Shape(opened.width, opened.height, opened.coloured)
