"""Spatial transformers: parameters -> sampling grid -> rectified image (Jaderberg et al. 2015, section 3).

Convention:
    Stated here once; training, export and service all keep to it.

    - theta ``(N, 2, 3)`` maps *output* coordinates (of the rectified image) to *input* coordinates (of the picture):
      ``input = theta @ [x, y, 1]``.
    - Coordinates are normalised to [-1, 1] in the order (x, y), x to the right and y down.
    - ``align_corners=False``: -1 and 1 are the outer edges of the border pixels, so the centre of pixel ``j`` of
      ``W`` lies at ``(2 j + 1) / W - 1``.
    - Images are ``(N, C, H, W)`` float in [0, 1] with black = 0 outside; grids are ``(N, H, W, 2)``.

Grids are made from a buffer by multiply and add, never by ``affine_grid``: ONNX Runtime has no CUDA kernel for
AffineGrid, and a matrix product would lose position to TF32 on a GPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""The rectified image's corners in its own coordinates, clockwise from top left."""


class Warp(NamedTuple):
    """What one transformer did to a batch."""

    theta: Tensor
    """``(N, 2, 3)``: the affine map of the transformer."""
    rectified: Tensor
    """``(N, C, h, w)``: the region it cut out, made upright."""


def base_grid(height: int, width: int) -> Tensor:
    """The normalised centres of the pixels of a ``height`` x ``width`` image: ``(H, W, 2)`` in the order (x, y)."""
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def affine_grid(theta: Tensor, base: Tensor) -> Tensor:
    """Map output positions to input positions.

    Args:
        theta: ``(N, 2, 3)``.
        base: ``(..., 2)`` normalised output coordinates, the same for every item of the batch.

    Returns:
        ``(N, ..., 2)`` normalised input coordinates.
    """
    columns = theta.view(-1, *[1] * (base.dim() - 1), 2, 3)  # (N, 1..., 2, 3)
    return columns[..., 0] * base[..., :1] + columns[..., 1] * base[..., 1:] + columns[..., 2]


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Read ``images`` ``(N, C, H, W)`` at ``grid`` ``(N, h, w, 2)``: bilinear, black outside. ``(N, C, h, w)``."""
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def affine_theta(delta: Tensor) -> Tensor:
    """``I + delta``: ``(N, 6)`` row-major offsets from the identity -> ``(N, 2, 3)``.

    Zero means "look at the whole picture", so a zero-initialised localisation head starts at the identity and
    weight decay pulls towards it rather than towards a collapsed transform.
    """
    identity = torch.eye(2, 3, dtype=delta.dtype, device=delta.device)
    return identity + delta.view(-1, 2, 3)


class AffineTransformer(nn.Module):
    """All six affine parameters (Jaderberg et al. 2015, equation 1)."""

    kind = "affine"
    parameter_count = 6
    """How many numbers the localisation network must predict."""

    base: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        """Rectify to ``size`` = (height, width) pixels."""
        super().__init__()
        self.register_buffer("base", base_grid(*size), persistent=False)

    def forward(self, images: Tensor, delta: Tensor) -> Warp:
        """Cut ``(N, C, h, w)`` out of ``images`` ``(N, C, H, W)`` as ``delta`` ``(N, 6)`` says."""
        theta = affine_theta(delta)
        return Warp(theta, sample(images, affine_grid(theta, self.base)))
