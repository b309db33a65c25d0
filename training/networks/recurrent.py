"""Recurrent spatial transformers (Sønderby et al. 2015), which read the objects of a picture one after the other."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from training.networks.geometry import affine_points
from training.networks.localisation import zero_head
from training.networks.samplers import Sampler
from training.networks.spatial import Map, SpatialTransformer, Warp, across, chain
from training.networks.transformers import Transformer

UNITS = 128
"""Units of the GRU; Sønderby et al. 2015 have 256."""


class Recurrence(nn.Module):
    """A GRU that is shown the same features in every step: ``(N, F)`` -> its states ``(N, T, U)``.

    It is unrolled, so that an exported graph has no loop.
    """

    def __init__(self, features: int, steps: int, units: int = UNITS) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.GRUCell(features, units)

    def forward(self, features: Tensor) -> Tensor:
        """Run all steps from a state of zeros."""
        states = [self.cell(features, features.new_zeros(features.shape[0], self.cell.hidden_size))]
        for _ in range(self.steps - 1):
            states.append(self.cell(features, states[-1]))
        return torch.stack(states, dim=1)


def recurrent(localisation: nn.Sequential, steps: int, units: int = UNITS) -> nn.Sequential:
    """Return ``localisation`` with a GRU before its regression: ``(N, C, H, W)`` -> offsets ``(N, T, P)``.

    All offsets are 0 before training.
    """
    *encoder, head = localisation
    if not isinstance(head, nn.Linear):
        raise TypeError(f"{type(head).__name__} is no regression of features")
    return nn.Sequential(*encoder, Recurrence(head.in_features, steps, units), zero_head(units, head.out_features))


class RecurrentTransformer(SpatialTransformer):
    """Samples one crop of the picture for each object of a sequence.

    One network predicts all transforms. It sees the picture once, and its GRU remembers which objects it has passed.
    """

    starts: Tensor

    def __init__(
        self,
        transformer: Transformer,
        localisation: nn.Sequential,
        sampler: Sampler,
        starts: Sequence[Tensor],
        glance: nn.Module | None = None,
    ) -> None:
        """Take a network made by `recurrent`.

        Args:
            transformer: the kind of transformer.
            localisation: the network.
            sampler: the sampler of every crop.
            starts: for each object, theta ``(2, 3)`` of the region that is sampled before training.
            glance: see `SpatialTransformer`.
        """
        super().__init__(transformer, [localisation], [sampler], glance=glance)
        self.register_buffer("starts", torch.stack(list(starts)))

    def forward(self, images: Tensor, normalise: Map) -> tuple[Warp, ...]:
        """Transform ``images`` ``(N, C, H, W)`` once for each object, from left to right."""
        deltas, _ = self.localise(self.localisations[0], normalise(self.glance(images)))  # (N, T, P)
        warps = []
        for delta, start in zip(deltas.unbind(dim=1), self.starts.unbind(), strict=True):
            parameters = self.transformer.solve(delta)
            mapped = chain(partial(affine_points, start[None]), partial(self.transformer.points, parameters))
            warps.append(self.warp(images, self.samplers[0], mapped, parameters, delta))
        return tuple(warps)

    def read(self, warps: tuple[Warp, ...]) -> tuple[Warp, ...]:
        """Return ``warps``, all of which the classifier reads."""
        return warps


def row(count: int, share: float) -> list[Tensor]:
    """Return the start of each of ``count`` objects: thetas ``(2, 3)`` side by side, on ``share`` of the sides."""
    return [
        torch.tensor([[share, 0.0, (1 - share) * across(index, count)], [0.0, share, 0.0]]) for index in range(count)
    ]
