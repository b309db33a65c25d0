"""Trace a network to a graph, and find its spatial transformers there.

The graph is that of `torch.export`, at the level of ATen. It shows every sampler, however the network has called it:
under another name, in a nested module or in a scripted function.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from export.adopt.checks import Chosen
from export.adopt.errors import quote
from export.adopt.frames import SAMPLERS, Frame, follow, sides
from export.format.errors import ArtifactError
from export.format.manifest import Sampling

AFFINE_GRID = torch.ops.aten.affine_grid_generator.default
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
"""Names of `torch.nn.functional.grid_sample`'s codes."""


class Place(NamedTuple):
    """A sampler in the graph."""

    node: str
    grid: str
    affine_grid: str | None
    """The node that made the grid; None for a grid built by hand."""
    sampling: Sampling
    size: tuple[int, int]
    """Height and width of its output."""
    read: tuple[int, int]
    """Height and width of the image or features that it reads."""
    frame: Frame
    """The place of what it reads in the picture, or in the image of the transformer ``parent``."""
    parent: int | None
    """Position of the transformer whose image it reads; None for the picture."""
    around: tuple[int, int]
    """Height and width of the source of ``frame``."""
    direct: bool
    """Whether it reads the picture or an image itself, and not features."""


class Traced(NamedTuple):
    """A network as a graph."""

    graph: GraphModule
    places: tuple[Place, ...]


def trace(network: Chosen, example: Tensor) -> Traced:
    """Trace ``network`` for any number of pictures like ``example`` ``(N, C, H, W)``.

    Raises:
        ArtifactError: it cannot be traced, has no sampler, or one that cannot be expressed in the convention.
    """
    program = export(network, example)
    exported = program.module(check_guards=False)
    graph = GraphModule(exported, exported.graph)  # without the refusal of eval() and train()
    return Traced(graph, find_places(graph))


def export(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Export ``network`` with a symbolic batch size; see `trace`.

    The strict way reads the code of ``forward``. It understands ``len(x)``, which fixes the batch size in the other
    way, but fewer programs on the whole.
    """

    def attempt(*, strict: bool) -> torch.export.ExportedProgram:
        sizes = ({0: torch.export.Dim("batch")},)
        with quietly(), torch.no_grad():
            return torch.export.export(deepcopy(network), (example,), dynamic_shapes=sizes, strict=strict)

    try:
        try:
            return attempt(strict=False)
        except Exception as error:
            if not fixes_batch(error):
                raise
            return attempt(strict=True)
    except Exception as error:
        said = str(error)
        if "data-dependent" in said or "DataDependent" in type(error).__name__ or "Tensor-likes" in said:
            raise ArtifactError(
                "forward decides by the values of the picture, which a graph cannot: an if, a loop, .item() or a "
                f"selection ({quote(error)}); compute both ways and choose with torch.where"
            ) from error
        if fixes_batch(error):
            raise ArtifactError(
                "forward fixes the batch size; use x.size(0) or -1 instead of a number in views, and no loop "
                "over the pictures"
            ) from error
        raise ArtifactError(
            f"torch.export cannot trace forward: {quote(error)}; keep to operations on tensors in forward, "
            "without torch.jit.script"
        ) from error


def fixes_batch(error: Exception) -> bool:
    """Whether an export failed because the batch size is a constant somewhere."""
    said = str(error)
    return "batch" in said and ("onstrain" in said or "pecializ" in said)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings and logs of torch's exporters, whose errors say the same."""
    levels = {name: logging.getLogger(name).level for name in ("torch.export", "torch.fx", "torch.onnx", "torch")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def find_places(graph: GraphModule) -> tuple[Place, ...]:
    """Return the samplers of ``graph`` in the order of the data flow; see `trace`."""
    nodes = {node.name: node for node in graph.graph.nodes}
    picture = next(node for node in nodes.values() if node.op == "placeholder")
    frames = follow(graph.graph, picture)
    found = [node for node in nodes.values() if node.target in SAMPLERS]
    if any("grid_sampler_3d" in str(node.target) for node in nodes.values()) or None in map(sides, found):
        raise ArtifactError("grid_sample reads volumes (N, C, D, H, W); only transformers of pictures can be served")
    if not found and any(
        node.target in SAMPLERS
        for module in graph.modules()
        if isinstance(module, GraphModule)
        for node in module.graph.nodes
    ):
        raise ArtifactError(
            "grid_sample is called inside autocast or another context, which a graph keeps apart; leave that context "
            "out in evaluation"
        )
    if not found:
        raise ArtifactError(
            "forward calls no grid_sample, so there is no spatial transformer to serve; name the whole network, or put "
            "a straightener in front of this one: python -m export.compose"
        )
    order = {node.name: place for place, node in enumerate(found)}
    return tuple(describe(node, frames.get(arguments(node)[0].name), nodes, order) for node in found)


def arguments(node: Node) -> tuple[Any, ...]:
    """Return image, grid, mode, padding and ``align_corners`` of a sampler."""
    return tuple(node.args) + tuple(node.kwargs.values())


def describe(node: Node, frame: Frame | None, nodes: dict[str, Node], order: dict[str, int]) -> Place:
    """Describe one sampler; ``order`` has the positions of all samplers."""
    image, grid, mode, padding, align_corners = arguments(node)
    size, read = sides(node), sides(image)
    if frame is None or size is None or read is None:
        raise ArtifactError(
            f"grid_sample number {order[node.name] + 1} reads features whose place in the picture is unknown, because "
            f"{getattr(image.target, '__name__', image.target)} made them; theta can be followed through convolutions, "
            "pooling and operations that keep height and width"
        )
    if min(size) < 2:
        raise ArtifactError(f"grid_sample gives an image of {size[0]}x{size[1]} pixels; theta needs two on each side")
    affine = grid.target is AFFINE_GRID
    around = sides(nodes[frame.source])
    if around is None:
        raise ArtifactError("the picture is not (N, C, H, W); forward must take such pictures")
    return Place(
        node=node.name,
        grid=grid.name,
        affine_grid=grid.name if affine else None,
        sampling=Sampling(
            grid="affine_grid" if affine else "by hand",
            grid_align_corners=bool(grid.args[2]) if affine else False,
            align_corners=bool(align_corners),
            mode=MODES[mode],
            padding=PADDINGS[padding],
        ),
        size=size,
        read=read,
        frame=frame,
        parent=order.get(frame.source),
        around=around,
        direct=frame.source == image.name,
    )
