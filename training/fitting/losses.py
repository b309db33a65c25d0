"""Losses on the transforms, in addition to the classification loss."""

import torch
from torch import Tensor

SMALLEST_AREA = 1e-6


def upright_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return how differently two distortions of the same pictures are rectified: a scalar, 0 if equally.

    It is the squared distance of two affine maps divided by their squared size, so that shrinking does not lower it.

    Args:
        first: ``(N, 2, 3)`` from the rectified image to the undistorted picture: theta, then the distortion's map.
        second: the same for another distortion of the same pictures.
    """
    distance = (first - second).square().sum(dim=(1, 2))
    size = (first.square() + second.square()).sum(dim=(1, 2)) / 2
    return (distance / size.clamp(min=SMALLEST_AREA)).mean()


def area_loss(maps: Tensor, wanted: Tensor | float = 1.0) -> Tensor:
    """Return how far the area of the sampled region is from the wanted area: a scalar, 0 if equal.

    Args:
        maps: ``(N, 2, 3)`` from the rectified image to the undistorted picture.
        wanted: shares of the undistorted picture's area, above 0: a number, or ``(N,)``.
    """
    area: Tensor = torch.linalg.det(maps[:, :, :2]).abs() / wanted
    return area.clamp(min=SMALLEST_AREA).log().square().mean()
