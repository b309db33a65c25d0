"""Augmentation: random geometric and photometric changes to training pictures, one batch at a time."""

import math

import torch
from torch import Generator, Tensor

from training.data.distortions import Distorted
from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import sample
from training.recipes.recipe import Augmentation, Size


class Jittered:
    """Random rotation, zoom, stretch, shear, shift, flip and lighting within ``limits``.

    Parameters: maps ``(N, 2, 3)`` from the canvas to the picture, and factors of contrast and brightness ``(N, 2)``.
    Outside of the picture, its border is repeated. Shifts are whole pixels: fractional ones would blur the training
    pictures compared with those that the network classifies later.
    """

    def __init__(self, canvas: Size, limits: Augmentation) -> None:
        """Set the output size ``canvas`` = (height, width); a picture of another size is centred on it."""
        self.canvas = canvas
        self.limits = limits

    def draw(self, count: int, picture: Size, generator: Generator) -> tuple[Tensor, ...]:
        limits = self.limits
        drawn = 2 * torch.rand(9, count, generator=generator) - 1
        angle, shear, zoom, stretch, right, down, contrast, brightness, side = drawn
        angle, shear = angle * math.radians(limits.rotation), torch.tan(shear * math.radians(limits.shear))
        zoom, stretch = limits.zoom**zoom, limits.stretch ** (stretch / 2)
        wide, high = 1 / (zoom * stretch), stretch / zoom
        if limits.flip:
            wide = torch.where(side < 0, -wide, wide)
        linear = linear_maps(angle, shear, wide, high)
        half_canvas = torch.tensor([self.canvas[1] / 2, self.canvas[0] / 2])
        half_picture = torch.tensor([picture[1] / 2, picture[0] / 2])  # (2,): x, y
        farthest = (2 * limits.shift * half_picture).floor()
        offset = ((farthest + 0.5) * torch.stack([right, down], dim=-1)).round().clamp(-farthest, farthest)
        maps = torch.cat([linear * half_canvas, offset[:, :, None]], dim=-1) / half_picture[:, None]
        return maps, torch.exp(limits.light * torch.stack([contrast, brightness], dim=-1))

    def apply(self, images: Tensor, labels: Tensor, parameters: tuple[Tensor, ...]) -> Distorted:
        maps, light = (parameter.to(images) for parameter in parameters)
        moved = sample(images, affine_points(maps, base_grid(*self.canvas).to(images)), "border")
        return Distorted(relit(moved, light), labels, maps)


def linear_maps(angle: Tensor, shear: Tensor, wide: Tensor, high: Tensor) -> Tensor:
    """Return linear maps in pixels: ``(N, 2, 2)``.

    Args:
        angle: ``(N,)`` radians.
        shear: ``(N,)``, tangent of the angle of shear.
        wide: ``(N,)``, factor along the first axis.
        high: ``(N,)``, factor along the second axis.
    """
    cosine, sine = angle.cos(), angle.sin()
    x_axis = torch.stack([wide * cosine, -wide * sine], dim=-1)
    y_axis = torch.stack([high * (shear * cosine + sine), high * (cosine - shear * sine)], dim=-1)
    return torch.stack([x_axis, y_axis], dim=-1)


def relit(images: Tensor, light: Tensor) -> Tensor:
    """Change contrast and brightness of ``images`` ``(N, C, H, W)`` by the factors ``light`` ``(N, 2)``."""
    contrast, brightness = light[:, :, None, None, None].unbind(dim=1)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return (((images - middle) * contrast + middle) * brightness).clamp(0, 255)
