"""Pictures with the outlines of the sampled regions."""

import textwrap

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from training.networks.network import Output, SpatialTransformerClassifier
from training.networks.spatial import Warp

EDGE_POINTS = 16
COLOURS = ("#ff8c00", "#32cd32", "#ff00ff", "#ffd700")
"""Colours of the transformers' outlines, in order."""
LINE = 18
"""Characters per line below a picture."""
TOP = "#00bfff"
"""Colour of the edge that becomes the rectified image's upper edge."""


def rectified_figure(
    images: Tensor, network: SpatialTransformerClassifier, classes: tuple[str, ...], temperature: float
) -> Figure:
    """Draw one column per picture: the input with the sampled regions, each rectified image, and the answer.

    Args:
        images: ``(N, C, H, W)`` uint8.
        network: the network in evaluation mode.
        classes: names of the classes.
        temperature: divisor of the logits.
    """
    with torch.inference_mode():
        output: Output = network(images.float() / 255)
    best = (output.logits / temperature).softmax(dim=-1).max(dim=-1)
    chances = best.values.view(len(images), -1).prod(dim=1).tolist()  # of all objects of a sequence
    names = [" ".join(classes[i] for i in row) for row in best.indices.view(len(images), -1).tolist()]
    told = [f"{name}  {p:.1%}" for name, p in zip(names, chances, strict=True)]
    labels = ["\n".join(textwrap.wrap(text, LINE)) for text in told]
    rows = 1 + len(output.warps)
    figure = Figure(figsize=(1.2 * len(images), 0.3 + 1.2 * rows), layout="constrained")
    axes = figure.subplots(rows, len(images), squeeze=False)
    for column, image in enumerate(images):
        show(axes[0, column], image.float() / 255)
        for row, warp in enumerate(output.warps, start=1):
            outline(axes[0, column], warp, column, COLOURS[(row - 1) % len(COLOURS)])
            show(axes[row, column], network.as_picture(warp.rectified[column]).clamp(0, 1))
        size = 9 if len(labels[column]) <= LINE else 6
        axes[-1, column].set_xlabel(labels[column], fontsize=size, parse_math=False)
    return figure


def outline(axes: Axes, warp: Warp, item: int, colour: str) -> None:
    """Draw the outline of the region that ``warp`` samples in picture ``item``."""
    height, width = (int(limit + 0.5) for limit in (axes.get_ylim()[0], axes.get_xlim()[1]))
    edges = border(warp, height, width)[item]
    axes.plot(*(edges.T - 0.5), color=colour, linewidth=1.5)
    axes.plot(*(edges[: EDGE_POINTS + 1].T - 0.5), color=TOP, linewidth=1.5)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def border(warp: Warp, height: int, width: int) -> NDArray[np.float32]:
    """Return the closed outline of the sampled region in pixels, clockwise from top left: ``(N, M, 2)``.

    The first ``EDGE_POINTS + 1`` points are the upper edge.
    """
    along = torch.linspace(-1, 1, EDGE_POINTS + 1)
    low, high = -torch.ones_like(along), torch.ones_like(along)
    sides = ((along, low), (high, along), (-along, high), (low, -along))
    points = torch.cat([torch.stack(side, dim=-1) for side in sides])  # (4 * (EDGE_POINTS + 1), 2)
    mapped = warp.map(points[None])
    pixels: NDArray[np.float32] = ((mapped + 1) / 2 * torch.tensor([width, height])).numpy()
    return pixels


def show(axes: Axes, image: Tensor) -> None:
    """Draw ``image`` ``(C, H, W)`` in [0, 1] without ticks: grey, RGB, or two channels in red and green."""
    if len(image) == 2:
        image = torch.cat([image, torch.zeros_like(image[:1])])
    axes.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
