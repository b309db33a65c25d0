"""Two versions to compare, and pictures for them."""

from functools import partial
from pathlib import Path

import numpy as np

from export.format.artifact import read_artifact
from imaging.limits.limits import Limits
from service.inference.backends import open_backend
from service.inference.loading import digest
from service.rollout.messages import Job, Shown
from tests.service.pictures import DIGITS, GOLDEN_ANSWERS, HEIGHT, MANIFEST, WIDTH


def job(models: Path, name: str = "digits") -> Job:
    """To compare version 2 with version 1."""
    one, two = (digest(read_artifact(models / name / str(version))) for version in (1, 2))
    opener = partial(open_backend, cuda_graphs=False)
    return Job(models, name, 1, one, 2, two, opener, Limits(10**6, 10**4))


def shown(*, first: int = 0) -> Shown:
    """The first of the bundled digits with another ``first`` pixel, and the golden answer to it."""
    pixels = DIGITS[0][..., None].copy()
    pixels[0, 0] = first
    probabilities = GOLDEN_ANSWERS[str(MANIFEST.probabilities)][0].astype(np.float32)
    theta = GOLDEN_ANSWERS[MANIFEST.transforms[0].theta][0].tolist()
    return Shown(pixels, b"", None, 0.0, WIDTH, HEIGHT, probabilities, theta)
