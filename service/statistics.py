"""What a model has done since it was loaded; written once a batch."""

import time
from typing import NamedTuple


class Batches(NamedTuple):
    """The inferences of one batch size."""

    inferences: int
    seconds: float
    """That they took together."""


class Statistics:
    """Of one model in one process."""

    def __init__(self) -> None:
        self.batches: dict[int, Batches] = {}
        """By their size."""
        self.queue_s = 0.0
        """That all pictures together waited for their inference to begin."""
        self.failures = 0
        """Pictures whose inference raised an error."""
        self.last_s = 0.0
        """When the last inference ended, in seconds since 1970; 0 before the first."""

    def count(self, size: int, queue_s: float, inference_s: float) -> None:
        """An inference of ``size`` pictures, which together had waited for ``queue_s``."""
        inferences, seconds = self.batches.get(size, (0, 0.0))
        self.batches[size] = Batches(inferences + 1, seconds + inference_s)
        self.queue_s += queue_s
        self.last_s = time.time()

    def count_failure(self, size: int) -> None:
        """An inference of ``size`` pictures that raised an error."""
        self.failures += size

    @property
    def pictures(self) -> int:
        """That were inferred."""
        return sum(size * batches.inferences for size, batches in self.batches.items())

    @property
    def inferences(self) -> int:
        """That ended well."""
        return sum(batches.inferences for batches in self.batches.values())

    @property
    def inference_s(self) -> float:
        """That all pictures together spent in inferences, each the whole time of its own."""
        return sum(size * batches.seconds for size, batches in self.batches.items())
