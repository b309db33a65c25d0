"""Maps from output positions to picture positions: pure functions on batches of points.

Convention:
    It holds in training, export and service.

    - A map takes *output* coordinates (of the rectified image) to *input* coordinates (of the picture). An affine map
      is theta ``(N, 2, 3)``: ``input = theta @ [x, y, 1]``.
    - Coordinates are normalised to [-1, 1] in the order (x, y), x to the right and y down.
    - ``align_corners=False``: -1 and 1 are the outer edges of the border pixels, so the centre of pixel ``j`` of
      ``W`` lies at ``(2 j + 1) / W - 1``.
    - Images are ``(N, C, H, W)`` float in [0, 1]. Points are ``(N, ..., 2)``, or ``(1, ..., 2)`` if they are the same
      for every item of the batch. Grids are points of shape ``(N, H, W, 2)``.

Affine maps are applied by multiplication and addition, not by ``affine_grid`` or a matrix product: ONNX Runtime has no
CUDA kernel for AffineGrid, and a matrix product would lose precision to TF32 on a GPU.
"""

import torch
from torch import Tensor

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""The rectified image's corners in its own coordinates, clockwise from top left."""
HORIZON = 0.1
"""Smallest homogeneous coordinate of a visible point under a projective map."""
BEYOND = 10.0
"""Coordinate of invisible points: outside of the picture, but small enough for float32."""


def base_grid(height: int, width: int) -> Tensor:
    """Return the normalised pixel centres of a ``height`` x ``width`` image: ``(1, H, W, 2)`` in the order (x, y)."""
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


def corner_points() -> Tensor:
    """Return `CORNERS` as points: ``(1, 4, 2)``."""
    return torch.tensor(CORNERS)[None]


def affine_points(theta: Tensor, points: Tensor) -> Tensor:
    """Apply affine maps.

    Args:
        theta: ``(N, 2, 3)``.
        points: ``(N or 1, ..., 2)``.

    Returns:
        ``(N, ..., 2)``.
    """
    planes = points.movedim(-1, 1)  # x and y as separate planes, on which runtimes are many times faster
    columns = theta.view(-1, 2, 3, *[1] * (points.dim() - 3))
    x, y, shift = torch.split(columns, 1, dim=2)  # (N, 2, 1, ...) each
    mapped: Tensor = x * planes[:, :1] + y * planes[:, 1:] + shift
    return mapped.movedim(1, -1)


def projective_points(homography: Tensor, points: Tensor) -> Tensor:
    """Apply projective maps (homographies) ``(N, 3, 3)`` to ``points`` ``(N or 1, ..., 2)``: ``(N, ..., 2)``.

    Points at or beyond the horizon are mapped to `BEYOND`.
    """
    flat = affine_points(homography[:, :2], points)
    depth = affine_points(homography[:, 1:], points)[..., 1:]  # only the last row counts
    return torch.where(depth > HORIZON, flat / depth.clamp(min=HORIZON), torch.full_like(flat, BEYOND))


def affine_fit(points: Tensor, grid: Tensor) -> Tensor:
    """Return the least-squares affine fit of the map ``grid`` -> ``points``.

    Args:
        points: ``(N, H, W, 2)``: picture positions of the pixels of an output image.
        grid: ``(1, H, W, 2)`` from `base_grid`. Its coordinates are symmetric and uncorrelated, so the normal equations
            are diagonal.

    Returns:
        theta ``(N, 2, 3)``, which is exact if the points are an affine image of the grid.
    """
    variance = grid.square().mean(dim=(1, 2))  # (1, 2)
    x = (points * grid[..., :1]).mean(dim=(1, 2)) / variance[:, :1]  # (N, 2)
    y = (points * grid[..., 1:]).mean(dim=(1, 2)) / variance[:, 1:]
    return torch.stack([x, y, points.mean(dim=(1, 2))], dim=-1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Compose two affine maps, first ``inner``, then ``outer``: ``(N, 2, 3)`` each -> ``(N, 2, 3)``."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    shift = (outer[:, :, :2] @ inner[:, :, 2:]) + outer[:, :, 2:]
    return torch.cat([linear, shift], dim=-1)


def inverse_points(theta: Tensor, points: Tensor) -> Tensor:
    """Apply the inverse of affine maps ``(N, 2, 3)`` to ``points`` ``(N, M, 2)``: ``(N, M, 2)``."""
    inverse = torch.linalg.inv(theta[:, :, :2])
    moved: Tensor = (points - theta[:, None, :, 2]) @ inverse.transpose(1, 2)
    return moved


def undistorted(distortion: Tensor, theta: Tensor) -> Tensor:
    """Return the maps ``(N, 2, 3)`` from the rectified image to the undistorted picture: theta, then the distortion.

    If the distortion mirrors a picture, its rectified image is mirrored too. A transformer that does not mirror
    pictures therefore never appears as a mirror image here, and one that does always appears as one.

    Args:
        distortion: ``(N, 2, 3)`` from the distorted to the undistorted picture.
        theta: ``(N, 2, 3)`` from the rectified image to the distorted picture.
    """
    side = torch.where(torch.linalg.det(distortion[:, :, :2]) < 0, -1.0, 1.0)[:, None]  # (N, 1)
    maps = compose(distortion, theta)
    return torch.cat([maps[:, :, :1] * side[:, None], maps[:, :, 1:]], dim=-1)


def regular_grid(side: int) -> Tensor:
    """Return ``side`` x ``side`` points, spaced evenly from edge to edge: ``(side * side, 2)``, row by row."""
    places = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1).view(-1, 2)


def thin_plate_kernel(points: Tensor, control: Tensor) -> Tensor:
    """Return the radial basis of a thin-plate spline, ``r^2 log r^2``.

    Args:
        points: ``(..., 2)``.
        control: ``(K, 2)``.

    Returns:
        ``(..., K)``; 0 where a point and a control point coincide.
    """
    squared = (points[..., None, :] - control).square().sum(dim=-1)
    return squared * torch.log(squared.clamp(min=torch.finfo(squared.dtype).tiny))


def thin_plate_solver(control: Tensor) -> Tensor:
    """Return the matrix that converts targets of control points to spline coefficients (Bookstein 1989).

    Args:
        control: ``(K, 2)``, not collinear.

    Returns:
        ``(K + 3, K)``: its product with targets ``(K, 2)`` gives K weights of the radial basis, followed by the offset
        and the slopes of the affine part.
    """
    exact = control.double()
    count = len(control)
    affine = torch.cat([torch.ones(count, 1, dtype=torch.float64), exact], dim=1)  # (K, 3)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = thin_plate_kernel(exact, exact)
    system[:count, count:] = affine
    system[count:, :count] = affine.T
    inverse: Tensor = torch.linalg.inv(system)
    return inverse[:, :count].to(control.dtype)


def affine_residual(control: Tensor) -> Tensor:
    """Return the projection that removes the affine part of targets: control points ``(K, 2)`` -> ``(K, K)``."""
    exact = control.double()
    affine = torch.cat([torch.ones(len(control), 1, dtype=torch.float64), exact], dim=1)  # (K, 3)
    projection: Tensor = torch.eye(len(control), dtype=torch.float64) - affine @ torch.linalg.pinv(affine)
    return projection.to(control.dtype)


def thin_plate_points(coefficients: Tensor, control: Tensor, points: Tensor) -> Tensor:
    """Apply thin-plate splines.

    Args:
        coefficients: ``(N, K + 3, 2)``, from `thin_plate_solver`.
        control: ``(K, 2)``.
        points: ``(N or 1, ..., 2)``.

    Returns:
        ``(N, ..., 2)``.
    """
    flat = points.flatten(1, -2)  # (N or 1, M, 2)
    terms = torch.cat([thin_plate_kernel(flat, control), torch.ones_like(flat[..., :1]), flat], dim=-1)
    return (terms @ coefficients).view(-1, *points.shape[1:])
