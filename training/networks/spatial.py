"""Spatial transformers: localisation, transformer and sampler, in one or more steps."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from training.networks.geometry import affine_fit, affine_points
from training.networks.localisation import Attention
from training.networks.samplers import Sampler
from training.networks.transformers import Transformer

Map = Callable[[Tensor], Tensor]
"""From output points ``(N or 1, ..., 2)`` to points of the picture ``(N, ..., 2)``."""


class Warp(NamedTuple):
    """The result of one transformer step for a batch."""

    theta: Tensor
    """``(N, 2, 3)``: the affine map from the rectified image to the picture, or the affine fit of another map.

    There is one rule for all kinds, steps, branches and features: the least-squares fit at the pixel centres of the
    rectified image (`training.networks.geometry.affine_fit`), which is the map itself if that is affine.
    """
    parameters: Tensor
    """``(N, rows, columns)``: all parameters of the transformer."""
    delta: Tensor
    """``(N, P)``: the localisation network's prediction, as offsets from the identity."""
    grid: Tensor
    """``(N, h, w, 2)``: picture positions of the rectified image's pixels."""
    rectified: Tensor
    """``(N, C, h, w)``: the rectified image."""
    map: Map
    """The map from points of the rectified image to points of the picture."""
    scores: Tensor | None = None
    """``(N, cells)``: the attention of the localisation network before the softmax, if it has any."""


class SpatialTransformer(nn.Module):
    """Transforms a picture in one or more steps, each of which samples the original picture.

    Step k predicts a transform of step k - 1's result. The maps are composed and the original picture is sampled once
    through all of them, so that interpolation does not blur it repeatedly (Lin and Lucey 2017).
    """

    def __init__(
        self,
        transformer: Transformer,
        localisations: Sequence[nn.Module],
        samplers: Sequence[Sampler],
        start: Tensor | None = None,
        margin: float = 1.0,
        glance: nn.Module | None = None,
    ) -> None:
        """Take one localisation network and one sampler per step; steps may share a network.

        Args:
            transformer: the kind of transformer.
            localisations: networks that predict each step's delta from its input.
            samplers: samplers of each step's output, which is the next step's input.
            start: theta ``(2, 3)`` of the region that is sampled before training; by default the whole picture.
            margin: factor by which the views of all steps but the last are wider than their region, so that a later
                step sees what surrounds it.
            glance: reduces the picture to what the first localisation network sees; by default, that is the picture.
        """
        super().__init__()
        self.transformer = transformer
        self.localisations = nn.ModuleList(localisations)
        self.samplers: Sequence[Sampler] = nn.ModuleList(samplers)  # type: ignore[assignment]
        wider = torch.tensor([margin, margin, 1.0]) if len(localisations) > 1 else torch.ones(3)
        self.register_buffer("start", (torch.eye(2, 3) if start is None else start) * wider)
        self.moved = not torch.equal(self.start, torch.eye(2, 3))
        self.narrow = 1 / margin
        self.glance = glance or nn.Identity()
        self.joint = True
        """Whether gradients reach theta through the sampled pixels, that is, from whatever reads them."""
        self.localise_in_bf16 = False
        """Whether localisation networks compute in bfloat16, in training."""

    start: Tensor

    def forward(self, images: Tensor, normalise: Map) -> tuple[Warp, ...]:
        """Transform ``images`` ``(N, C, H, W)``; ``normalise`` prepares the localisation networks' inputs."""
        warps: list[Warp] = []
        view, mapped = self.glance(images), cast(Map, self._start)
        for number, (localisation, sampler) in enumerate(zip(self.localisations, self.samplers, strict=True), start=1):
            delta, scores = self.localise(localisation, normalise(view))
            parameters = self.transformer.solve(delta)
            if 1 < number == len(self.samplers) and self.narrow != 1:
                mapped = chain(mapped, lambda points: points * self.narrow)
            mapped = chain(mapped, partial(self.transformer.points, parameters))
            warp = self.warp(images, sampler, mapped, parameters, delta, exact=not warps and not self.moved)
            warps.append(warp._replace(scores=scores))
            view = warp.rectified
        return tuple(warps)

    def read(self, warps: tuple[Warp, ...]) -> tuple[Warp, ...]:
        """Return those of this transformer's ``warps`` whose images the classifier reads: the last one."""
        return warps[-1:]

    def localise(self, localisation: nn.Module, view: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict delta ``(N, P)``, and the scores ``(N, cells)`` of a network with attention."""
        if not self.localise_in_bf16:  # without an autocast that does nothing, which exporters would record
            return self._predict(localisation, view)
        with torch.autocast(view.device.type, torch.bfloat16):
            return self._predict(localisation, view)

    def _predict(self, localisation: nn.Module, view: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(localisation, Attention):
            delta, scores = localisation.look(view)
            return delta.float(), scores.float()
        return localisation(view).float(), None

    def warp(
        self,
        images: Tensor,
        sampler: Sampler,
        mapped: Map,
        parameters: Tensor,
        delta: Tensor,
        *,
        exact: bool = False,
    ) -> Warp:
        """Sample ``images`` through the map ``mapped``; ``exact`` says that it is the transformer's own map."""
        grid = mapped(sampler.base)
        read = grid if sampler.samples == 1 else mapped(sampler.fine)
        view = sampler(images, read if self.joint else read.detach())
        theta = self.transformer.theta(parameters, sampler.base) if exact else affine_fit(grid, sampler.base)
        return Warp(theta, parameters, delta, grid, view, mapped)

    def _start(self, points: Tensor) -> Tensor:
        return affine_points(self.start[None], points) if self.moved else points


def chain(outer: Map, inner: Map) -> Map:
    """Compose two maps: first ``inner``, then ``outer``."""
    return lambda points: outer(inner(points))


def centre(side: float) -> Tensor:
    """Return theta ``(2, 3)`` of the centre of a picture: a crop of ``side``, as a share of the picture's sides."""
    return torch.tensor([[side, 0.0, 0.0], [0.0, side, 0.0]])


def tiles(count: int, share: float = 0.5) -> list[Tensor]:
    """Return the start of ``count`` parallel transformers: side by side, each on ``share`` of the picture's sides.

    Returns:
        Thetas ``(2, 3)``; a single transformer starts at the centre.
    """
    columns = math.ceil(count**0.5)
    rows = -(-count // columns)
    free = 1 - share
    places = [(across(index % columns, columns), across(index // columns, rows)) for index in range(count)]
    return [torch.tensor([[share, 0.0, free * x], [0.0, share, free * y]]) for x, y in places]


def across(index: int, count: int) -> float:
    """Return position ``index`` of ``count`` evenly spaced positions in [-1, 1]."""
    return 2 * index / (count - 1) - 1 if count > 1 else 0.0
