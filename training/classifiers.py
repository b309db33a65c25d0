"""Classifiers, and the network that composes localisation, transformer and classifier."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.localisation import ConvLocalisation
from training.recipes import Recipe
from training.transformers import AffineTransformer, Warp


class Output(NamedTuple):
    """What the network says about a batch."""

    logits: Tensor
    """``(N, K)``: unnormalised log-probabilities of the classes."""
    warps: tuple[Warp, ...]
    """What each spatial transformer did, in the order of the data flow."""


class ConvClassifier(nn.Sequential):
    """``(N, C, H, W)`` -> logits ``(N, K)``.

    Three stages of two 3x3 convolutions with batch normalisation; the last stage is averaged over the picture.
    """

    def __init__(self, channels: int, classes: int, width: int = 24) -> None:
        """``width`` filters in the first stage, twice and four times as many in the next two."""
        layers: list[nn.Module] = []
        inputs = channels
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(2):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class SpatialTransformerClassifier(nn.Module):
    """Straighten, then read (Jaderberg et al. 2015, figure 2).

    The sampler reads the picture as it is, in [0, 1], and the mean and spread are taken off afterwards: zero
    padding then stays black instead of turning grey.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, classes: int, channels: int) -> None:
        """For pictures of ``recipe.canvas`` pixels with ``channels`` channels, told apart into ``classes``."""
        super().__init__()
        self.transformer = AffineTransformer(recipe.rectified)
        self.localisation = ConvLocalisation(channels, recipe.canvas, self.transformer.parameter_count)
        self.classifier = ConvClassifier(channels, classes, recipe.classifier_width)
        self.register_buffer("mean", torch.tensor(recipe.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(recipe.std).view(-1, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Zero mean and unit variance: ``(N, C, H, W)`` -> the same shape."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Output:
        """``(N, C, H, W)`` in [0, 1] -> logits ``(N, K)`` and the warp."""
        delta = self.localisation(self.normalise(images))
        warp: Warp = self.transformer(images, delta)
        return Output(self.classifier(self.normalise(warp.rectified)), (warp,))
