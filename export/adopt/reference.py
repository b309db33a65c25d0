"""The network itself as the reference of parity: run as its author runs it, with its own grids recorded.

Nothing here uses the traced graph. Thetas are fitted in float64 to the grids that reach ``grid_sample``, by the
definition of each convention.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from export.adopt.network import Normalisation, as_input, is_step
from export.adopt.tracing import Place
from export.format.errors import ArtifactError
from export.format.golden import Outputs
from export.parity import Model

Floats = NDArray[np.float64]

CLOSE_PX = 0.01
"""Largest distance in pixels of a grid from the affine map that fits it best."""
SIGNATURE = inspect.signature(functional.grid_sample)


class Call(NamedTuple):
    """A call of ``grid_sample``."""

    grid: Tensor
    image: Tensor
    """Its result."""


class Calls(TorchFunctionMode):
    """Records all calls of ``grid_sample``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, and record it if it samples."""
        answer = func(*args, **(kwargs or {}))
        if func is functional.grid_sample:
            bound = SIGNATURE.bind(*args, **(kwargs or {}))
            self.found.append(Call(bound.arguments["grid"], answer))
        elif func in (torch.grid_sampler, torch.grid_sampler_2d):
            self.found.append(Call(args[1], answer))
        return answer


def untouched(
    network: nn.Module, places: Sequence[Place], normalisation: Normalisation, outputs: Sequence[str], *, softmax: bool
) -> Model:
    """Return the network as a model whose outputs follow the convention.

    The model raises `ArtifactError` if a grid is not affine, or does not reach the answer.
    """
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in normalisation)

    def run(images: NDArray[np.uint8]) -> Outputs:
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        with torch.no_grad(), Calls() as calls:
            answers = network(as_input(images, normalisation))
        found = [answer.numpy() for answer in answers]
        if softmax:
            found = [answers[0].softmax(dim=1).numpy()]
        if len(calls.found) != len(places):
            raise ArtifactError(
                f"forward calls grid_sample {len(calls.found)} times in Python, and {len(places)} samplers reach its "
                "outputs; remove calls whose result is not used, and torch.jit.script"
            )
        totals: list[Floats] = []
        for number, (place, call) in enumerate(zip(places, calls.found, strict=True)):
            own = fitted(call.grid, place, number)
            totals.append(own if place.parent is None else chained(totals[place.parent], own))
            found.append(totals[-1].astype(np.float32))
            if is_step(place, places):
                found.append(own.astype(np.float32))
            view = call.image.float().numpy() * std + mean if place.direct else resampled(pixels, totals[-1], place)
            found.append(np.round(view * np.float32(255)).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
        return dict(zip(outputs, found, strict=True))

    return run


def fitted(grid: Tensor, place: Place, number: int) -> Floats:
    """Fit theta ``(N, 2, 3)`` to a grid ``(N, h, w, 2)``, from the rectified image to the source of what it reads.

    Raises:
        ArtifactError: the grid is not affine.
    """
    sides = np.array(place.read[::-1], np.float64)
    points = grid.double().numpy().reshape(len(grid), -1, 2)
    at = (points + 1) / 2 * (sides - 1) if place.sampling.align_corners else ((points + 1) * sides - 1) / 2
    frame = (place.frame.x, place.frame.y)
    seen = np.array([axis.offset for axis in frame]) + np.array([axis.stride for axis in frame]) * at  # source pixels
    around = np.array(place.around[::-1], np.float64)
    (height, width) = place.size
    x, y = np.meshgrid((2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1)
    centres = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)  # (M, 3)
    wanted = (2 * seen + 1) / around - 1  # (N, M, 2)
    theta = np.einsum("km,nmi->nik", np.linalg.pinv(centres), wanted)
    gaps = np.abs(np.einsum("mk,nik->nmi", centres, theta) - wanted) * around / 2
    allowed = CLOSE_PX * max(1.0, float(np.abs(wanted).max()))
    if not gaps.max() <= allowed:
        raise ArtifactError(
            f"the grid of grid_sample number {number + 1} is not affine: it is up to {gaps.max():.3g} pixels from the "
            "best affine map; projective maps, splines and fields of offsets cannot be adopted"
        )
    return np.asarray(theta)


def chained(outer: Floats, inner: Floats) -> Floats:
    """Compose two affine maps, first ``inner``, then ``outer``: ``(N, 2, 3)`` each."""
    last = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(inner), 1, 3))
    return np.asarray(outer @ np.concatenate([inner, last], axis=1))


def resampled(pixels: NDArray[np.float32], theta: Floats, place: Place) -> NDArray[np.float32]:
    """Sample pictures ``(N, C, H, W)`` through theta, for the image of a transformer of features."""
    maps = torch.from_numpy(theta.astype(np.float32))
    grid = functional.affine_grid(maps, [len(maps), pixels.shape[1], *place.size], align_corners=False)
    return np.asarray(functional.grid_sample(torch.from_numpy(pixels), grid, align_corners=False).numpy())
