"""The confusion matrix of predictions."""

import torch
from torch import Tensor

Cell = tuple[int, int, int]
"""A cell of a confusion matrix: true class, predicted class, pictures."""


def confusion_cells(predicted: Tensor, labels: Tensor, classes: int) -> list[Cell]:
    """Return the non-zero cells of the confusion matrix. Their number is limited by the pictures, not the classes.

    Args:
        predicted: ``(N,)`` predicted classes.
        labels: ``(N,)`` true classes.
        classes: number of classes.
    """
    pairs, counts = torch.unique(labels * classes + predicted, return_counts=True)
    columns = (pairs // classes, pairs % classes, counts)
    return list(zip(*(column.tolist() for column in columns), strict=True))
