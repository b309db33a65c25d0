"""Samples a rectified image from the uploaded picture, through the whole map of a transformer."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.format.artifact import Manifest
from imaging.crops import Crop, Shown
from imaging.encoding import FileFormat, encode
from imaging.warping import Padding, SamplingMap, warp
from service.inference.outputs import ModelOutput, Points
from service.inference.rectified.options import MAX_SIDE, RectifiedOptions
from service.inference.sampling_grid import sampling_map, within

ALPHA = 4
"""Channels of a picture with transparency."""


class RectifiedFile(NamedTuple):
    """A rectified image as a file."""

    format: FileFormat
    width: int
    height: int
    content: bytes


def encode_image(pixels: NDArray[np.uint8], file_format: FileFormat) -> RectifiedFile:
    """Encode ``(h, w, C)``."""
    height, width, _ = pixels.shape
    return RectifiedFile(file_format, width, height, encode(pixels, file_format))


def rectify(
    source: NDArray[np.uint8],
    output: ModelOutput,
    manifest: Manifest,
    index: int,
    options: RectifiedOptions,
    shown: Shown | None = None,
    is_opaque: bool = False,
) -> RectifiedFile:
    """Sample the rectified image of transformer ``index`` from ``source``, a `Picture.source`, and encode it.

    ``shown`` is what the model was shown of the source; the whole by default. ``is_opaque`` is that of the `Picture`.
    """
    height, width = source.shape[:2]
    whole = Shown(Crop(0, 0, width, height))
    shown = shown or whole
    size = image_size(output.transforms[index].theta, shown.width, shown.height, options)
    sampling = sampling_map(output, manifest, index, options.frame)
    if shown != whole:
        sampling = within(sampling, shown.to_picture(width, height))
    pixels = sample(source, sampling, size, options.padding, options.format, is_opaque)
    return encode_image(pixels, options.format)


def image_size(theta: Points, width: float, height: float, options: RectifiedOptions) -> tuple[int, int]:
    """Width and height of the rectified image of a ``width`` x ``height`` picture.

    In size ``source``, its sides have as many pixels as those of the region in the picture.
    """
    if not isinstance(options.size, str):
        return options.size[1], options.size[0]
    (a, b, _), (c, d, _) = theta
    across = min(max(1.0, options.frame * math.hypot(a * width, c * height)), MAX_SIDE)
    down = min(max(1.0, options.frame * math.hypot(b * width, d * height)), MAX_SIDE)
    scale = min(1.0, math.sqrt(options.max_pixels / (across * down)))
    sides = max(1, round(across * scale)), max(1, round(down * scale))
    longest = max(1, options.max_pixels // min(sides))  # rounding, and sides of one pixel, may exceed the limit
    return min(sides[0], longest), min(sides[1], longest)


def sample(
    source: NDArray[np.uint8],
    sampling: SamplingMap,
    size: tuple[int, int],
    padding: Padding,
    file_format: FileFormat,
    is_opaque: bool = False,
) -> NDArray[np.uint8]:
    """Sample ``source`` as grey, RGB or RGBA; JPEG files have no alpha. ``is_opaque`` is that of the `Picture`."""
    weighted = warp(source, sampling, *size, padding)
    has_alpha = source.shape[2] == ALPHA
    if has_alpha and is_opaque and (padding != "transparent" or file_format == "jpeg"):
        return np.asarray(cv2.cvtColor(weighted, cv2.COLOR_RGBA2RGB), np.uint8)
    if not has_alpha:
        if padding != "transparent" or file_format == "jpeg":
            return weighted
        everywhere = np.full((*source.shape[:2], 1), 255, np.uint8)
        alpha = warp(everywhere, sampling, *size, padding)
        weighted = np.concatenate((np.broadcast_to(weighted, (*weighted.shape[:2], 3)), alpha), axis=2)
    image = Image.frombuffer("RGBa", size, np.ascontiguousarray(weighted), "raw", "RGBa", 0, 1).convert("RGBA")
    if file_format == "jpeg":
        ground = Image.new("RGB", size, "white" if padding == "white" else "black")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    return np.asarray(image)
