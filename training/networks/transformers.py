"""The kinds of spatial transformers: a pure function each, and a thin module that holds its buffers.

What the localisation network predicts is delta ``(N, P)``, offsets from the identity: zero means "look at the whole
picture", so a zero-initialised head starts there and weight decay pulls there, not to a collapsed transform.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.networks.geometry import (
    affine_fit,
    affine_points,
    affine_residual,
    bend_points,
    corner_points,
    lattice,
    projective_points,
    thin_plate_solver,
)


def affine_theta(delta: Tensor) -> Tensor:
    """All six parameters (Jaderberg et al. 2015, equation 1): ``(N, 6)`` row by row -> ``(N, 2, 3)``."""
    identity = torch.eye(2, 3, dtype=delta.dtype, device=delta.device)
    return identity + delta.view(-1, 2, 3)


def similarity_theta(delta: Tensor, aspect: float = 1.0) -> Tensor:
    """Rotation, isotropic scale and shift: delta ``(N, 4)`` = (a, b, x, y) -> ``(N, 2, 3)``.

    In pixels the picture is turned by atan2(b, 1 + a) and scaled by hypot(1 + a, b); there is no angle, and so no jump
    at half a turn. ``aspect`` is the picture's width over its height.
    """
    a, b, x, y = delta.unbind(dim=1)
    return torch.stack([1 + a, -b / aspect, x, b * aspect, 1 + a, y], dim=1).view(-1, 2, 3)


def attention_theta(delta: Tensor) -> Tensor:
    """Isotropic scale and shift (Jaderberg et al. 2015, equation 2): delta ``(N, 3)`` = (s, x, y) -> ``(N, 2, 3)``."""
    s, x, y = delta.unbind(dim=1)
    nothing = torch.zeros_like(s)
    return torch.stack([1 + s, nothing, x, nothing, 1 + s, y], dim=1).view(-1, 2, 3)


def rotation_theta(delta: Tensor, aspect: float = 1.0) -> Tensor:
    """Rotation alone, about the centre: delta ``(N, 2)`` = (a, b) -> ``(N, 2, 3)``.

    The direction (1 + a, b), brought to length 1, is continuous all the way round (Zhou et al. 2019); an angle is not.
    ``aspect`` is the picture's width over its height.
    """
    direction = torch.stack([1 + delta[:, 0], delta[:, 1]], dim=1)
    length = direction.square().sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
    cosine, sine = (direction / length).unbind(dim=1)
    nothing = torch.zeros_like(sine)
    return torch.stack([cosine, -sine / aspect, nothing, sine * aspect, cosine, nothing], dim=1).view(-1, 2, 3)


def homography(delta: Tensor) -> Tensor:
    """All eight parameters of a projective map: ``(N, 8)`` row by row -> ``(N, 3, 3)`` with 1 in the last corner."""
    identity = torch.eye(3, dtype=delta.dtype, device=delta.device)
    offsets = torch.cat([delta, torch.zeros_like(delta[:, :1])], dim=1)
    return identity + offsets.view(-1, 3, 3)


class Transformer(nn.Module, ABC):
    """From delta to a map of output points to picture points."""

    kind: ClassVar[str]
    parameter_count: int
    """How many numbers the localisation network must predict."""

    def __init__(self, aspect: float = 1.0) -> None:
        """``aspect`` is the picture's width over its height."""
        super().__init__()
        self.aspect = aspect

    @abstractmethod
    def solve(self, delta: Tensor) -> Tensor:
        """``(N, P)`` -> the map's parameters in full, ``(N, rows, columns)``."""

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        """Where ``points`` ``(N or 1, ..., 2)`` of the output lie in the picture: ``(N, ..., 2)``."""
        return affine_points(parameters, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        """The affine map ``(N, 2, 3)``, or the one that fits best over ``grid`` ``(1, H, W, 2)``."""
        return parameters

    def corners(self, parameters: Tensor) -> Tensor:
        """Where the corners of the output lie in the picture, clockwise from its top left: ``(N, 4, 2)``."""
        return self.points(parameters, corner_points().to(parameters))


class AffineTransformer(Transformer):
    """`affine_theta`: shift, scale, rotation and skew."""

    kind = "affine"
    parameter_count = 6

    def solve(self, delta: Tensor) -> Tensor:
        return affine_theta(delta)


class SimilarityTransformer(Transformer):
    """`similarity_theta`: rotation, isotropic scale and shift."""

    kind = "similarity"
    parameter_count = 4

    def solve(self, delta: Tensor) -> Tensor:
        return similarity_theta(delta, self.aspect)


class AttentionTransformer(Transformer):
    """`attention_theta`: isotropic scale and shift."""

    kind = "attention"
    parameter_count = 3

    def solve(self, delta: Tensor) -> Tensor:
        return attention_theta(delta)


class RotationTransformer(Transformer):
    """`rotation_theta`: rotation about the centre."""

    kind = "rotation"
    parameter_count = 2

    def solve(self, delta: Tensor) -> Tensor:
        return rotation_theta(delta, self.aspect)


class ProjectiveTransformer(Transformer):
    """`homography`: perspective too."""

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

    Delta is an affine part (6) and a bend (an offset of each control point); what an affine map could do is taken out
    of the bend, so that theta is the affine part and nothing else, and each can be held back for itself. The parameters
    in full are where the control points lie in the picture, ``(N, K * K, 2)``.
    """

    kind = "tps"
    control: Tensor
    solver: Tensor
    residual: Tensor

    def __init__(self, side: int = 4) -> None:
        """With ``side`` x ``side`` control points, spread evenly over the output from edge to edge."""
        super().__init__()
        self.parameter_count = 6 + 2 * side * side
        control = lattice(side)
        self.register_buffer("control", control, persistent=False)
        self.register_buffer("solver", thin_plate_solver(control), persistent=False)
        self.register_buffer("residual", affine_residual(control), persistent=False)

    def solve(self, delta: Tensor) -> Tensor:
        offsets = delta[:, 6:].view(-1, *self.control.shape)
        return affine_points(affine_theta(delta[:, :6]), self.control[None]) + self.residual @ offsets

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        return bend_points(self.solver @ parameters, self.control, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        x, y = self.control[:, :, None].unbind(dim=1)  # (K * K, 1) each; symmetric and uncorrelated, as in affine_fit
        columns = [
            (parameters * x).mean(dim=1) / x.square().mean(),
            (parameters * y).mean(dim=1) / y.square().mean(),
            parameters.mean(dim=1),
        ]
        return torch.stack(columns, dim=-1)
