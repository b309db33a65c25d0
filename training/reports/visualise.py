"""Figures of a trained network, drawn into the run folder."""

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.data.batches import test_split
from training.data.splits import Split
from training.files import write_bytes
from training.fitting.runs import Run
from training.reports.confusions import confused_figure, confusion_figure, most_confused
from training.reports.evaluation import answers, read_epochs
from training.reports.outlines import rectified_figure

EXAMPLES = 10
SCATTERED = 1000
"""Number of pictures in the scatter plot of theta."""


def draw_run(run: Run, data_root: Path) -> list[Path]:
    """Draw ``rectified``, ``curves``, ``confusion``, ``confused`` and ``theta.png`` of an evaluated run.

    Returns:
        The files. Without a transformer there is no ``theta.png``, and without a mistake no ``confused.png``.

    Raises:
        RunError: the run is not trained or not evaluated.
        DataError: the data set cannot be read.
    """
    info = run.info()
    network = run.trained_network()
    evaluation = run.evaluation()
    test = test_split(info.recipe, run.source(data_root))
    images = test.images[:SCATTERED]
    thetas = answers(network, Split(images, test.labels[:SCATTERED])).thetas
    figures = {
        "rectified.png": rectified_figure(images[:EXAMPLES], network, info.classes, evaluation.temperature),
        "curves.png": curves_figure(run.metrics_file),
        "confusion.png": confusion_figure(evaluation.confusions, info.classes),
    }
    if mistakes := most_confused(*run.answers()):
        figures["confused.png"] = confused_figure(mistakes, test.images, network, info.classes)
    if thetas is not None:
        figures["theta.png"] = theta_figure(thetas[:, -1], test.labels[:SCATTERED])
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
    for name in watched:
        panels[2].plot(epochs, columns[name], label=name.replace("_", " "))
    titles = (("loss", "log"), ("error, %", "log"), ("transforms", "linear"))
    for axes, (title, scale) in zip(panels, titles, strict=False):
        axes.set(title=title, xlabel="epoch", yscale=scale)
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


def save(figure: Figure, file: Path) -> Path:
    """Write ``figure`` as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(file, content.getvalue())
    return file
