"""The classification loss, and losses on the transforms."""

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_AREA = 1e-6


def class_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy: a scalar.

    Args:
        logits: ``(N, K)``, or ``(N, T, K)`` for sequences, whose objects all count the same.
        labels: ``(N,)``, or ``(N, T)``.
        smoothing: probability spread over the other classes.
    """
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)


def upright_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return how differently two distortions of the same pictures are rectified: a scalar, 0 if equally.

    It is the squared distance of two affine maps divided by the squared size of their linear parts, so that shrinking
    does not lower it. The size leaves out the translation, so the same distance costs the same everywhere in the
    picture.

    Args:
        first: ``(N, 2, 3)`` from the rectified image to the undistorted picture, see
            `training.networks.geometry.undistorted`.
        second: the same for another distortion of the same pictures.
    """
    distance = (first - second).square().sum(dim=(1, 2))
    size = (first.square() + second.square())[:, :, :2].sum(dim=(1, 2)) / 2
    return (distance / size.clamp(min=SMALLEST_AREA)).mean()


def area_loss(maps: Tensor, wanted: Tensor | float = 1.0, aspect: float = 1.0) -> Tensor:
    """Return how far size and shape of the sampled region are from the wanted ones: a scalar, 0 if equal.

    It is ``log(size / wanted)^2 + 2 (1 - det / size)`` with half the squared norm of the linear part as the size. For
    a map that only turns and scales, the size is the determinant, and the first term is all of the loss. The second
    term uses the determinant with its sign: it is 0 for such a map, about the squared logarithm of the ratio of a
    slightly stretched region's sides, 2 for a region without width, and 4 for a mirror image.

    Args:
        maps: ``(N, 2, 3)`` from the rectified image to the undistorted picture, as in `upright_loss`.
        wanted: shares of the undistorted picture's area, above 0: a number, or ``(N,)``.
        aspect: the picture's width divided by its height; the region should have this shape, in any direction.
    """
    in_pixels = torch.tensor([[1.0, aspect], [1 / aspect, 1.0]], device=maps.device)
    linear = maps[:, :, :2] * in_pixels
    size = linear.square().sum(dim=(1, 2)).clamp(min=2 * SMALLEST_AREA) / 2
    distorted = 1 - torch.linalg.det(linear) / size
    loss: Tensor = ((size / wanted).log().square() + 2 * distorted).mean()
    return loss
