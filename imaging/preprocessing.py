"""Conversion of an opened picture to the pixels that a network takes."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imaging.crops import Box, Crop, Shown, find_crops
from imaging.decoding import OpenedImage, decode_with_levels
from imaging.fast_decoding import PlainImage, decode_plain
from imaging.formats.stored_image import reporting_damage
from imaging.modes import as_channels, as_mode, over_background
from imaging.warping import SamplingMap, apply_affine, warp

RGB = 3
ALPHA = 4
"""Channels of a picture with transparency."""
REDUCING_GAP = 8
"""Least size of a reduced picture, in those of the result; see `resize`."""
TRANSPARENT = ("RGBA", "RGBa")
"""Modes of pictures with transparency."""


class InputSpec(Protocol):
    """The input of a network."""

    @property
    def height(self) -> int:
        """Rows of pixels."""

    @property
    def width(self) -> int:
        """Columns of pixels."""

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""

    @property
    def background(self) -> tuple[int, ...]:
        """The level of each channel that shows where a picture is transparent."""


class Picture(NamedTuple):
    """A picture as a network takes it."""

    pixels: NDArray[np.uint8]
    """``(H, W, C)``."""
    width: int
    height: int
    """Width and height of the whole picture as seen, in its own pixels."""
    source: NDArray[np.uint8] | None = None
    """The whole picture, if it was kept: ``(H, W, C)`` of grey, RGB, or RGB weighted by alpha with alpha."""
    crop: Crop | None = None
    """The part of it that ``pixels`` show, unless they show all of it."""
    turn: float = 0.0
    """Degrees by which ``pixels`` are turned back, see `Shown`."""
    is_opaque: bool = True
    """Whether the alpha of ``source``, if it has any, is 255 everywhere."""

    @property
    def shown(self) -> Shown:
        """What ``pixels`` show."""
        return Shown(self.crop or Crop(0, 0, self.width, self.height), self.turn)


def preprocess(opened: OpenedImage, spec: InputSpec, keep: bool = False) -> Picture:
    """Decode an opened picture and stretch it to what a network takes, on its background where it is transparent.

    ``keep`` keeps the whole picture too.

    Raises:
        DamagedImageError: the pixels are damaged or cut short.
        UnsupportedImageError: they are of a kind that has no agreed meaning.
        ImageTooLargeError: they need more memory than this process may take.
    """
    shape = spec.height, spec.width, spec.channels
    if not keep and isinstance(opened, PlainImage) and (opened.height, opened.width, opened.channels) == shape:
        levels = decode_plain(opened)
        if levels is not None:
            return Picture(levels.reshape(shape), opened.width, opened.height)
    with reporting_damage(opened.format):
        image, levels = decode_with_levels(opened)
        pixels = np.asarray(fit(image, spec)).reshape(shape)
        source = whole(image, levels) if keep else None
        return Picture(pixels, image.width, image.height, source, is_opaque=image.mode not in TRANSPARENT)


def preprocess_crops(
    opened: OpenedImage, spec: InputSpec, boxes: Sequence[Box], max_pixels: int, keep: bool = False, turn: float = 0.0
) -> list[Picture]:
    """Decode an opened picture once, and convert each of ``boxes`` of it as `preprocess` would convert a picture.

    Without boxes, the whole picture is converted. The boxes may have ``max_pixels`` together. ``keep`` keeps the whole
    picture too, which all results share. Each part is turned back by ``turn`` degrees, see `Shown`.

    Raises:
        ImageError: see `preprocess` and `find_crops`.
    """
    with reporting_damage(opened.format):
        image, levels = decode_with_levels(opened)
        width, height = image.size
        is_opaque = image.mode not in TRANSPARENT
        crops: list[Crop | None] = [*find_crops(boxes, width, height, max_pixels)] if boxes else [None]
        source = whole(image, levels) if keep else None
        shape = spec.height, spec.width, spec.channels
        found = []
        for crop in crops:
            part = image if crop is None else image.crop(crop)
            pixels = fit(part, spec) if not turn else fit_upright(part, spec, turn)
            found.append(Picture(np.asarray(pixels).reshape(shape), width, height, source, crop, turn, is_opaque))
        return found


def whole(image: Image.Image, levels: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A decoded picture as `Picture.source`; ``levels`` are its pixels, see `decode_with_levels`."""
    found = np.asarray(as_mode(image, "RGBa") if image.mode == "RGBA" else image) if levels is None else levels
    return found.reshape(image.height, image.width, -1)


def fit(image: Image.Image, spec: InputSpec) -> Image.Image:
    """A picture of mode L, RGB, RGBX, RGBA or RGBa as the network takes it."""
    size = spec.width, spec.height
    if image.mode not in TRANSPARENT:
        ready = image if spec.channels == RGB else as_channels(image, spec.channels)  # fewer pixels are left to convert
        return as_channels(resize(ready, size), spec.channels)
    # With colours already weighted by alpha, resizing first comes to the same and needs a third of the memory.
    weighted = resize(as_mode(image, "RGBa"), size)
    return as_channels(over_background(np.asarray(weighted), spec.background), spec.channels)


def fit_upright(image: Image.Image, spec: InputSpec, turn: float) -> Image.Image:
    """`fit` for a picture that is turned back by ``turn`` degrees, see `Shown`. Its border goes on outside of it."""
    matrix = Shown(Crop(0, 0, *image.size), turn).to_crop()
    sampling = SamplingMap(partial(apply_affine, matrix[:2]), matrix)
    pixels = warp(whole(image, None), sampling, spec.width, spec.height, "edge")
    if pixels.shape[2] == ALPHA:
        return as_channels(over_background(pixels, spec.background), spec.channels)
    return as_channels(Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels), spec.channels)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """``image`` stretched to ``size`` = (width, height).

    One that is at least 16 times as large is first reduced, by whole factors, to 8 times or more. That takes less time,
    and changes some levels a little.
    """
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
