"""Samplers, which read a picture at the points of a grid (Jaderberg et al. 2015, section 3.3)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.geometry import base_grid

Padding = Literal["zeros", "border", "reflection"] | float


class Sampler(nn.Module):
    """Bilinear sampling with a choice of padding and optional anti-aliasing."""

    def __init__(
        self, size: tuple[int, int], padding: Padding = "zeros", samples: int = 1, *, pyramid: bool = False
    ) -> None:
        """Create a sampler with an output ``size`` = (height, width) in pixels.

        Args:
            size: output size.
            padding: values outside of the picture: zeros, the border pixel, the mirrored picture, or a grey level in
                [0, 1].
            samples: each output pixel is the mean of ``samples`` x ``samples`` points spread over it. This prevents
                aliasing when the transformer zooms out by up to that factor.
            pyramid: blend samples of the picture with samples of a copy of half its size, according to how far the
                transformer zooms out. This prevents aliasing up to a factor of about 2 at half the cost of
                ``samples=2``, and leaves enlarged pictures sharp (Williams 1983).
        """
        super().__init__()
        self.padding = padding
        self.samples = samples
        self.pyramid = pyramid
        self.register_buffer("base", base_grid(*size), persistent=False)
        self.register_buffer("fine", base_grid(size[0] * samples, size[1] * samples), persistent=False)

    base: Tensor
    """``(1, H, W, 2)``: pixel centres, at which grids are reported."""
    fine: Tensor
    """``(1, H * samples, W * samples, 2)``: points that are sampled."""

    def forward(self, images: Tensor, grid: Tensor) -> Tensor:
        """Sample ``images`` ``(N, C, H, W)`` at ``grid``, which is `fine` under a map: ``(N, C, h, w)``."""
        sampled = sample(images, grid, self.padding)
        if self.pyramid:
            half = sample(functional.avg_pool2d(images, 2, ceil_mode=True), on_half(grid, images), self.padding)
            share = (zoomed_out(grid, images.shape[-2], images.shape[-1]) - 1).clamp(0, 1)[:, None, None, None]
            sampled = sampled + share * (half - sampled)
        return sampled if self.samples == 1 else functional.avg_pool2d(sampled, self.samples)


class Reduction(nn.Module):
    """Reduces pictures to one size; each pixel is the mean over the area that it covers."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], reduced: tuple[int, int]) -> None:
        """``size`` and ``reduced`` are (height, width), before and after; neither side grows."""
        super().__init__()
        self.register_buffer("rows", overlaps(size[0], reduced[0]), persistent=False)
        self.register_buffer("columns", overlaps(size[1], reduced[1]).T.contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, C, h, w)``, as two products, which every runtime has."""
        return self.rows @ images @ self.columns


def overlaps(side: int, reduced: int) -> Tensor:
    """Return the share that each of ``side`` pixels has in each of ``reduced`` larger ones: ``(reduced, side)``."""
    starts = torch.arange(reduced, dtype=torch.float64)[:, None] * side / reduced
    pixels = torch.arange(side, dtype=torch.float64)
    common = torch.minimum(starts + side / reduced, pixels + 1) - torch.maximum(starts, pixels)
    return (common.clamp(min=0) * reduced / side).float()


def is_traced() -> bool:
    """Return whether TorchScript is tracing; the sizes of tensors are then no numbers."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def sample(images: Tensor, grid: Tensor, padding: Padding = "zeros") -> Tensor:
    """Sample ``images`` ``(N, C, H, W)`` bilinearly at ``grid`` ``(N, h, w, 2)``: ``(N, C, h, w)``."""
    if padding == "border" and not is_traced():
        # The nearest point of the outermost pixels' centres has the border's value.
        height, width = images.shape[-2:]
        farthest = torch.tensor([1 - 1 / width, 1 - 1 / height]).to(grid)
        grid = torch.minimum(torch.maximum(grid, -farthest), farthest)
        return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    if isinstance(padding, str):
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return functional.grid_sample(images - padding, grid, mode="bilinear", align_corners=False) + padding


def on_half(grid: Tensor, images: Tensor) -> Tensor:
    """Express points of ``images`` on their half-size copy, which reaches a pixel farther where a side is odd."""
    height, width = images.shape[-2:]
    if not is_traced() and height % 2 == width % 2 == 0:
        return grid
    across, down = (side / (side + side % 2) for side in (width, height))
    return torch.stack([(grid[..., 0] + 1) * across - 1, (grid[..., 1] + 1) * down - 1], dim=-1)


def zoomed_out(grid: Tensor, height: int, width: int) -> Tensor:
    """Return the distance of neighbouring sample points in pixels of the picture.

    Args:
        grid: ``(N, h, w, 2)``.
        height: height of the picture in pixels.
        width: its width.

    Returns:
        ``(N,)``: the geometric mean of both directions, averaged over the grid; above 1 the transformer zooms out.
    """
    across = (grid[:, 0, -1] - grid[:, 0, 0]) / (grid.shape[2] - 1)  # (N, 2)
    down = (grid[:, -1, 0] - grid[:, 0, 0]) / (grid.shape[1] - 1)
    area = (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]).abs() * (width * height / 4)
    return (area + 1e-12).sqrt()


def outside_share(grid: Tensor) -> Tensor:
    """Return each item's share of sample points outside the picture: ``(N, H, W, 2)`` -> ``(N,)`` in [0, 1]."""
    outside = (grid.abs() > 1).any(dim=-1)
    return outside.flatten(1).to(torch.float32).mean(dim=1)
