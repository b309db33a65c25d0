"""What training minimises: the losses that a recipe chooses, weighted and added up."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.data.distortions import Distorted
from training.data.splits import Corners
from training.distributed import processes, sum_of
from training.evaluation.poses import targets
from training.evaluation.rectification import ink_areas
from training.fitting.corner_losses import corner_losses
from training.fitting.losses import area_loss, class_loss, upright_loss
from training.fitting.pose import ATTENTION, CanonicalPose, attention_loss, pose_loss
from training.networks.geometry import undistorted
from training.networks.network import Output
from training.networks.samplers import outside_share
from training.networks.spatial import Warp
from training.recipes.recipe import Recipe


class Shown(NamedTuple):
    """The pictures of a step, of which V distorted versions are shown."""

    versions: list[Distorted]
    """N pictures each."""
    originals: Tensor
    """``(N, C, H, W)``: the undistorted pictures."""
    boxes: Tensor | None = None
    """``(N, 2, 2)`` of the originals, if they are known."""
    corners: Corners | None = None
    """Of the originals, as far as they are known."""

    @property
    def labels(self) -> Tensor:
        """``(VN,)``, or ``(VN, T)``: of all versions."""
        return torch.cat([version.labels for version in self.versions])

    @property
    def maps(self) -> Tensor:
        """``(VN, 2, 3)`` from the distorted pictures of all versions to the originals."""
        return torch.cat([version.maps for version in self.versions if version.maps is not None])


class Measure(NamedTuple):
    """What is recorded of a step."""

    value: Tensor
    """A scalar."""
    pictures: int
    """Number of pictures that it is the mean of."""


class Objective(nn.Module):
    """The losses of a recipe, each times the field of the recipe that chooses it; 0 leaves it out.

    - always: `class_loss`
    - on the maps: ``identity_penalty``, ``upright`` (`upright_loss`) and ``area`` (`area_loss`)
    - on the frames: ``pose`` (`pose_loss`), ``corners`` (`corner_losses`) and ``canonical`` (`CanonicalPose`)
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.canonical_pose = CanonicalPose(classes, recipe.crop) if recipe.canonical else None

    def forward(self, output: Output, shown: Shown) -> tuple[Tensor, dict[str, Measure]]:
        """Return the sum of all losses, a scalar, and the measures by their names in ``metrics.csv``."""
        recipe, labels = self.recipe, shown.labels
        loss = class_loss(output.logits, labels, recipe.label_smoothing)
        measures = {"train_loss": Measure(loss, len(labels))}
        if output.warps:
            loss = loss + self.map_loss(output.warps, shown, measures)
            if recipe.pose or recipe.canonical or recipe.corners:
                loss = loss + self.frame_loss(output.warps, shown, measures)
        return loss, measures

    def map_loss(self, warps: tuple[Warp, ...], shown: Shown, measures: dict[str, Measure]) -> Tensor:
        """Return the losses on the maps, and add their measures to ``measures``."""
        recipe, last = self.recipe, warps[-1]
        outside = torch.stack([outside_share(warp.grid).mean() for warp in warps]).max()  # a single one may collapse
        measures["outside"] = Measure(outside, len(last.grid))
        identity = torch.eye(2, 3, device=last.theta.device)
        distance = torch.stack([(warp.theta - identity).abs().mean() for warp in warps]).mean()
        measures["theta_distance"] = Measure(distance, len(last.grid))
        loss = torch.zeros((), device=last.theta.device)
        if recipe.identity_penalty:
            loss = loss + recipe.identity_penalty * sum(warp.delta.square().mean() for warp in warps)
        if not recipe.upright:  # and no area, which needs it
            return loss
        first, second = undistorted(shown.maps.to(last.theta), last.theta).chunk(2)
        gap = upright_loss(first, second)
        measures["upright_loss"] = Measure(gap, len(last.grid))
        wanted = ink_areas(shown.originals).repeat(2) if recipe.area_of == "ink" else 1.0
        aspect = shown.originals.shape[-1] / shown.originals.shape[-2]
        area = area_loss(torch.cat([first, second]), recipe.area_share * wanted, aspect)
        return loss + recipe.upright * gap + recipe.area * area

    def frame_loss(self, warps: tuple[Warp, ...], shown: Shown, measures: dict[str, Measure]) -> Tensor:
        """Return the losses on the frames of all warps, and add their measures to ``measures``.

        A frame is told where the object lies: in a picture with a box, and in one that was placed. The other frames
        are only held at the canonical crop in the mean of their class, unless the corners of their object are known.
        """
        recipe, labels, maps = self.recipe, shown.labels, shown.maps.to(warps[0].theta)
        frames = [undistorted(maps, warp.theta) for warp in warps]
        told = self.told(shown)
        loss = torch.zeros((), device=maps.device)
        # The mean of all processes' gradients is that of one process only if each counts by its number of told frames.
        weight = recipe.pose * processes() * told.sum() / sum_of(told.sum()).clamp(min=1)
        if recipe.pose and told.any():
            every = None if shown.boxes is None else shown.boxes.repeat(len(shown.versions), 1, 1)
            wanted = targets(every, recipe.crop, frames[0], recipe.box)
            wider = wanted * torch.tensor([recipe.margin, recipe.margin, 1.0], device=maps.device)
            aims = [wider] * (recipe.steps - 1) + [wanted] * (len(frames) - recipe.steps + 1)
            gaps = [pose_loss(frame[told], aim[told]) for frame, aim in zip(frames, aims, strict=True)]
            measures["pose_loss"] = Measure(gaps[-1], int(told.sum()))
            loss = loss + weight * torch.stack(gaps).sum()
            if (scores := warps[0].scores) is not None:
                gap = attention_loss(scores[told], recipe.cells, maps[told], wanted[told])
                loss = loss + weight * ATTENTION * gap
        if recipe.corners and shown.corners is not None:
            corners = shown.corners.at(torch.arange(len(labels)) % len(shown.originals))
            every_gap, gap = corner_losses(warps, maps, corners, recipe)
            measures["corner_loss"] = Measure(gap, int(corners.known.sum()))
            loss = loss + recipe.corners * every_gap
            told = told | corners.known
        if self.canonical_pose is not None:
            gap = self.canonical_pose(frames[-1][~told], labels[~told])
            measures["canonical_loss"] = Measure(gap, len(labels))
            loss = loss + recipe.canonical * gap
        return loss

    def told(self, shown: Shown) -> Tensor:
        """``(VN,)``: whether the frame of a picture is told where the object lies."""
        placed = [version.placed for version in shown.versions if version.placed is not None]
        if self.recipe.pose and shown.boxes is None and placed:
            return torch.cat(placed)
        return torch.full_like(shown.labels, bool(self.recipe.pose) and shown.boxes is not None, dtype=torch.bool)
