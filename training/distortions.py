"""Distortions that make a hard problem out of an easy one: parameters are sampled first, then applied purely.

A distortion is a batch of affine maps ``(N, 2, 3)`` in the convention of `training.transformers`: from the canvas
(output) to the original picture (input). Sampling takes a generator, so the same seed gives the same pictures.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from training.transformers import affine_grid, base_grid, sample


def similarity_maps(
    angle: Tensor, scale: Tensor, shift: Tensor, picture: tuple[int, int], canvas: tuple[int, int]
) -> Tensor:
    """Maps that turn, scale and move a picture on a canvas.

    Args:
        angle: ``(N,)`` radians, clockwise as seen.
        scale: ``(N,)``, above 1 for larger.
        shift: ``(N, 2)`` from the canvas' centre to the picture's, (x, y) in pixels.
        picture: height and width in pixels.
        canvas: height and width in pixels.

    Returns:
        ``(N, 2, 3)`` from the canvas to the picture.
    """
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    linear = torch.stack([cosine, sine, -sine, cosine], dim=-1).view(-1, 2, 2)  # canvas -> picture, in pixels
    offset = -linear @ shift[:, :, None]  # (N, 2, 1)
    half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])  # (2,): x, y
    half_canvas = torch.tensor([canvas[1] / 2, canvas[0] / 2])
    return torch.cat([linear * half_canvas, offset], dim=-1) / half_picture[:, None]


class RTS(NamedTuple):
    """Rotation, translation and scale (Jaderberg et al. 2015, appendix A: +-45 degrees, 0.7 to 1.2, 42x42).

    The picture is scaled, put anywhere where its unrotated frame still fits on the canvas, and rotated about its
    own centre.
    """

    canvas: tuple[int, int]
    """Height and width of the distorted pictures in pixels."""
    max_rotation_deg: float = 45.0
    min_scale: float = 0.7
    max_scale: float = 1.2

    def sample(self, count: int, picture: tuple[int, int], generator: Generator) -> Tensor:
        """Draw ``count`` maps for pictures of ``picture`` = (height, width) pixels: ``(N, 2, 3)`` on the CPU."""
        uniform = torch.rand(4, count, generator=generator)
        angle = (2 * uniform[0] - 1) * math.radians(self.max_rotation_deg)
        scale = self.min_scale + (self.max_scale - self.min_scale) * uniform[1]
        free = torch.tensor(self.canvas) - scale[:, None] * torch.tensor(picture)  # (N, 2): rows, columns
        shift = (2 * uniform[2:].T - 1) * free.flip(1).clamp(min=0) / 2  # (N, 2): x, y
        return similarity_maps(angle, scale, shift, picture, self.canvas)

    def apply(self, images: Tensor, maps: Tensor) -> Tensor:
        """Put ``images`` ``(N, C, H, W)`` on black canvases as ``maps`` ``(N, 2, 3)`` say: ``(N, C, h, w)``."""
        base = base_grid(*self.canvas).to(images.device)
        return sample(images, affine_grid(maps.to(images), base))
