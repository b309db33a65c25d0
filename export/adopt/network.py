"""The served form of an adopted network: from uint8 pictures to its answer, thetas and rectified images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional

from export.adopt.tracing import AFFINE_GRID, Place, Traced
from export.format.manifest import ImageInput, Transform
from export.graph import INPUT, PROBABILITIES, Signature
from training.networks.geometry import affine_fit, affine_points, base_grid, compose

ASSERTION = torch.ops.aten._assert_tensor_metadata.default


class Normalisation(NamedTuple):
    """What is subtracted from pictures in [0, 1], and what they are divided by; one number per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Conversion(NamedTuple):
    """Converts a theta of the network to the convention: ``rows * theta * columns + shift``."""

    rows: tuple[float, float]
    """Factors of x and y in the source."""
    columns: tuple[float, float, float]
    """Factors of x, y and 1 in the rectified image."""
    shift: tuple[float, float]
    """Shift of x and y in the source."""

    @property
    def is_identity(self) -> bool:
        """Whether the network already follows the convention."""
        return self == Conversion((1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0))


def conversion(place: Place) -> Conversion:
    """Return the conversion of a transformer's own theta to a map into the picture, or its parent's image."""
    rows, columns, shift = [], [], []
    for axis, read, size, around in zip(
        (place.frame.x, place.frame.y), place.read[::-1], place.size[::-1], place.around[::-1], strict=True
    ):
        corners = (read - 1) / read if place.sampling.align_corners else 1.0
        rows.append(corners * axis.stride * read / around)
        shift.append((2 * axis.offset + axis.stride * (read - 1) + 1) / around - 1)
        columns.append(size / (size - 1) if place.sampling.grid_align_corners else 1.0)
    return Conversion((rows[0], rows[1]), (columns[0], columns[1], 1.0), (shift[0], shift[1]))


class Sampled(NamedTuple):
    """What a transformer did with a batch."""

    theta: Tensor
    """``(N, 2, 3)``, in the network's own convention."""
    image: Tensor
    """``(N, C, h, w)``."""


class Watched(Interpreter):
    """Runs the graph, with a product in the place of each ``affine_grid``, and records what samplers do."""

    def __init__(self, graph: GraphModule, places: Sequence[Place], bases: Mapping[str, Tensor]) -> None:
        super().__init__(graph)
        self.sampled: list[Sampled] = []
        self._places = {place.node: place for place in places}
        self._bases = bases
        self._thetas: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node of the graph."""
        if n.target is AFFINE_GRID:
            (theta, *_), _ = self.fetch_args_kwargs_from_env(n)
            self._thetas[n.name] = theta
            return affine_points(theta, self._bases[n.name])
        if n.target is ASSERTION:  # which would refuse float64, in which rounding is measured
            return None
        if n.name not in self._places:
            return super().run_node(n)
        place = self._places[n.name]
        (_, grid, *_), _ = self.fetch_args_kwargs_from_env(n)
        image = super().run_node(n)
        theta = affine_fit(grid, self._bases[n.name]) if place.affine_grid is None else self._thetas[place.grid]
        self.sampled.append(Sampled(theta, image))
        return image


class AdoptedNetwork(nn.Module):
    """Wraps a traced network: uint8 pictures -> its answer and the outputs of each transformer; see `describe`."""

    def __init__(self, traced: Traced, normalisation: Normalisation, *, softmax: bool) -> None:
        """``softmax`` is whether the answer is converted to probabilities."""
        super().__init__()
        self.traced, self.places, self.softmax = traced.graph, traced.places, softmax
        self.input_mean: Tensor
        self.input_std: Tensor
        self.register_buffer("input_mean", torch.tensor(normalisation.mean).view(-1, 1, 1))
        self.register_buffer("input_std", torch.tensor(normalisation.std).view(-1, 1, 1))
        self.conversions = tuple(map(conversion, traced.places))
        for number, (place, found) in enumerate(zip(self.places, self.conversions, strict=True)):
            own = torch.tensor([(*[row * column for column in found.columns],) for row in found.rows])
            self.register_buffer(f"map_scale_{number}", own)  # (2, 3)
            self.register_buffer(f"map_shift_{number}", torch.tensor([[0, 0, shift] for shift in found.shift]))
            self.register_buffer(f"centres_{number}", base_grid(*place.size))
        self._bases: dict[str, str] = {}
        for node in traced.graph.graph.nodes:
            if node.target is AFFINE_GRID:
                self._bases[node.name] = f"base_{node.name}"
                self.register_buffer(f"base_{node.name}", own_grid(node))
        self._bases |= {place.node: f"centres_{number}" for number, place in enumerate(self.places)}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(N, H, W, C)`` uint8 -> the answer, and theta, parameters and rectified image of each transformer."""
        pixels = in_order(image.permute(0, 3, 1, 2).float()) / 255  # (N, C, H, W)
        bases = {name: getattr(self, buffer) for name, buffer in self._bases.items()}
        watched = Watched(self.traced, self.places, bases)
        answers = list(watched.run((pixels - self.input_mean) / self.input_std))
        if self.softmax:
            answers = [answers[0].softmax(dim=1)]
        totals: list[Tensor] = []
        for number, (place, sampled) in enumerate(zip(self.places, watched.sampled, strict=True)):
            own = sampled.theta
            if not self.conversions[number].is_identity:
                own = own * getattr(self, f"map_scale_{number}") + getattr(self, f"map_shift_{number}")
            totals.append(own if place.parent is None else compose(totals[place.parent], own))
            answers.append(totals[-1])
            if is_step(place, self.places):
                answers.append(own)
            if place.direct:
                view = sampled.image * self.input_std + self.input_mean
            else:
                grid = affine_points(totals[-1], getattr(self, f"centres_{number}"))
                view = functional.grid_sample(pixels, grid, align_corners=False)
            answers.append(torch.round(view * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
        return tuple(answers)


def as_input(images: NDArray[np.uint8], normalisation: Normalisation) -> Tensor:
    """Convert pictures ``(N, H, W, C)`` to the input of the user's network, ``(N, C, H, W)``."""
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in normalisation)
    return (in_order(torch.from_numpy(images).permute(0, 3, 1, 2).float()) / 255 - mean) / std


def in_order(pixels: Tensor) -> Tensor:
    """Return ``pixels`` ``(N, C, H, W)`` with the strides of that order, for networks that call ``view``."""
    return pixels.clone(memory_format=torch.contiguous_format)


def own_grid(node: Node) -> Tensor:
    """Return the points ``(1, H, W, 2)`` to which the network's ``affine_grid`` applies theta."""
    size: Any = node.args[1]
    height, width = size[-2:]
    grid = base_grid(height, width)
    factors = [side / (side - 1) if node.args[2] and side > 1 else 1.0 for side in (width, height)]
    return (grid.double() * torch.tensor(factors, dtype=torch.float64)).float()


def is_step(place: Place, places: Sequence[Place]) -> bool:
    """Whether ``place`` transforms the image of another transformer, as the next step of its branch."""
    siblings = [other for other in places if other.parent == place.parent]
    return place.parent is not None and siblings[0] == place


def describe(image: ImageInput, places: Sequence[Place], features: Sequence[str]) -> Signature:
    """Describe input and outputs of an `AdoptedNetwork`; ``features`` are the raw outputs, if it has no classes."""
    found: list[Transform] = []
    for number, place in enumerate(places):
        suffix = "" if len(places) == 1 else f"_{number + 1}"
        step = is_step(place, places)
        before = found[place.parent] if place.parent is not None and step else None
        branches = max((transform.branch for transform in found), default=0)
        found.append(
            Transform(
                name=f"transformer{suffix}",
                kind="affine",
                branch=branches + 1 if before is None else before.branch,
                step=1 if before is None else before.step + 1,
                reads="picture" if place.direct else "features",
                theta=f"theta{suffix}",
                parameters=f"parameters{suffix}" if step else f"theta{suffix}",
                parameters_shape=(2, 3),
                rectified=f"rectified{suffix}",
                height=place.size[0],
                width=place.size[1],
                sampling=place.sampling,
            )
        )
    outputs = list(features or [PROBABILITIES])
    for transform in found:
        outputs += dict.fromkeys((transform.theta, transform.parameters, transform.rectified))
    return Signature(image, tuple(found), outputs)


def image_input(height: int, width: int, channels: int) -> ImageInput:
    """Return the description of the input."""
    return ImageInput(
        name=INPUT,
        height=height,
        width=width,
        channels=1 if channels == 1 else 3,
        resize="bilinear",
        background=(0,) * channels,
    )
