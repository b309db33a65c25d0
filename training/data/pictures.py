"""Read pictures, from files or from shards, and resize them to one size."""

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
from training.data.folder.shards import Member, locate
from training.errors import DataError
from training.recipes.recipe import Size

MAX_PIXELS, MAX_SIDE = 2**28, 2**16
"""Limits of a picture; the service's default limits are lower."""


class Input(NamedTuple):
    """The format to which pictures are converted: an `imaging.preprocessing.InputSpec`."""

    height: int
    width: int
    channels: int
    background: tuple[int, ...]


def read_pictures(files: Sequence[Path], size: Size, channels: int) -> Tensor:
    """Read ``files`` and resize them to ``size`` = (height, width), with the same code as the service.

    Returns:
        ``(N, C, H, W)`` uint8 with 1 (grey) or 3 (RGB) channels.

    Raises:
        DataError: a file is missing, damaged or not a picture; the message names it.
    """
    read = partial(read_picture, size=size, channels=channels)
    pixels = np.empty((len(files), channels, *size), np.uint8)
    with ThreadPoolExecutor() as threads:  # decoding and resizing release the interpreter lock
        for position, picture in enumerate(threads.map(read, map(locate, files))):
            pixels[position] = picture
    return torch.from_numpy(pixels)


def read_picture(file: Path | Member, size: Size, channels: int) -> NDArray[np.uint8]:
    """Read one picture as ``(C, H, W)`` uint8, with its EXIF orientation applied, on black if it is transparent.

    Raises:
        DataError: it is missing, damaged or not a picture.
    """
    with reporting(file):
        opened = open_image(file.read_bytes(), MAX_PIXELS, MAX_SIDE)
        return preprocess(opened, Input(*size, channels, (0,) * channels)).pixels.transpose(2, 0, 1)


@contextmanager
def reporting(file: Path | Member) -> Iterator[None]:
    """Convert errors from reading ``file`` to a `DataError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist; name the folder of the pictures with --data-root") from error
    except (ImageError, OSError) as error:
        raise DataError(f"{file} cannot be read as a picture ({problem(error)}); repair or remove it") from error


def problem(error: BaseException | None) -> str:
    """Return what is wrong with a file, without the advice for clients of the service."""
    return error.problem if isinstance(error, ImageError) else str(error)


def damage(files: Sequence[Path]) -> dict[Path, str]:
    """Return the files that cannot be read as pictures, and the reasons."""

    def reason(file: Path | Member) -> str | None:
        try:
            read_picture(file, (1, 1), channels=3)
        except DataError as error:
            return problem(error.__cause__)
        return None

    with ThreadPoolExecutor() as threads:
        reasons = threads.map(reason, map(locate, files))
        return {file: why for file, why in zip(files, reasons, strict=True) if why is not None}


class Shape(NamedTuple):
    """Size and colour of a picture, from its file's header."""

    width: int
    height: int
    coloured: bool


def shape(file: Path) -> Shape:
    """Read size and colour of a picture, with its EXIF orientation applied.

    Raises:
        DataError: it is missing or not a picture.
    """
    with reporting(file):
        opened = open_image(locate(file).read_bytes(), MAX_PIXELS, MAX_SIDE)
        return Shape(opened.width, opened.height, opened.coloured)
