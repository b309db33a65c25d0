"""Distributions of the last pictures of a model, to compare with the reference in its artifact (`export.format.drift`).

A batch only records its outputs. The distributions are computed at a scrape.
"""

import threading
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs, Reference, count_in_bins, values


class Observed(NamedTuple):
    """The distribution of one quantity over the pictures of a window."""

    counts: list[int]
    """Pictures in each bin of the reference."""
    total: float
    """Sum of the values."""


class Window:
    """The last pictures of one loaded model."""

    def __init__(self, manifest: Manifest, reference: Reference, size: int) -> None:
        """Keep the last ``size`` pictures."""
        blank = {name: np.zeros((1, *t.shape), t.type) for name, t in manifest.answers().items()}
        known = values(blank, manifest)
        self.distributions = [d for d in reference.distributions if (d.transform, d.quantity) in known]
        self.pictures = reference.pictures
        """Number of pictures of the reference."""
        self._manifest = manifest
        self._size = size
        told = [manifest.probabilities] if manifest.probabilities else []
        self._names = [*told, *(transform.theta for transform in manifest.transforms)]
        self._batches: deque[list[NDArray[Any]]] = deque()
        self._recorded = 0
        self._lock = threading.Lock()
        self._values = np.empty((len(self.distributions), 0))

    def observe(self, outputs: Outputs) -> None:
        """Record the outputs of a batch. Any thread may call it."""
        with self._lock:
            self._batches.append([outputs[name] for name in self._names])
            self._recorded += len(self._batches[-1][0])
            while self._recorded - len(self._batches[0][0]) >= self._size:  # newer batches fill the window
                self._recorded -= len(self._batches.popleft()[0])

    def observed(self) -> list[Observed]:
        """Return the present distribution for each of `distributions`."""
        with self._lock:
            batches, self._batches, self._recorded = self._batches, deque(), 0
        if batches:
            joined = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
            found = values(dict(zip(self._names, joined, strict=True)), self._manifest)
            rows = np.stack([found[d.transform, d.quantity] for d in self.distributions])
            is_finite = np.isfinite(rows).all(axis=0)  # drop pictures with outputs that are not finite
            self._values = np.concatenate([self._values, rows[:, is_finite]], axis=1)[:, -self._size :]
        return [
            Observed(count_in_bins(row, distribution.edges).tolist(), float(row.sum()))
            for row, distribution in zip(self._values, self.distributions, strict=True)
        ]
