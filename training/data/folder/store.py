"""Pictures that do not fit in memory: decoded once to a file, of which batches read what they need.

The file is an array of NumPy (``.npy``) with the pictures at the size of the network's input. It is built whole or not
at all, and used again by all runs that need the same pictures at the same size.
"""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
import torch
from filelock import FileLock
from torch import Tensor

from training.data.folder.shards import locate
from training.data.pictures import read_pictures
from training.errors import DataError
from training.recipes.recipe import Recipe, Size

CACHE = ".cache"
"""Folder for the files, in that of the pictures; its name is among the leftovers that are no classes."""
LARGE = 2**31
"""Bytes of decoded pictures above which they are streamed, unless the recipe decides."""
AT_ONCE = 250
"""Number of pictures that are decoded before they are written."""
LAYOUT = 1
"""Version of what is in a file; files of another one are not used."""

log = structlog.get_logger(__name__)


def is_streamed(recipe: Recipe, count: int) -> bool:
    """Return whether a data set of ``count`` pictures is streamed, as the recipe says, or else by its size."""
    if recipe.stream is not None:
        return recipe.stream
    return count * len(recipe.mean) * math.prod(recipe.canvas) > LARGE


def stream_pictures(root: Path, paths: Sequence[str], size: Size, channels: int, cache: Path | None = None) -> Tensor:
    """Return pictures as `read_pictures` does, backed by a file instead of memory.

    Args:
        root: the folder of the pictures.
        paths: their paths, relative to it.
        size: height and width.
        channels: 1 (grey) or 3 (RGB).
        cache: the folder of the file; by default `CACHE` in ``root``.

    Returns:
        ``(N, C, H, W)`` uint8; it must not be written to. The system keeps as much of it in memory as there
            is room for.

    Raises:
        DataError: a picture is missing or damaged, or the file cannot be written.
    """
    folder = cache or root / CACHE
    shape = (len(paths), channels, *size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{identity(root, paths, shape)}.npy"
        with FileLock(file.with_suffix(".lock")):
            if not is_whole(file, shape):
                build(file, root, paths, shape)
        # A mapping that could be written to would count as memory that a small machine does not have.
        mapped = np.load(file, mmap_mode="r")
    except OSError as error:
        raise DataError(
            f"the decoded pictures cannot be kept in {folder} ({error.strerror or error}); name a folder with room "
            "with --set cache=FOLDER, or set stream=false to keep them in memory"
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)


def identity(root: Path, paths: Sequence[str], shape: Sequence[int]) -> str:
    """Return a name for these pictures at this size, which changes when one of their files does."""
    found = hashlib.blake2b(json.dumps([LAYOUT, *shape]).encode(), digest_size=16)
    for path in paths:
        try:
            facts = locate(root / path).stat()
        except OSError as error:
            raise DataError(f"{root / path} cannot be read ({error.strerror}); repair or remove it") from error
        found.update(json.dumps([path, facts.st_size, facts.st_mtime_ns]).encode())
    return found.hexdigest()


def is_whole(file: Path, shape: Sequence[int]) -> bool:
    """Return whether ``file`` is an array of this shape."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(found.dtype == np.uint8 and found.shape == tuple(shape))


def build(file: Path, root: Path, paths: Sequence[str], shape: Sequence[int]) -> None:
    """Write the array to a file beside ``file``, which is then renamed.

    Raises:
        DataError: a picture is missing or damaged, or there is no room.
        OSError: it cannot be written.
    """
    _, channels, height, width = shape
    needed, free = math.prod(shape), shutil.disk_usage(file.parent).free
    if needed > free:
        raise DataError(
            f"{file.parent} has {free / 2**30:.1f} GiB left, but the decoded pictures need {needed / 2**30:.1f}; name "
            "a folder with room with --set cache=FOLDER, or lower canvas"
        )
    log.info("pictures_decoded", count=len(paths), bytes=needed, file=str(file))
    beginning = file.with_suffix(".part")
    try:
        with beginning.open("wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, len(paths), AT_ONCE):
                some = [root / path for path in paths[start : start + AT_ONCE]]
                out.write(read_pictures(some, (height, width), channels).numpy().data)
        beginning.replace(file)
    finally:
        beginning.unlink(missing_ok=True)
