"""The form in which a rectified image is requested."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

from export.format.artifact import Manifest
from imaging.encoding import FileFormat
from imaging.warping import Padding
from service.errors import InvalidParameterError

MAX_SIDE = 16_383
"""Longest side of a rectified image: that of a WebP file."""


class RectifiedOptions(NamedTuple):
    """The form of the rectified images of a picture."""

    format: FileFormat = "png"
    size: Literal["model", "source"] | tuple[int, int] = "model"
    """``model``: as the classifier reads it. ``source``: as many pixels as the region has in the picture. Else height
    and width."""
    padding: Padding = "black"
    """The surroundings of the picture; the model's own in size ``model``."""
    margin: float = 0.0
    """How much of the surroundings of the region is shown on each side, in shares of its width and height."""
    max_pixels: int = 12_000_000
    """Most pixels of each image. A larger ``source`` is scaled down."""
    only_main: bool = False
    """Whether to leave out all transformers but the one whose image the classifier reads."""

    @property
    def needs_source(self) -> bool:
        """Whether the image is sampled from the uploaded picture."""
        return self.size != "model"

    def indices(self, manifest: Manifest) -> Sequence[int]:
        """Return the positions of the transformers whose images are made."""
        return (manifest.main,) if self.only_main else range(len(manifest.transforms))

    def of_main(self, manifest: Manifest) -> Self:
        """Return the form of the main transformer's image alone.

        Raises:
            InvalidParameterError: the model has an image for each object of a sequence.
        """
        if manifest.shows_each:
            raise InvalidParameterError(
                "the model reads a sequence and has an image of each object, not one; POST /predict returns all of them"
            )
        return self._replace(only_main=True)

    @property
    def frame(self) -> float:
        """The size of what is shown relative to the region."""
        return 1 + 2 * self.margin


def read_size(text: str) -> Literal["model", "source"] | tuple[int, int]:
    """Read ``model``, ``source`` or ``HEIGHTxWIDTH``, of which the form has been checked."""
    height, x, width = text.partition("x")
    if x:
        return int(height), int(width)
    return "model" if text == "model" else "source"
