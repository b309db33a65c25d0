"""Random numbers from (use, seed, position), never from a running generator: nothing is lost in an interruption."""

from enum import IntEnum

import numpy as np
from torch import Generator


class Stream(IntEnum):
    """What random numbers are for. Each use has its own, so that none changes another."""

    SPLIT = 0
    """Choice of the validation pictures: the same for every run, so that runs can be compared."""
    VALIDATION = 1
    TEST = 2
    """Distortions of the test pictures: with it anyone can rebuild them."""
    ORDER = 3
    DISTORTION = 4
    UPRIGHTNESS = 5
    PATH = 6
    DROPOUT = 7


def seed_of(stream: Stream, seed: int = 0, position: int = 0) -> int:
    """What seeds a generator for one place of a run (a step, an epoch)."""
    return int(np.random.SeedSequence((stream, seed, position)).generate_state(1)[0])  # torch heeds only 32 bits


def seeded(stream: Stream, seed: int = 0, position: int = 0) -> Generator:
    """A generator for one place of a run: no state to lose when the run is interrupted."""
    return Generator().manual_seed(seed_of(stream, seed, position))
