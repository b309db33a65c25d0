"""What stands between straightener and classifier: sampling the whole picture through the straightener's map."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.adopt.network import Normalisation, in_order
from export.format.errors import ArtifactError
from export.format.manifest import NO_TRANSFORMER, Manifest, Transform
from export.graph import PLAIN_KINDS
from training.networks.geometry import (
    affine_points,
    projective_points,
    regular_grid,
    thin_plate_points,
    thin_plate_solver,
)
from training.networks.samplers import Sampler

Padding = Literal["zeros", "border", "reflection"]
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601)."""


class View(NamedTuple):
    """How the other classifier wants its pictures."""

    size: tuple[int, int]
    channels: int
    last: bool
    """Whether channels are the last axis."""
    normalisation: Normalisation
    padding: Padding


def straightening(manifest: Manifest) -> Transform:
    """Return the transformer of a straightener whose map is used.

    Raises:
        ArtifactError: its map cannot be told from one output.
    """
    main = manifest.transforms[manifest.main]
    if manifest.sequence is not None:
        raise ArtifactError("this model shows several objects of a picture; name one that straightens a single one")
    if main.kind == NO_TRANSFORMER:
        raise ArtifactError("this model has no transformer, so it straightens nothing; name one that has")
    if main.reads != "picture":
        raise ArtifactError("the straightener transforms only features; name one that transforms the picture")
    if main.kind not in PLAIN_KINDS and (main.step > 1 or any(t.branch > 1 for t in manifest.transforms)):
        raise ArtifactError(
            f"the straightener has several {main.kind} transformers, whose maps are not composed in its outputs; name "
            "one with a single step, or of an affine kind"
        )
    return main


class Resampling(nn.Module):
    """``image`` ``(N, H, W, C)`` uint8 and the map -> the classifier's input, and the rectified image."""

    def __init__(self, transform: Transform, canvas: tuple[int, int], view: View) -> None:
        """``canvas`` is the height and width of the picture. Zooming out is anti-aliased by several samples a pixel."""
        super().__init__()
        self.kind = transform.kind
        self.view = view
        samples = max(1, *(round(side / wanted) for side, wanted in zip(canvas, view.size, strict=True)))
        self.sampler = Sampler(view.size, view.padding, samples)
        for name, numbers in view.normalisation._asdict().items():
            self.register_buffer(f"view_{name}", torch.tensor(numbers).view(-1, 1, 1))
        self.register_buffer("luma", torch.tensor(LUMA).view(-1, 1, 1))
        if self.kind == "tps":
            control = regular_grid(round(transform.parameters_shape[0] ** 0.5))
            self.register_buffer("control", control)
            self.register_buffer("solver", thin_plate_solver(control))

    view_mean: Tensor
    view_std: Tensor
    luma: Tensor
    control: Tensor
    solver: Tensor

    def forward(self, image: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Sample ``image`` through ``parameters``: theta, a homography, or the targets of a spline."""
        canvas = in_order(image.permute(0, 3, 1, 2).to(parameters.dtype)) / 255
        rectified = self.sampler(canvas, self.points(parameters, self.sampler.fine.to(parameters.dtype)))
        levels = torch.round(rectified * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        seen = rectified
        if seen.shape[1] > self.view.channels:
            seen = (seen * self.luma).sum(dim=1, keepdim=True)
        elif seen.shape[1] < self.view.channels:
            seen = torch.cat([seen] * self.view.channels, dim=1)
        seen = ((seen - self.view_mean) / self.view_std).float()
        return (seen.permute(0, 2, 3, 1) if self.view.last else seen), levels

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        """Apply the straightener's map to ``points`` ``(1, h, w, 2)``."""
        if self.kind == "projective":
            return projective_points(parameters, points)
        if self.kind == "tps":
            solver, control = self.solver.to(points.dtype), self.control.to(points.dtype)
            return thin_plate_points(solver @ parameters, control, points)
        return affine_points(parameters, points)

    def apart(
        self, images: NDArray[np.uint8], parameters: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Sample in float64, as this module then is, and always as ``(N, C, H, W)``."""
        with torch.no_grad():
            seen, levels = self(torch.from_numpy(images), torch.from_numpy(parameters).double())
        return np.asarray((seen.permute(0, 3, 1, 2) if self.view.last else seen).numpy()), np.asarray(levels.numpy())
