"""What a network is trained for, beside naming the class."""

import torch
from torch import Tensor

SMALLEST_AREA = 1e-6


def upright_loss(first: Tensor, second: Tensor) -> Tensor:
    """How differently two distortions of the same pictures are rectified: a scalar, 0 if alike.

    The squared distance of two affine maps over their own squared size, so that shrinking them does not lower it.

    Args:
        first: ``(N, 2, 3)`` from the rectified image to the undistorted picture: the distortion's map after theta.
        second: the same for another distortion of the same pictures.
    """
    distance = (first - second).square().sum(dim=(1, 2))
    size = (first.square() + second.square()).sum(dim=(1, 2)) / 2
    return (distance / size.clamp(min=SMALLEST_AREA)).mean()


def area_loss(maps: Tensor, wanted: Tensor | float = 1.0) -> Tensor:
    """How far the area that is looked at lies from the one that is wanted: a scalar, 0 if alike.

    Args:
        maps: ``(N, 2, 3)`` from the rectified image to the undistorted picture.
        wanted: shares of the undistorted picture's area, above 0: one, or ``(N,)``.
    """
    area: Tensor = torch.linalg.det(maps[:, :, :2]).abs() / wanted
    return area.clamp(min=SMALLEST_AREA).log().square().mean()
