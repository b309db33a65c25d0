"""Golden pictures: a few real pictures and the model's outputs for them. ``golden.npz`` is read as untrusted input."""

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.format.errors import ArtifactError
from export.format.manifest import Manifest, Tensor

Outputs = dict[str, NDArray[Any]]
MOST_PICTURES: Final = 256
DAMAGE = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Exceptions that reading a damaged archive can raise."""
LARGEST_HEADER: Final = 4096


def pack_golden(image_name: str, images: NDArray[np.uint8], outputs: Outputs) -> bytes:
    """Return the content of ``golden.npz``; the same arrays give the same bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{image_name: images}, **outputs)
    return content.getvalue()


def unpack_golden(content: bytes, manifest: Manifest, source: str) -> tuple[NDArray[np.uint8], Outputs]:
    """Return the pictures ``(N, H, W, C)`` and the expected outputs by name.

    Raises:
        ArtifactError: it is damaged, or does not match the manifest.
    """
    tensors = [manifest.image(), *manifest.answers().values()]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = [unpack(archive, tensor) for tensor in tensors]
        check_counts(arrays)
    except DAMAGE as error:
        raise ArtifactError(f"{source} is damaged ({error}); export the model again") from error
    images, *answers = arrays
    return images, dict(zip(manifest.outputs, answers, strict=True))


def unpack(archive: zipfile.ZipFile, tensor: Tensor) -> NDArray[Any]:
    """Read one array, after checking its size and header against the manifest."""
    member = archive.getinfo(f"{tensor.name}.npy")
    picture_bytes = math.prod(tensor.shape) * np.dtype(tensor.type).itemsize
    if member.file_size > MOST_PICTURES * picture_bytes + LARGEST_HEADER:
        raise ValueError(f"{tensor.name} is too large")
    body = io.BytesIO(archive.read(member))
    if np.lib.format.read_magic(body) != (1, 0):
        raise ValueError(f"{tensor.name} has an unknown format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(body, max_header_size=LARGEST_HEADER)
    if shape[1:] != tensor.shape or dtype != np.dtype(tensor.type) or not 0 < shape[0] <= MOST_PICTURES:
        raise ValueError(f"{tensor.name} is {dtype} {shape}, not {tensor.type} {('N', *tensor.shape)}")
    body.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(body, allow_pickle=False)
    return array


def check_counts(arrays: Sequence[NDArray[Any]]) -> None:
    """Raise ValueError unless every output has one row per picture."""
    if len({len(array) for array in arrays}) != 1:
        raise ValueError("it does not have as many answers as pictures")
