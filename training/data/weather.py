"""Weather: colours of objects fade, shadows of leaves fall on them, and light is coloured.

Labelled pictures of traffic signs mostly have clear rims. A transformer that has only seen those takes the digits of a
sign for the whole sign if its rim is washed out, or as dark as what surrounds it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from training.networks.geometry import base_grid

Change = Callable[[Tensor, Tensor], Tensor]
"""Changes pictures ``(N, C, H, W)`` by uniform numbers ``(N, numbers)``."""
DRAWS = 17
"""Number of uniform numbers per picture."""


class Weather:
    """Fading, dapples and coloured light, each with the chance ``chance``."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def fade(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Fade the colours of some pictures ``(N, C, H, W)``, from 0 to 255, by ``uniform`` ``(N, DRAWS)``."""
        return self._change(images, uniform[:, 0], uniform[:, 3:6], faded)

    def shine(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Put some pictures ``(N, C, H, W)``, from 0 to 255, under leaves and coloured light."""
        dappled_ones = self._change(images, uniform[:, 1], uniform[:, 6:14], dappled)
        return self._change(dappled_ones, uniform[:, 2], uniform[:, 14:17], tinted)

    def _change(self, images: Tensor, chances: Tensor, uniform: Tensor, change: Change) -> Tensor:
        """Return ``images`` with those changed for which ``chances`` fell."""
        rows = torch.nonzero(chances < self.chance)[:, 0]
        return images.index_copy(0, rows, change(images[rows], uniform[rows])) if len(rows) else images


def faded(images: Tensor, uniform: Tensor) -> Tensor:
    """Blend each pixel, the more the stronger its colour, with a grey from dark to light."""
    amount, grey, rest = uniform[:, :, None, None, None].unbind(dim=1)
    highest, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    saturation = ((highest - lowest) / highest.clamp(min=32) * 1.5).clamp(max=1)
    share = (0.3 + 0.7 * amount) * saturation
    target = 30 + 200 * grey
    # Half of what remains of the pixel's own lightness, so that a faded rim keeps some of its texture.
    own = images.mean(dim=1, keepdim=True)
    target = target + 0.5 * rest * (own - own.mean(dim=(2, 3), keepdim=True))
    return (images + share * (target - images)).clamp(0, 255)


def dappled(images: Tensor, uniform: Tensor) -> Tensor:
    """Darken spots and stripes, as leaves and branches do, where the sum of two waves is high."""
    height, width = images.shape[-2:]
    x, y = base_grid(height, width).to(images).unbind(dim=-1)
    waves = []
    for first in (0, 3):
        angle, pace, phase = (uniform[:, first + part, None, None] for part in range(3))
        frequency = math.pi * 4**pace  # radians per half of the side: 1 to 4 waves on the whole side
        along = x * torch.cos(math.pi * angle) + y * torch.sin(math.pi * angle)
        waves.append(torch.sin(frequency * along + 2 * math.pi * phase))
    depth, softness = uniform[:, 6, None, None], uniform[:, 7, None, None]
    shadow = torch.sigmoid((waves[0] + waves[1] - 0.6) / (0.05 + 0.4 * softness))
    return images * (1 - (0.2 + 0.4 * depth) * shadow)[:, None]


def tinted(images: Tensor, uniform: Tensor) -> Tensor:
    """Multiply each channel by a factor from 0.78 to 1.28."""
    factors = torch.exp(0.5 * (uniform[:, : images.shape[1], None, None] - 0.5))
    return (images * factors).clamp(0, 255)
