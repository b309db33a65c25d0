"""What goes to the process that shadows, and what comes back."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging.crops import Crop
from imaging.limits.limits import Limits
from service.inference.loading import Opener
from service.inference.outputs import Points


class Job(NamedTuple):
    """The two versions of a model to compare, as they are served."""

    models: Path
    """The models folder."""
    name: str
    default: int
    default_digest: str
    version: int
    version_digest: str
    opener: Opener
    limits: Limits
    """Of pictures that have to be decoded again."""


class Shown(NamedTuple):
    """A picture, and what the default version has answered."""

    pixels: NDArray[np.uint8] | None
    """``(H, W, C)`` of the input of both versions; None if their inputs differ."""
    file: bytes
    """The upload, if their inputs differ."""
    part: Crop | None
    """The part of the file that the model was shown, if not all of it."""
    turn: float
    """Degrees by which the model was shown it turned back."""
    width: float
    height: float
    """Size of what the model was shown, in pixels of the upload."""
    probabilities: NDArray[np.float32]
    """``(K,)``, or ``(T, K)`` of a sequence; empty if the model is not a classifier."""
    theta: Points | None
    """Of the main transformer; None if there is none."""

    @property
    def size(self) -> int:
        """Bytes of the picture."""
        return len(self.file) + (0 if self.pixels is None else self.pixels.nbytes)


class Said(NamedTuple):
    """What a version says of a picture."""

    names: tuple[str, ...]
    """The most probable class, or that of each object of a sequence; empty if the model is not a classifier."""
    probability: float
    """Of ``names``."""
    theta: Points | None
    seconds: float
    """Processor time of one inference of the picture alone."""

    @property
    def label(self) -> str | None:
        """Its classes in one line; None if the model is not a classifier. Different classes may have the same line."""
        return " ".join(self.names) if self.names else None


class Compared(NamedTuple):
    """What both versions say of the same picture."""

    default: Said
    version: Said
    change: float
    """The probability that the new version gives to the class of the default version, less that of the default."""
    corners_px: float | None
    """Mean distance of the main transformer's corners in pixels of the upload; None where a version has none."""


class Failed(NamedTuple):
    """A picture that the new version could not answer."""

    reason: str


Outcome = Compared | Failed
