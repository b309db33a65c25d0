"""Figures of a trained network, drawn into the run folder."""

import io
import textwrap
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.data.batches import distorted
from training.data.random_streams import Stream
from training.data.splits import Split
from training.evaluation.poses import known_changes, views
from training.evaluation.reliability import Reliability
from training.files import write_bytes
from training.fitting.runs import Run
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe
from training.reports.confusions import confused_figure, confusion_figure, most_confused
from training.reports.evaluation import answers, read_epochs
from training.reports.outlines import LINE, rectified_figure, show

EXAMPLES = 10
"""Number of pictures, and of classes in a figure of their means."""
SCATTERED = 1000
"""Number of pictures in the scatter plot of theta."""


def draw_run(run: Run, data_root: Path) -> list[Path]:
    """Draw the figures of an evaluated run.

    They are ``rectified``, ``means``, ``curves``, ``confusion``, ``confused``, ``theta`` and ``reliability.png``.

    Returns:
        The files. Without a transformer there are no ``means.png``, ``theta.png`` and ``reliability.png``, without a
        mistake no ``confused.png``, and of sequences no ``means.png``, ``reliability.png`` and ``confused.png``.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    info = run.info()
    network = run.trained_network()
    evaluation = run.evaluation()
    whole = run.source(data_root).test()
    test = distorted(info.recipe, whole, Stream.TEST)
    images, labels = test.images[:SCATTERED], test.labels[:SCATTERED]
    thetas = answers(network, Split(images, labels)).thetas
    figures = {
        "rectified.png": rectified_figure(images[:EXAMPLES], network, info.classes, evaluation.temperature),
        "curves.png": curves_figure(run.metrics_file),
    }
    if len(info.classes) > 1:
        figures["confusion.png"] = confusion_figure(evaluation.confusions, info.classes)
    if thetas is not None:
        figures["theta.png"] = theta_figure(thetas[:, -1], labels.view(len(labels), -1)[:, -1])
    if not info.recipe.sequence:
        if mistakes := most_confused(*run.answers()):
            figures["confused.png"] = confused_figure(mistakes, test.images, network, info.classes)
        if thetas is not None:
            figures["means.png"] = means_figure(network, info.recipe, whole.at(every(len(whole.labels))), info.classes)
    if evaluation.reliability is not None:
        figures["reliability.png"] = reliability_figure(evaluation.reliability)
    run.pictures.mkdir(exist_ok=True)
    return [save(figure, run.pictures / name) for name, figure in figures.items()]


def read_metrics(file: Path) -> dict[str, list[float]]:
    """Read the columns of a ``metrics.csv``.

    Raises:
        RunError: the table is missing or damaged.
    """
    rows = read_epochs(file)
    return {name: [row[name] for row in rows] for name in rows[0]}


def curves_figure(metrics_file: Path) -> Figure:
    """Draw loss and error over the epochs, on training and validation pictures, and the collapse guard's measures."""
    columns = read_metrics(metrics_file)
    epochs = columns["epoch"]
    watched = [name for name in ("outside", "theta_distance", "theta_spread") if name in columns]
    figure = Figure(figsize=(12 if watched else 8, 3), layout="constrained")
    panels = figure.subplots(1, 3 if watched else 2)
    for split in ("train", "validation"):
        panels[0].plot(epochs, columns[f"{split}_loss"], label=split)
        panels[1].plot(epochs, [100 * (1 - accuracy) for accuracy in columns[f"{split}_accuracy"]], label=split)
    if "corner_loss" in columns:
        panels[0].plot(epochs, columns["corner_loss"], label="corners")
    for name in watched:
        panels[2].plot(epochs, columns[name], label=name.replace("_", " "))
    titles = (("loss", "log"), ("error, %", "log"), ("transforms", "linear"))
    for axes, (title, scale) in zip(panels, titles, strict=False):
        positive = any(max(line.get_ydata()) > 0 for line in axes.get_lines())  # or a logarithm shows nothing
        axes.set(title=title, xlabel="epoch", yscale=scale if positive else "linear")
        axes.legend()
    return figure


def theta_figure(theta: Tensor, labels: Tensor) -> Figure:
    """Draw centre, angle and scale of the regions of theta ``(N, 2, 3)``, by class."""
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0] - theta[:, 0, 1], theta[:, 0, 0] + theta[:, 1, 1]))
    area = torch.linalg.det(theta[:, :, :2])
    scale = area.abs().sqrt()
    figure = Figure(figsize=(8, 4), layout="constrained")
    place, shape = figure.subplots(1, 2)
    place.scatter(theta[:, 0, 2], theta[:, 1, 2], c=labels, cmap="tab10", s=6)
    place.set(title="centre", xlabel="x", ylabel="y", xlim=(-1, 1), ylim=(1, -1), aspect="equal")
    shape.scatter(angle, scale, c=labels, cmap="tab10", s=6)
    shape.set(title="shape, coloured by class", xlabel="rotation, degrees", ylabel="side, relative to the picture's")
    return figure


def reliability_figure(found: Reliability) -> Figure:
    """Draw how many answers are wrong if only a share of them is kept, those with the highest scores."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for wrong, label in ((found.corners_wrong, f"corners, off by {found.within:.0%}"), (found.class_wrong, "class")):
        axes.plot([100 * share for share in found.shares], [100 * share for share in wrong], marker=".", label=label)
    axes.set(xlabel="share of the answers, the most reliable first, %", ylabel="wrong, %", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def every(count: int) -> Tensor:
    """Return the positions of at most `SCATTERED` of ``count`` pictures, spread evenly."""
    return torch.arange(count)[:: -(-count // SCATTERED)]


def means_figure(
    network: SpatialTransformerClassifier, recipe: Recipe, whole: Split, classes: tuple[str, ...]
) -> Figure:
    """Draw the mean picture of each class under a known change, and below it the mean of the rectified images.

    Of more than `EXAMPLES` classes, those with the most pictures are drawn. ``whole`` is undistorted.
    """
    how, pictures = known_changes(recipe, whole)
    view = next(views(network, how, pictures))
    rectified = network.as_picture(view.rectified).clamp(0, 1)
    counts = pictures.labels.bincount(minlength=len(classes))
    drawn = sorted(counts.argsort(descending=True, stable=True)[: min(EXAMPLES, int((counts > 0).sum()))].tolist())
    figure = Figure(figsize=(1.2 * len(drawn), 2.7), layout="constrained")
    axes = figure.subplots(2, len(drawn), squeeze=False)
    for column, label in enumerate(drawn):
        for row, images in enumerate((view.images, rectified)):
            show(axes[row, column], images[pictures.labels == label].mean(dim=0).clamp(0, 1))
        name = "\n".join(textwrap.wrap(classes[label], LINE))
        axes[1, column].set_xlabel(name, fontsize=9 if len(name) <= LINE else 6, parse_math=False)
    return figure


def save(figure: Figure, file: Path) -> Path:
    """Write ``figure`` as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(file, content.getvalue())
    return file
