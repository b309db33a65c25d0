"""Spatial transformers put together: localisation, transformer and sampler; in steps, in parallel, on features."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from training.networks.geometry import affine_fit, affine_points
from training.networks.samplers import Sampler
from training.networks.transformers import Transformer

Map = Callable[[Tensor], Tensor]
"""From output points ``(N or 1, ..., 2)`` to points of the picture ``(N, ..., 2)``."""


class Warp(NamedTuple):
    """What one transformer did to a batch."""

    theta: Tensor
    """``(N, 2, 3)``: the affine map from the rectified image to the picture, or the one that fits best."""
    parameters: Tensor
    """``(N, rows, columns)``: the transformer's own parameters in full."""
    delta: Tensor
    """``(N, P)``: what the localisation network predicted, offsets from the identity."""
    grid: Tensor
    """``(N, h, w, 2)``: where the rectified image's pixels lie in the picture."""
    rectified: Tensor
    """``(N, C, h, w)``: the region it cut out, made upright."""
    map: Map
    """From points of the rectified image to points of the picture."""


class SpatialTransformer(nn.Module):
    """Looks at a picture in one or more steps, each of which reads the original picture again.

    Step k sees what step k - 1 made of the picture and says how to transform *that*; the maps are composed, and the
    picture is sampled once through all of them, so that nothing is blurred twice (Lin and Lucey 2017).
    """

    def __init__(
        self,
        transformer: Transformer,
        localisations: Sequence[nn.Module],
        samplers: Sequence[Sampler],
        start: Tensor | None = None,
    ) -> None:
        """One localisation network and one sampler a step; the same network may stand there several times.

        Args:
            transformer: the kind.
            localisations: from the view of step k to its delta.
            samplers: what step k makes; all but the last one's is what the next step sees.
            start: theta ``(2, 3)`` where it looks before it is trained, instead of the whole picture.
        """
        super().__init__()
        self.transformer = transformer
        self.localisations = nn.ModuleList(localisations)
        self.samplers: Sequence[Sampler] = nn.ModuleList(samplers)  # type: ignore[assignment]
        self.register_buffer("start", torch.eye(2, 3) if start is None else start)
        self.moved = start is not None

    start: Tensor

    def forward(self, images: Tensor, normalise: Map) -> tuple[Warp, ...]:
        """Look at ``images`` ``(N, C, H, W)``; ``normalise`` is what their localisation networks are shown of them."""
        warps: list[Warp] = []
        view, mapped = images, cast(Map, self._start)
        for localisation, sampler in zip(self.localisations, self.samplers, strict=True):
            delta = localisation(normalise(view)).float()
            parameters = self.transformer.solve(delta)
            mapped = chain(mapped, partial(self.transformer.points, parameters))
            grid = mapped(sampler.base)
            view = sampler(images, grid if sampler.samples == 1 else mapped(sampler.fine))
            exact = not warps and not self.moved
            theta = self.transformer.theta(parameters, sampler.base) if exact else affine_fit(grid, sampler.base)
            warps.append(Warp(theta, parameters, delta, grid, view, mapped))
        return tuple(warps)

    def _start(self, points: Tensor) -> Tensor:
        return affine_points(self.start[None], points) if self.moved else points


def chain(outer: Map, inner: Map) -> Map:
    """The map "first ``inner``, then ``outer``"."""
    return lambda points: outer(inner(points))


def tiles(count: int, share: float = 0.5) -> list[Tensor]:
    """Where ``count`` parallel transformers start: side by side, each on ``share`` of the picture's sides.

    Returns:
        thetas ``(2, 3)``; a single one starts in the centre.
    """
    columns = math.ceil(count**0.5)
    rows = -(-count // columns)
    free = 1 - share
    places = [(across(index % columns, columns), across(index // columns, rows)) for index in range(count)]
    return [torch.tensor([[share, 0.0, free * x], [0.0, share, free * y]]) for x, y in places]


def across(index: int, count: int) -> float:
    """Position ``index`` of ``count`` that spread evenly over [-1, 1]."""
    return 2 * index / (count - 1) - 1 if count > 1 else 0.0
