"""Picture files, brought to one size in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from training.errors import DataError
from training.recipes import Size


def read_pictures(files: Sequence[Path], size: Size, channels: int) -> Tensor:
    """``files`` stretched to ``size`` = (height, width), as the service does with what it is sent.

    Returns:
        ``(N, C, H, W)`` uint8 with 1 (grey) or 3 (RGB) channels.

    Raises:
        DataError: one of them is not a picture, is damaged or cannot be read; the message names it.
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
        DataError: it is not a picture, is damaged or cannot be read.
    """
    height, width = size
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                coloured = picture.convert("RGBA")
                picture = Image.new("RGBA", coloured.size, "black")
                picture.alpha_composite(coloured)
            picture = picture.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as a picture ({error}); repair or remove it") from error
