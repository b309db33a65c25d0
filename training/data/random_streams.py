"""Random generators seeded by (purpose, seed, position), so that a resumed run draws the same numbers."""

from enum import IntEnum

import numpy as np
from torch import Generator


class Stream(IntEnum):
    """The purpose of random numbers. Each has its own stream, independent of the others."""

    SPLIT = 0
    """Choice of the validation pictures, and of MNIST-12k; the same for every run, so that runs can be compared."""
    VALIDATION = 1
    TEST = 2
    """Distortions of the test pictures; the same for every run."""
    ORDER = 3
    DISTORTION = 4
    UPRIGHTNESS = 5
    PATH = 6
    DROPOUT = 7


def seed_of(stream: Stream, seed: int = 0, position: int = 0) -> int:
    """Return the seed for one position of a run, such as a step or an epoch."""
    return int(np.random.SeedSequence((stream, seed, position)).generate_state(1)[0])  # torch uses only 32 bits


def seeded(stream: Stream, seed: int = 0, position: int = 0) -> Generator:
    """Return a generator for one position of a run."""
    return Generator().manual_seed(seed_of(stream, seed, position))
