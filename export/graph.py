"""The network as it is served: pictures in, probabilities and straightened pictures out, nothing left to the caller."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.artifact import ImageInput, Transform
from training.classifiers import SpatialTransformerClassifier
from training.runs import RunInfo

INPUT = "image"
PROBABILITIES = "probabilities"


class ServedNetwork(nn.Module):
    """Wraps a trained network: uint8 pictures -> probabilities, theta, rectified image, in this order."""

    def __init__(self, network: SpatialTransformerClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(N, H, W, C)`` uint8 -> ``(N, K)`` float32, ``(N, 2, 3)`` float32, ``(N, h, w, C)`` uint8."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255  # (N, C, H, W)
        output = self.network(pixels)
        warp = output.warps[0]
        grey_levels = torch.round(warp.rectified * 255).clamp(0, 255).to(torch.uint8)
        return output.logits.softmax(dim=1), warp.theta, grey_levels.permute(0, 2, 3, 1)


class Signature(NamedTuple):
    """What goes in and out of a `ServedNetwork`, for the manifest."""

    input: ImageInput
    transforms: tuple[Transform, ...]
    outputs: Sequence[str]


def signature(info: RunInfo) -> Signature:
    """Input and outputs of the network that ``info`` describes."""
    recipe = info.recipe
    height, width = recipe.canvas
    image = ImageInput(
        name=INPUT,
        height=height,
        width=width,
        channels=1 if info.channels == 1 else 3,
        resize="bilinear",
        background=(0,) * info.channels,
    )
    transform = Transform(
        name="transformer",
        kind=recipe.transformer,
        theta="theta",
        parameters="theta",
        rectified="rectified",
        height=recipe.rectified[0],
        width=recipe.rectified[1],
    )
    return Signature(image, (transform,), (PROBABILITIES, transform.theta, transform.rectified))
