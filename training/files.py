"""Files written atomically: to a temporary file, which is then renamed."""

import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import RunError


def write_bytes(file: Path, content: bytes | memoryview) -> None:
    """Replace ``file`` by ``content`` atomically; an interruption leaves the earlier file."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def write_text(file: Path, content: str) -> None:
    """Replace ``file`` by UTF-8 text atomically."""
    write_bytes(file, content.encode())


def write_arrays(file: Path, arrays: dict[str, Tensor]) -> None:
    """Replace ``file`` by a compressed ``.npz`` with these arrays atomically."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{name: array.numpy() for name, array in arrays.items()})
    write_bytes(file, content.getbuffer())


def read_arrays(file: Path, names: tuple[str, ...], cure: str) -> list[NDArray[Any]]:
    """Read arrays from a ``.npz`` by name.

    Raises:
        RunError: the file is missing or damaged; the message ends with ``cure``.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"cannot read {file}; {cure}") from error


def read_checkpoint(checkpoint: Path, part: str, cure: str) -> Any:
    """Read one ``part`` of a checkpoint: the weights in ``state_dict``, or the last complete ``epoch``.

    Raises:
        RunError: it cannot be read; the message ends with ``cure``.
    """
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)[part]
    except (OSError, EOFError, RuntimeError, LookupError, TypeError, pickle.UnpicklingError) as error:
        raise RunError(f"cannot read {checkpoint} ({error}); {cure}") from error
