"""Pictures of what was learned, drawn into the run folder."""

import csv
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from training.data import test_split
from training.files import write_bytes
from training.runs import Run
from training.transformers import CORNERS, affine_grid

EXAMPLES = 10


def draw_run(run: Run, data_root: Path) -> list[Path]:
    """Draw ``rectified.png``, ``curves.png`` and ``confusion.png`` of an evaluated run; returns the files.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    info = run.info()
    network = run.trained_network()
    images = test_split(info.recipe, data_root).images[:EXAMPLES]
    with torch.inference_mode():
        output = network(images.float() / 255)
    warp = output.warps[0]
    labels = [
        f"{info.classes[index]}  {probability:.1%}"
        for probability, index in zip(*(t.tolist() for t in output.logits.softmax(1).max(1)), strict=True)
    ]
    run.pictures.mkdir(exist_ok=True)
    figures = {
        "rectified.png": rectified_figure(images, warp.theta, warp.rectified, labels),
        "curves.png": curves_figure(run.metrics_file),
        "confusion.png": confusion_figure(np.array(run.evaluation().confusion), info.classes),
    }
    return [save(figure, run.pictures / name) for name, figure in figures.items()]


def rectified_figure(images: Tensor, theta: Tensor, rectified: Tensor, labels: list[str]) -> Figure:
    """One column a picture: the input with the region looked at, what was made of it, and the answer.

    Args:
        images: ``(N, C, H, W)`` uint8.
        theta: ``(N, 2, 3)``.
        rectified: ``(N, C, h, w)`` in [0, 1].
        labels: the answer under each column.
    """
    figure = Figure(figsize=(1.2 * len(images), 2.7), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False)
    outlines = quadrilaterals(theta, images.shape[-2], images.shape[-1])
    for column, (image, outline, straight) in enumerate(zip(images, outlines, rectified, strict=True)):
        show(axes[0, column], image.float() / 255)
        axes[0, column].plot(*np.vstack([outline, outline[:1]]).T - 0.5, color="#ff8c00", linewidth=1.5)
        axes[0, column].plot(*(outline[:2].T - 0.5), color="#00bfff", linewidth=1.5)
        axes[0, column].set_xlim(-0.5, image.shape[-1] - 0.5)
        axes[0, column].set_ylim(image.shape[-2] - 0.5, -0.5)
        show(axes[1, column], straight)
        axes[1, column].set_xlabel(labels[column], fontsize=9)
    return figure


def quadrilaterals(theta: Tensor, height: int, width: int) -> np.ndarray:
    """Where the corners of the rectified image lie in the picture, in pixels: ``(N, 4, 2)``, clockwise."""
    normalised = affine_grid(theta, torch.tensor(CORNERS))  # (N, 4, 2)
    pixels: np.ndarray = ((normalised + 1) / 2 * torch.tensor([width, height])).numpy()
    return pixels


def curves_figure(metrics_file: Path) -> Figure:
    """Loss and error over the epochs, on training and validation pictures."""
    with metrics_file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(8, 3), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for split in ("train", "validation"):
        loss.plot(epochs, [float(row[f"{split}_loss"]) for row in rows], label=split)
        error.plot(epochs, [100 * (1 - float(row[f"{split}_accuracy"])) for row in rows], label=split)
    for axes, title in ((loss, "loss"), (error, "error, %")):
        axes.set(title=title, xlabel="epoch", yscale="log")
        axes.legend()
    return figure


def confusion_figure(confusion: np.ndarray, classes: tuple[str, ...]) -> Figure:
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


def show(axes: Axes, image: Tensor) -> None:
    """Draw ``image`` ``(C, H, W)`` in [0, 1], grey or RGB, without ticks."""
    pixels = image.permute(1, 2, 0).numpy()  # (H, W, C)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def save(figure: Figure, file: Path) -> Path:
    """Write ``figure`` as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(file, content.getvalue())
    return file
