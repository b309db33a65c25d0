"""Measures that torchmetrics does not have."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Spread(Metric):
    """The standard deviation of a vector over the pictures, averaged over its entries.

    A spread of theta near 0 means that the transformer treats every picture alike, whatever it shows.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, size: int) -> None:
        """Measure vectors of ``size`` entries."""
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, vectors: Tensor) -> None:
        """Add vectors ``(N, size)``."""
        values = vectors.double()
        self.count += len(values)
        self.total += values.sum(dim=0)
        self.squares += values.square().sum(dim=0)

    def compute(self) -> Tensor:
        """Return the spread, a scalar."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp(min=0).sqrt().mean()
