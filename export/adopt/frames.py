"""The place of features in the picture: the point that the centre of each feature sees.

Convolutions and pooling without padding trim the border, so a feature map covers less than the picture. A transformer
of features can be expressed in coordinates of the picture only through that frame. It is followed through the graph
from the picture, or from the rectified image of an earlier transformer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten
SAMPLERS = (aten.grid_sampler.default, aten.grid_sampler_2d.default)
WINDOWS = {
    aten.conv2d.default: (3, 4, 5),
    aten.conv2d.padding: (3, 4, 5),
    aten.max_pool2d.default: (2, 3, 4),
    aten.avg_pool2d.default: (2, 3, None),
}
"""Operators with a sliding window: the positions of stride, padding and dilation in their arguments."""
MOVERS = {
    aten.flip.default,
    aten.roll.default,
    aten.rot90.default,
    aten.transpose.int,
    aten.permute.default,
    aten.matmul.default,
    aten.bmm.default,
    aten.einsum.default,
    aten.index.Tensor,
    aten.gather.default,
}
"""Operators that may move values and keep height and width. All others that keep both keep the frame."""


class Axis(NamedTuple):
    """Feature ``j`` sees the position ``offset + stride * j``, in pixels of the source."""

    offset: float = 0.0
    stride: float = 1.0

    def after(self, offset: float, stride: float) -> "Axis":
        """Return the axis of features that see this axis at ``offset + stride * j``."""
        return Axis(self.offset + self.stride * offset, self.stride * stride)


class Frame(NamedTuple):
    """The place of a feature map in its source."""

    source: str
    """Name of the node of the picture or of a sampler."""
    y: Axis = Axis()
    x: Axis = Axis()


def follow(graph: Graph, picture: Node) -> dict[str, Frame]:
    """Return the frames of all nodes, by name, that have a known one."""
    frames = {picture.name: Frame(picture.name)}
    for node in graph.nodes:
        if node.op != "call_function" or sides(node) is None:
            continue
        if node.target in SAMPLERS:
            frames[node.name] = Frame(node.name)
        elif node.target in WINDOWS:
            if (frame := frames.get(node.args[0].name)) is not None:
                frames[node.name] = slide(node, frame)
        elif node.target not in MOVERS:
            same = [n for n in node.all_input_nodes if n.name in frames and sides(n) == sides(node)]
            found = {frames[n.name] for n in same}
            if len(found) == 1:
                frames[node.name] = found.pop()
    return frames


def sides(node: Node) -> tuple[int, int] | None:
    """Return height and width of an image or feature map ``(N, C, H, W)``; None for other nodes."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dim() != 4:
        return None
    height, width = value.shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def slide(node: Node, frame: Frame) -> Frame:
    """Return the frame behind a convolution or pooling."""
    weight: Any = node.args[1]
    kernel = weight.meta["val"].shape[2:] if isinstance(weight, Node) else weight
    places = WINDOWS[node.target]  # type: ignore[index]
    kernels = pair(kernel, (1, 1))
    stride, padding, dilation = (
        argument(node, place, default)
        for place, default in zip(places, (kernels if isinstance(weight, tuple | list | int) else 1, 0, 1), strict=True)
    )
    axes = []
    for axis, size, step, pad, spread in zip(
        (frame.y, frame.x), kernels, pair(stride, kernels), pair(padding, (0, 0)), pair(dilation, (1, 1)), strict=True
    ):
        reach = spread * (size - 1)
        before = {"valid": 0, "same": reach // 2}.get(pad, pad) if isinstance(pad, str) else pad
        axes.append(axis.after(reach / 2 - before, step))
    return Frame(frame.source, *axes)


def argument(node: Node, place: int | None, default: Any) -> Any:
    """Return an argument by position, or its default."""
    return default if place is None or place >= len(node.args) else node.args[place]


def pair(value: Any, default: Sequence[int]) -> Sequence[Any]:
    """Return a size for y and x; an empty list stands for the default."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return default if not value else value if len(value) == 2 else (value[0], value[0])
    return (value, value)
