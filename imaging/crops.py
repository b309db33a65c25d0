"""Parts of a picture that a network looks at, each as if it were a picture of its own, turned upright if it is not."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging.errors import ImageTooLargeError, RegionOutsideError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the upright picture, whose left and top edges are at 0."""


class Crop(NamedTuple):
    """A part of a picture, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.bottom - self.top

    def to_picture(self, width: int, height: int) -> NDArray[np.float64]:
        """The map ``(3, 3)`` from coordinates of the crop to those of a ``width`` x ``height`` picture.

        Both are normalised to [-1, 1] in the order (x, y), with ``align_corners=False``.
        """
        return np.array(
            [
                [self.width / width, 0, (self.left + self.right) / width - 1],
                [0, self.height / height, (self.top + self.bottom) / height - 1],
                [0, 0, 1],
            ]
        )


class Shown(NamedTuple):
    """What a network is shown of a picture: an upright frame about the centre of a part that is turned back.

    The frame has the area of the part, so that nothing shrinks, and the proportions of the smallest box around the
    turned part. At other angles than quarter turns it has none of the part's corners, and some of what is beside it.
    """

    crop: Crop
    turn: float = 0.0
    """Degrees by which the thing in the picture is turned clockwise as seen, and by which the part is turned back."""

    @property
    def width(self) -> float:
        """Width of the frame in pixels of the picture."""
        return math.sqrt(self.crop.width * self.crop.height * self._aspect) if self.turn else self.crop.width

    @property
    def height(self) -> float:
        """Height of the frame."""
        return math.sqrt(self.crop.width * self.crop.height / self._aspect) if self.turn else self.crop.height

    @property
    def _aspect(self) -> float:
        cosine, sine = abs(math.cos(math.radians(self.turn))), abs(math.sin(math.radians(self.turn)))
        width, height = self.crop.width, self.crop.height
        return (width * cosine + height * sine) / (width * sine + height * cosine)

    def to_crop(self) -> NDArray[np.float64]:
        """The map ``(3, 3)`` from coordinates of the frame to those of the crop; see `Crop.to_picture`."""
        cosine, sine = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        x, y = self.width / self.crop.width, self.height / self.crop.width
        u, v = self.width / self.crop.height, self.height / self.crop.height
        return np.array([[cosine * x, -sine * y, 0], [sine * u, cosine * v, 0], [0, 0, 1]])

    def to_picture(self, width: int, height: int) -> NDArray[np.float64]:
        """The map ``(3, 3)`` from coordinates of the frame to those of the picture; see `Crop.to_picture`."""
        placed = self.crop.to_picture(width, height)
        return placed @ self.to_crop() if self.turn else placed


def find_crops(boxes: Sequence[Box], width: int, height: int, max_pixels: int) -> list[Crop]:
    """Return the pixels of a ``width`` x ``height`` picture that each of ``boxes`` touches.

    Raises:
        RegionOutsideError: a box has no pixel of the picture.
        ImageTooLargeError: together they have more than ``max_pixels``.
    """
    crops = []
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        crop = Crop(
            max(0, math.floor(left)),
            max(0, math.floor(top)),
            min(width, math.ceil(right)),
            min(height, math.ceil(bottom)),
        )
        if crop.width <= 0 or crop.height <= 0:
            raise RegionOutsideError(
                f"region {number} lies outside of the picture, which has {width} x {height} pixels",
                "give x1,y1,x2,y2 in pixels of the picture as a viewer shows it, upright",
            )
        crops.append(crop)
    pixels = sum(crop.width * crop.height for crop in crops)
    if pixels > max_pixels:
        raise ImageTooLargeError(
            f"the regions have {pixels} pixels together, more than {max_pixels}", "ask for fewer or smaller ones"
        )
    return crops
