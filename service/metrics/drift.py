"""What a model's last pictures showed, to compare with the reference in its artifact (`export.format.drift`).

A batch costs no more than a note of its outputs: what they show is worked out when somebody asks.
"""

import threading
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs, Reference, count_in_bins, values


class Shown(NamedTuple):
    """What the pictures of a window show of one quantity."""

    counts: list[int]
    """Pictures in each bin of the reference."""
    total: float
    """Sum of the values."""


class Window:
    """The last pictures of one loaded model."""

    def __init__(self, manifest: Manifest, reference: Reference, size: int) -> None:
        """Of the last ``size`` pictures."""
        blank = {name: np.zeros((1, *t.shape), t.type) for name, t in manifest.answers().items()}
        known = values(blank, manifest)
        self.distributions = [d for d in reference.distributions if (d.transform, d.quantity) in known]
        self.pictures = reference.pictures
        """Of the reference."""
        self._manifest = manifest
        self._size = size
        self._names = [manifest.probabilities, *(transform.theta for transform in manifest.transforms)]
        self._batches: deque[list[NDArray[Any]]] = deque()
        self._noted = 0
        self._lock = threading.Lock()
        self._seen = np.empty((len(self.distributions), 0))

    def observe(self, outputs: Outputs) -> None:
        """Note a batch's outputs. It may be called from the thread that infers."""
        with self._lock:
            self._batches.append([outputs[name] for name in self._names])
            self._noted += len(self._batches[-1][0])
            while self._noted - len(self._batches[0][0]) >= self._size:  # newer ones fill the window
                self._noted -= len(self._batches.popleft()[0])

    def shows(self) -> list[Shown]:
        """For each of `distributions`."""
        with self._lock:
            batches, self._batches, self._noted = self._batches, deque(), 0
        if batches:
            whole = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
            found = values(dict(zip(self._names, whole, strict=True)), self._manifest)
            rows = np.stack([found[d.transform, d.quantity] for d in self.distributions])
            is_finite = np.isfinite(rows).all(axis=0)  # pictures with an answer that is no number show nothing
            self._seen = np.concatenate([self._seen, rows[:, is_finite]], axis=1)[:, -self._size :]
        return [
            Shown(count_in_bins(row, distribution.edges).tolist(), float(row.sum()))
            for row, distribution in zip(self._seen, self.distributions, strict=True)
        ]
