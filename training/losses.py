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


def area_loss(maps: Tensor) -> Tensor:
    """How far the area that is looked at lies from that of the undistorted picture: a scalar, 0 if alike.

    Args:
        maps: ``(N, 2, 3)`` from the rectified image to the undistorted picture.
    """
    area: Tensor = torch.linalg.det(maps[:, :, :2]).abs().clamp(min=SMALLEST_AREA)
    return area.log().square().mean()
