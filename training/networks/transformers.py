"""The kinds of spatial transformers: a pure function each, and a module with its buffers.

The localisation network predicts delta ``(N, P)``, offsets from the identity. Zero means the whole picture, so a
zero-initialised head starts there, and weight decay pulls towards it instead of towards a collapsed transform.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.networks.geometry import (
    affine_fit,
    affine_points,
    affine_residual,
    corner_points,
    projective_points,
    regular_grid,
    thin_plate_points,
    thin_plate_solver,
)


def affine_theta(delta: Tensor) -> Tensor:
    """Build a general affine map (Jaderberg et al. 2015, equation 1): ``(N, 6)`` row by row -> ``(N, 2, 3)``."""
    identity = torch.eye(2, 3, dtype=delta.dtype, device=delta.device)
    return identity + delta.view(-1, 2, 3)


def similarity_theta(delta: Tensor, aspect: float = 1.0) -> Tensor:
    """Build a map of rotation, isotropic scale and shift: delta ``(N, 4)`` = (a, b, x, y) -> ``(N, 2, 3)``.

    In pixels the picture is rotated by atan2(b, 1 + a) and scaled by hypot(1 + a, b). Without an explicit angle there
    is no discontinuity at half a turn. ``aspect`` is the picture's width divided by its height.
    """
    a, b, x, y = delta.unbind(dim=1)
    return torch.stack([1 + a, -b / aspect, x, b * aspect, 1 + a, y], dim=1).view(-1, 2, 3)


def attention_theta(delta: Tensor) -> Tensor:
    """Build a map of scale and shift (Jaderberg et al. 2015, eq. 2): delta ``(N, 3)`` = (s, x, y) -> ``(N, 2, 3)``."""
    s, x, y = delta.unbind(dim=1)
    nothing = torch.zeros_like(s)
    return torch.stack([1 + s, nothing, x, nothing, 1 + s, y], dim=1).view(-1, 2, 3)


def translation_theta(delta: Tensor) -> Tensor:
    """Build a shift (Jaderberg et al. 2015, section 4.3, where the size is fixed): ``(N, 2)`` -> ``(N, 2, 3)``."""
    x, y = delta.unbind(dim=1)
    nothing, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([one, nothing, x, nothing, one, y], dim=1).view(-1, 2, 3)


def rotation_theta(delta: Tensor, aspect: float = 1.0) -> Tensor:
    """Build a rotation about the centre: delta ``(N, 2)`` = (a, b) -> ``(N, 2, 3)``.

    The normalised direction (1 + a, b) is continuous for all rotations (Zhou et al. 2019); an angle is not. ``aspect``
    is the picture's width divided by its height.
    """
    direction = torch.stack([1 + delta[:, 0], delta[:, 1]], dim=1)
    length = direction.square().sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
    cosine, sine = (direction / length).unbind(dim=1)
    nothing = torch.zeros_like(sine)
    return torch.stack([cosine, -sine / aspect, nothing, sine * aspect, cosine, nothing], dim=1).view(-1, 2, 3)


def homography(delta: Tensor) -> Tensor:
    """Build a projective map: ``(N, 8)`` row by row -> ``(N, 3, 3)`` with 1 in the last corner."""
    identity = torch.eye(3, dtype=delta.dtype, device=delta.device)
    offsets = torch.cat([delta, torch.zeros_like(delta[:, :1])], dim=1)
    return identity + offsets.view(-1, 3, 3)


class Transformer(nn.Module, ABC):
    """Converts delta to a map from output points to picture points."""

    kind: ClassVar[str]
    linear: ClassVar[bool] = True
    """Whether the parameters are a linear function of delta plus a constant."""
    parameter_count: int
    """Number of values that the localisation network predicts."""

    def __init__(self, aspect: float = 1.0) -> None:
        """``aspect`` is the width divided by the height of what the transformer reads: a picture, or features."""
        super().__init__()
        self.aspect = aspect

    @abstractmethod
    def solve(self, delta: Tensor) -> Tensor:
        """Convert delta ``(N, P)`` to all parameters of the map, ``(N, rows, columns)``."""

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        """Map output ``points`` ``(N or 1, ..., 2)`` to the picture: ``(N, ..., 2)``."""
        return affine_points(parameters, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        """Return the affine map ``(N, 2, 3)``; of another map, its affine fit over ``grid`` ``(1, H, W, 2)``.

        ``grid`` is the `base_grid` of the rectified image (see `Warp.theta`).
        """
        return parameters

    def corners(self, parameters: Tensor) -> Tensor:
        """Map the output's corners to the picture, clockwise from the output's top left: ``(N, 4, 2)``."""
        return self.points(parameters, corner_points().to(parameters))


class AffineTransformer(Transformer):
    """A general affine map: shift, scale, rotation and skew."""

    kind = "affine"
    parameter_count = 6

    def solve(self, delta: Tensor) -> Tensor:
        return affine_theta(delta)


class SimilarityTransformer(Transformer):
    """Rotation, isotropic scale and shift."""

    kind = "similarity"
    parameter_count = 4

    def solve(self, delta: Tensor) -> Tensor:
        return similarity_theta(delta, self.aspect)


class AttentionTransformer(Transformer):
    """Isotropic scale and shift."""

    kind = "attention"
    parameter_count = 3

    def solve(self, delta: Tensor) -> Tensor:
        return attention_theta(delta)


class TranslationTransformer(Transformer):
    """A shift; the size of the region stays what it is at the start."""

    kind = "translation"
    parameter_count = 2

    def solve(self, delta: Tensor) -> Tensor:
        return translation_theta(delta)


class RotationTransformer(Transformer):
    """Rotation about the centre."""

    kind = "rotation"
    linear = False
    parameter_count = 2

    def solve(self, delta: Tensor) -> Tensor:
        return rotation_theta(delta, self.aspect)


class ProjectiveTransformer(Transformer):
    """A projective map (homography)."""

    kind = "projective"
    parameter_count = 8

    def solve(self, delta: Tensor) -> Tensor:
        return homography(delta)

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        return projective_points(parameters, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        return affine_fit(self.points(parameters, grid), grid)


class ThinPlateTransformer(Transformer):
    """A thin-plate spline through K x K control points (Jaderberg et al. 2015, section 3.2; Bookstein 1989).

    Delta has an affine part (6 values) and an offset of each control point. The affine component of the offsets is
    removed, so that each part can be regularised separately. The parameters are
    the picture positions of the control points, ``(N, K * K, 2)``.
    """

    kind = "tps"
    control: Tensor
    solver: Tensor
    residual: Tensor

    def __init__(self, side: int = 4) -> None:
        """Use ``side`` x ``side`` control points, spaced evenly over the output from edge to edge."""
        super().__init__()
        self.parameter_count = 6 + 2 * side * side
        control = regular_grid(side)
        self.register_buffer("control", control, persistent=False)
        self.register_buffer("solver", thin_plate_solver(control), persistent=False)
        self.register_buffer("residual", affine_residual(control), persistent=False)

    def solve(self, delta: Tensor) -> Tensor:
        offsets = delta[:, 6:].view(-1, *self.control.shape)
        return affine_points(affine_theta(delta[:, :6]), self.control[None]) + self.residual @ offsets

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        return thin_plate_points(self.solver @ parameters, self.control, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        return affine_fit(self.points(parameters, grid), grid)
