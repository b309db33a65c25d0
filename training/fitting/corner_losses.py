"""The loss on corners: the whole map of a transformer should take the rectified image's corners to the thing's."""

import torch
from torch import Tensor

from training.data.splits import Corners
from training.distributed import processes, sum_of
from training.evaluation.overlaps import box_corners
from training.fitting.pose import ATTENTION, attention_loss
from training.networks.geometry import affine_points, corner_points, inverse_points
from training.networks.spatial import Warp
from training.recipes.recipe import Recipe


def corner_losses(warps: tuple[Warp, ...], maps: Tensor, corners: Corners, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of all warps, with that of their attention, and the loss of the last: scalars.

    Pictures without corners do not count. Both are 0 if no picture has any.

    Args:
        warps: of all pictures.
        maps: ``(N, 2, 3)`` from the changed pictures, which the network has seen, to the pictures.
        corners: of the pictures.
        recipe: the recipe of the network.
    """
    known = corners.known
    every = mapped_corners(warps, recipe.steps, recipe.margin)
    # The mean of all processes' gradients is that of one process only if each counts by its number of known corners.
    weight = processes() * known.sum() / sum_of(known.sum()).clamp(min=1)
    if not known.any():
        nothing = every[-1].sum() * 0
        return nothing, nothing.detach()
    wanted = on_canvas(corners, maps).at(known)
    gaps = [corner_loss(found[known], wanted, maps[known]) for found in every]
    whole = torch.stack(gaps).sum()
    if (scores := warps[0].scores) is not None:
        middle = wanted.points.mean(dim=1)
        place = torch.cat([torch.zeros_like(wanted.points[:, :2]), middle[:, :, None]], dim=2)
        still = torch.eye(2, 3).to(place).expand_as(place)
        whole = whole + ATTENTION * attention_loss(scores[known], recipe.cells, still, place)
    return weight * whole, gaps[-1].detach()


def on_canvas(corners: Corners, maps: Tensor) -> Corners:
    """Return the corners of changed pictures; those of a mirrored picture are those of a mirrored thing.

    A frame is never mirrored: the left corners of a thing that is seen in a mirror lie where its right ones were.

    Args:
        corners: of the pictures.
        maps: ``(N, 2, 3)`` from the changed pictures to the pictures.
    """
    points = inverse_points(maps, corners.points.to(maps))
    mirrored = torch.linalg.det(maps[:, :, :2]) < 0
    points = torch.where(mirrored[:, None, None], points[:, [1, 0, 3, 2]], points)
    return corners._replace(points=points, boxed=corners.boxed.to(maps.device))


def mapped_corners(warps: tuple[Warp, ...], steps: int, margin: float) -> list[Tensor]:
    """Return where each warp says that the thing's corners lie: ``(N, 4, 2)`` each.

    Args:
        warps: of a single transformer with ``steps``, and of one on features, if there is one.
        steps: number of steps.
        margin: factor by which the views of all steps but the last are wider than the thing.
    """
    points = corner_points().to(warps[0].theta)
    return [warp.map(points / margin if step < steps else points) for step, warp in enumerate(warps, start=1)]


def corner_loss(found: Tensor, wanted: Corners, maps: Tensor) -> Tensor:
    """Return the mean squared distance of the corners, in half sides of the picture: a scalar, 0 if equal.

    A box says only how far the thing reaches in the unchanged picture. Its corners are compared with those of the box
    around the found ones there, so that a turned thing may stay turned.

    Args:
        found: ``(N, 4, 2)``.
        wanted: the corners of the same pictures, which must be known.
        maps: ``(N, 2, 3)`` from the changed pictures to the pictures.
    """
    back = affine_points(maps, found)
    reach = torch.stack([back.amin(dim=1), back.amax(dim=1)], dim=1)
    around = on_canvas(wanted._replace(points=box_corners(reach)), maps).points
    compared = torch.where(wanted.boxed[:, None, None], around, found)
    loss: Tensor = (compared - wanted.points).square().sum(dim=2).mean()
    return loss
