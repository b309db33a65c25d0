"""The network as it is served: pictures in, probabilities and straightened pictures out, nothing left to the caller."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.artifact import ArtifactError, ImageInput, Transform
from training.network import SpatialTransformerClassifier
from training.recipes import Recipe
from training.runs import RunInfo

INPUT = "image"
PROBABILITIES = "probabilities"
PLAIN_KINDS = ("affine", "similarity", "attention", "rotation")
"""Those that theta describes in full."""


class ServedNetwork(nn.Module):
    """Wraps a trained network: uint8 pictures -> probabilities, and what each transformer did, as `signature` says."""

    def __init__(self, network: SpatialTransformerClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(N, H, W, C)`` uint8 -> ``(N, K)`` float32, and three more for each transformer.

        Those are theta ``(N, 2, 3)`` float32, its parameters ``(N, rows, columns)`` float32 unless they are theta, and
        the rectified image ``(N, h, w, C)`` uint8.
        """
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255  # (N, C, H, W)
        output = self.network(pixels)
        answers = [output.logits.softmax(dim=1)]
        for transform, warp in zip(transforms(self.network.recipe), output.warps, strict=True):
            answers.append(warp.theta)
            if transform.parameters != transform.theta:
                answers.append(warp.parameters)
            grey_levels = torch.round(self.network.as_picture(warp.rectified) * 255).clamp(0, 255).to(torch.uint8)
            answers.append(grey_levels.permute(0, 2, 3, 1))
        return tuple(answers)


class Signature(NamedTuple):
    """What goes in and out of a `ServedNetwork`, for the manifest."""

    input: ImageInput
    transforms: tuple[Transform, ...]
    outputs: Sequence[str]


def signature(info: RunInfo) -> Signature:
    """Input and outputs of the network that ``info`` describes.

    Raises:
        ArtifactError: the artifact format has no place for such a network.
    """
    recipe = info.recipe
    if info.channels not in (1, 3):
        raise ArtifactError(f"{recipe.name} reads pictures of {info.channels} channels; only 1 and 3 can be exported")
    found = transforms(recipe)
    if not found:
        raise ArtifactError(f"{recipe.name} has no spatial transformer; there is nothing to straighten and serve")
    height, width = recipe.canvas
    image = ImageInput(
        name=INPUT,
        height=height,
        width=width,
        channels=1 if info.channels == 1 else 3,
        resize="bilinear",
        background=(0,) * info.channels,
    )
    outputs = [PROBABILITIES]
    for transform in found:
        outputs += dict.fromkeys((transform.theta, transform.parameters, transform.rectified))
    return Signature(image, found, outputs)


def transforms(recipe: Recipe) -> tuple[Transform, ...]:
    """The network's transformers in the order of its warps: branches and their steps, then the one on features."""
    places: list[tuple[str, tuple[int, int]]] = []
    for branch in range(1, recipe.branches + 1):
        for step in range(1, recipe.steps + 1):
            parts = [f"branch{branch}"] * (recipe.branches > 1) + [f"step{step}"] * (recipe.steps > 1)
            places.append(
                ("_".join(parts) or "transformer", recipe.canvas if step < recipe.steps else recipe.rectified)
            )
    if recipe.feature_stage:
        places.append(("features", recipe.rectified))
    return tuple(transform(recipe, name, size, alone=len(places) == 1) for name, size in places)


def transform(recipe: Recipe, name: str, size: tuple[int, int], *, alone: bool) -> Transform:
    """One transformer; its outputs carry its name unless it stands ``alone``."""
    suffix = "" if alone else f"_{name}"
    is_theta = alone and recipe.transformer in PLAIN_KINDS
    return Transform(
        name=name,
        kind=recipe.transformer,
        theta=f"theta{suffix}",
        parameters=f"theta{suffix}" if is_theta else f"parameters{suffix}",
        rectified=f"rectified{suffix}",
        height=size[0],
        width=size[1],
    )
