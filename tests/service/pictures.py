"""Pictures to send, made from the digits that are bundled with the model, and what comes back as arrays."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.format.artifact import read_artifact, versions
from tests.conftest import REPOSITORY

Grey = NDArray[np.uint8]
"""``(H, W)``."""

DIGIT_MODEL = REPOSITORY / "models" / "digits"
VERSION = versions(DIGIT_MODEL)[-1]
"""The version that answers unless another is asked for."""
ARTIFACT = read_artifact(DIGIT_MODEL / str(VERSION))
MANIFEST = ARTIFACT.manifest
TRANSFORM = MANIFEST.transforms[0]
WIDTH, HEIGHT = MANIFEST.input.width, MANIFEST.input.height
GOLDEN_PICTURES, GOLDEN_ANSWERS = ARTIFACT.golden()
DIGITS: list[Grey] = [picture[..., 0] for picture in GOLDEN_PICTURES]

Answer = dict[str, Any]


def save(image: Image.Image, picture_format: str, **options: Any) -> bytes:
    """``image`` as a file."""
    content = io.BytesIO()
    image.save(content, picture_format, **options)
    return content.getvalue()


def encode(pixels: NDArray[Any], picture_format: str = "PNG", **options: Any) -> bytes:
    """``(H, W)`` or ``(H, W, C)`` as a file."""
    return save(Image.fromarray(pixels), picture_format, **options)


def noise(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Grey:
    """A picture that is like no other."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def drawing(width: int, height: int) -> NDArray[np.uint8]:
    """A digit in colours that differ from corner to corner, so that neither turning nor mirroring goes unseen."""
    digit = np.asarray(Image.fromarray(DIGITS[0]).resize((width, height))) / 255  # (H, W)
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    paper = np.stack(np.broadcast_arrays(90 * right, 70 * down, 60 * (1 - right) * down), axis=-1)  # (H, W, 3)
    ink = np.array([160.0, 140.0, 190.0])
    coloured: NDArray[np.uint8] = np.rint(np.clip(paper + digit[..., None] * ink, 0, 255)).astype(np.uint8)
    return coloured


def read(rectified: Answer) -> Grey:
    """The pixels of a rectified image as the service sends it."""
    with Image.open(io.BytesIO(base64.b64decode(rectified["data"], validate=True))) as image:
        assert image.format == rectified["format"].upper()
        assert image.size == (rectified["width"], rectified["height"])
        pixels: Grey = np.asarray(image)
        return pixels


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest of all elements."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
