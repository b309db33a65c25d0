"""Pictures of what was learned, drawn into the run folder."""

import csv
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from training.data import test_split
from training.files import write_bytes
from training.network import Output, SpatialTransformerClassifier
from training.runs import Run
from training.spatial import Warp

EXAMPLES = 10
SCATTERED = 1000
"""Pictures in the scatter of theta."""
EDGE_POINTS = 16
COLOURS = ("#ff8c00", "#32cd32", "#ff00ff", "#ffd700")
"""Of the outlines of transformers, in their order."""
TOP = "#00bfff"
"""Of the edge that becomes the rectified image's upper one."""


def draw_run(run: Run, data_root: Path) -> list[Path]:
    """Draw ``rectified.png``, ``curves.png``, ``confusion.png`` and ``theta.png`` of an evaluated run.

    Returns:
        The files; a network without a transformer has no ``theta.png``.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    info = run.info()
    network = run.trained_network()
    test = test_split(info.recipe, run.source(data_root))
    images = test.images[:SCATTERED]
    with torch.inference_mode():
        output = network(images.float() / 255)
    figures = {
        "rectified.png": rectified_figure(images[:EXAMPLES], network, info.classes),
        "curves.png": curves_figure(run.metrics_file),
        "confusion.png": confusion_figure(np.array(run.evaluation().confusion), info.classes),
    }
    if output.warps:
        figures["theta.png"] = theta_figure(output.warps[-1].theta, test.labels[:SCATTERED])
    run.pictures.mkdir(exist_ok=True)
    return [save(figure, run.pictures / name) for name, figure in figures.items()]


def rectified_figure(images: Tensor, network: SpatialTransformerClassifier, classes: tuple[str, ...]) -> Figure:
    """One column a picture: the input with what is looked at, what each transformer made of it, and the answer.

    Args:
        images: ``(N, C, H, W)`` uint8.
        network: in evaluation mode.
        classes: their names.
    """
    with torch.inference_mode():
        output: Output = network(images.float() / 255)
    best = output.logits.softmax(dim=1).max(dim=1)
    labels = [f"{classes[i]}  {p:.1%}" for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    rows = 1 + len(output.warps)
    figure = Figure(figsize=(1.2 * len(images), 0.3 + 1.2 * rows), layout="constrained")
    axes = figure.subplots(rows, len(images), squeeze=False)
    for column, image in enumerate(images):
        show(axes[0, column], image.float() / 255)
        for row, warp in enumerate(output.warps, start=1):
            outline(axes[0, column], warp, column, COLOURS[(row - 1) % len(COLOURS)])
            show(axes[row, column], network.as_picture(warp.rectified[column]).clamp(0, 1))
        axes[0, column].set_xlim(-0.5, image.shape[-1] - 0.5)
        axes[0, column].set_ylim(image.shape[-2] - 0.5, -0.5)
        axes[-1, column].set_xlabel(labels[column], fontsize=9)
    return figure


def outline(axes: Axes, warp: Warp, item: int, colour: str) -> None:
    """Draw what ``warp`` looks at in picture ``item``: straight for affine maps, bent for others."""
    height, width = (int(limit + 0.5) for limit in (axes.get_ylim()[0], axes.get_xlim()[1]))
    edges = border(warp, height, width)[item]
    axes.plot(*(edges.T - 0.5), color=colour, linewidth=1.5)
    axes.plot(*(edges[: EDGE_POINTS + 1].T - 0.5), color=TOP, linewidth=1.5)


def border(warp: Warp, height: int, width: int) -> NDArray[np.float32]:
    """The border of the rectified image in pixels of the picture, clockwise from top left and closed: ``(N, M, 2)``.

    The upper edge is the first ``EDGE_POINTS + 1`` points.
    """
    along = torch.linspace(-1, 1, EDGE_POINTS + 1)
    low, high = -torch.ones_like(along), torch.ones_like(along)
    sides = ((along, low), (high, along), (-along, high), (low, -along))
    points = torch.cat([torch.stack(side, dim=-1) for side in sides])  # (4 * (EDGE_POINTS + 1), 2)
    looked = warp.look(points[None])
    pixels: NDArray[np.float32] = ((looked + 1) / 2 * torch.tensor([width, height])).numpy()
    return pixels


def curves_figure(metrics_file: Path) -> Figure:
    """Loss and error over the epochs, on training and validation pictures, and what the collapse guard watches."""
    with metrics_file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    epochs = [int(row["epoch"]) for row in rows]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    watched = [name for name in ("outside", "theta_distance", "theta_spread") if name in rows[0]]
    figure = Figure(figsize=(12 if watched else 8, 3), layout="constrained")
    panels = figure.subplots(1, 3 if watched else 2)
    for split in ("train", "validation"):
        panels[0].plot(epochs, column(f"{split}_loss"), label=split)
        panels[1].plot(epochs, [100 * (1 - accuracy) for accuracy in column(f"{split}_accuracy")], label=split)
    for name in watched:
        panels[2].plot(epochs, column(name), label=name.replace("_", " "))
    titles = (("loss", "log"), ("error, %", "log"), ("where it looks", "linear"))
    for axes, (title, scale) in zip(panels, titles, strict=False):
        axes.set(title=title, xlabel="epoch", yscale=scale)
        axes.legend()
    return figure


def confusion_figure(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> Figure:
    """Counts of true (rows) against predicted classes (columns), the right answers left out of the shading."""
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Oranges")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7)
    return figure


def theta_figure(theta: Tensor, labels: Tensor) -> Figure:
    """Where theta ``(N, 2, 3)`` puts the centre of the rectified image, and its angle and scale, by class."""
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0] - theta[:, 0, 1], theta[:, 0, 0] + theta[:, 1, 1]))
    area = torch.linalg.det(theta[:, :, :2])
    scale = area.abs().sqrt()
    figure = Figure(figsize=(8, 4), layout="constrained")
    place, shape = figure.subplots(1, 2)
    place.scatter(theta[:, 0, 2], theta[:, 1, 2], c=labels, cmap="tab10", s=6)
    place.set(title="centre", xlabel="x", ylabel="y", xlim=(-1, 1), ylim=(1, -1), aspect="equal")
    shape.scatter(angle, scale, c=labels, cmap="tab10", s=6)
    shape.set(title="shape, coloured by class", xlabel="rotation, degrees", ylabel="side looked at, of the picture's")
    return figure


def show(axes: Axes, image: Tensor) -> None:
    """Draw ``image`` ``(C, H, W)`` in [0, 1] without ticks: grey, RGB, or two channels in red and green."""
    if len(image) == 2:
        image = torch.cat([image, torch.zeros_like(image[:1])])
    axes.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def save(figure: Figure, file: Path) -> Path:
    """Write ``figure`` as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(file, content.getvalue())
    return file
