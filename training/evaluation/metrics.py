"""Measures of a network's answers, beside those of torchmetrics."""

import torch
from torch import Tensor
from torchmetrics import Metric

Cell = tuple[int, int, int]
"""A cell of a confusion matrix: true class, predicted class, pictures."""


def confusion_cells(predicted: Tensor, labels: Tensor, classes: int) -> list[Cell]:
    """Return the cells of the confusion matrix that are not zero: no more of them than pictures, however many classes.

    Args:
        predicted: ``(N,)`` classes that the network answered.
        labels: ``(N,)`` true classes.
        classes: how many there are.
    """
    pairs, counts = torch.unique(labels * classes + predicted, return_counts=True)
    columns = (pairs // classes, pairs % classes, counts)
    return list(zip(*(column.tolist() for column in columns), strict=True))


class Spread(Metric):
    """How much a vector changes from picture to picture: its standard deviation, averaged over its entries.

    A spread of theta near 0 means that the transformer does the same to every picture and looks at none of them.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, size: int) -> None:
        """For vectors of ``size`` entries."""
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, vectors: Tensor) -> None:
        """Take in ``(N, size)``."""
        values = vectors.double()
        self.count += len(values)
        self.total += values.sum(dim=0)
        self.squares += values.square().sum(dim=0)

    def compute(self) -> Tensor:
        """A scalar."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp(min=0).sqrt().mean()
