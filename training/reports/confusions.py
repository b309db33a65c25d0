"""Figures of the confusion matrix and of the most frequent mistakes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from training.evaluation.confusion import Cell
from training.networks.network import SpatialTransformerClassifier
from training.reports.outlines import COLOURS, outline, show

PAIRS = 5
EXAMPLES = 4
"""Number of pictures shown for each pair of classes."""
LEGIBLE = 20
"""Largest number of classes with all counts written into the matrix; with more, only mistakes are."""
MOST_CLASSES = 60
"""Largest number of classes in a drawn matrix; of more classes, the most confused ones are drawn."""


class Confusion(NamedTuple):
    """A pair of classes of which one is mistaken for the other."""

    true: int
    predicted: int
    pictures: tuple[int, ...]
    """Positions of all pictures with this mistake."""


def most_confused(logits: Tensor, labels: Tensor) -> list[Confusion]:
    """Return the most frequent mistakes, most frequent first, from logits ``(N, K)`` and labels ``(N,)``."""
    predicted = logits.argmax(dim=1)
    wrong = torch.nonzero(predicted != labels)[:, 0].tolist()
    pairs = [(int(labels[position]), int(predicted[position])) for position in wrong]
    return [
        Confusion(*pair, tuple(position for position, mistake in zip(wrong, pairs, strict=True) if mistake == pair))
        for pair, _ in Counter(pairs).most_common(PAIRS)
    ]


def confused_figure(
    mistakes: Sequence[Confusion], images: Tensor, network: SpatialTransformerClassifier, classes: tuple[str, ...]
) -> Figure:
    """Draw a row for each mistake: some of its pictures with the sampled region, and their rectified images.

    Args:
        mistakes: at least one mistake.
        images: all pictures, ``(N, C, H, W)`` uint8.
        network: the network in evaluation mode.
        classes: names of the classes.
    """
    figure = Figure(figsize=(2.2 * EXAMPLES, 1.4 * len(mistakes)), layout="constrained")
    for row, mistake in zip(figure.subfigures(len(mistakes), squeeze=False)[:, 0], mistakes, strict=True):
        axes = row.subplots(1, 2 * EXAMPLES)
        chosen = images[list(mistake.pictures[:EXAMPLES])]
        with torch.inference_mode():
            warps = network(chosen.float() / 255).warps
        for column in range(EXAMPLES):
            seen, made = axes[2 * column : 2 * column + 2]
            if column >= len(chosen):
                seen.set_axis_off()
                made.set_axis_off()
                continue
            show(seen, chosen[column].float() / 255)
            for warp, colour in zip(warps, COLOURS, strict=False):
                outline(seen, warp, column, colour)
            if warps:
                show(made, network.as_picture(warps[-1].rectified[column]).clamp(0, 1))
            else:
                made.set_axis_off()
        count = len(mistake.pictures)
        title = f"{classes[mistake.true]} mistaken for {classes[mistake.predicted]}: {count}"
        row.suptitle(title, fontsize=8, x=0.01, ha="left", parse_math=False)
    return figure


def confusion_figure(cells: Sequence[Cell], classes: tuple[str, ...]) -> Figure:
    """Draw counts of true (rows) against predicted classes (columns); only mistakes are shaded.

    Of more than `MOST_CLASSES` classes, the most confused ones are drawn.
    """
    return confusion_figures({"": cells}, classes)


def confusion_figures(confusions: Mapping[str, Sequence[Cell]], classes: tuple[str, ...]) -> Figure:
    """Draw several confusion matrices side by side, with their titles; see `confusion_figure`."""
    shown = confused_classes([cell for cells in confusions.values() for cell in cells], len(classes))
    side = 5 if len(shown) <= LEGIBLE else 0.24 * len(shown)
    figure = Figure(figsize=(side * len(confusions), side), layout="constrained")
    if len(shown) < len(classes):
        figure.suptitle(f"the {len(shown)} most confused of {len(classes):,} classes")
    panels = figure.subplots(1, len(confusions), squeeze=False)[0]
    for axes, (title, cells) in zip(panels, confusions.items(), strict=True):
        axes.set_title(title)
        draw_confusion(axes, confusion_matrix(cells, shown), tuple(classes[label] for label in shown))
    return figure


def confused_classes(cells: Sequence[Cell], classes: int) -> list[int]:
    """Return the classes to draw, in order: all, or else the `MOST_CLASSES` with the most mistakes."""
    mistakes = np.zeros(classes, np.int64)
    for true, predicted, count in cells:
        if true != predicted:
            mistakes[[true, predicted]] += count
    return sorted(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES].tolist())


def confusion_matrix(cells: Sequence[Cell], shown: Sequence[int]) -> NDArray[np.int64]:
    """Return the confusion matrix of the classes ``shown``; repeated cells are added."""
    place = {label: position for position, label in enumerate(shown)}
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    for true, predicted, count in cells:
        if true in place and predicted in place:
            matrix[place[true], place[predicted]] += count
    return matrix


def draw_confusion(axes: Axes, confusion: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Draw one ``confusion`` matrix ``(K, K)``; see `confusion_figure`."""
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    few = len(classes) <= LEGIBLE
    axes.imshow(mistakes, cmap="Oranges")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    longest = max(map(len, classes))
    size = 8 if few else 6
    axes.set_xticklabels(classes, rotation=90 if longest > 2 else 0, fontsize=size, parse_math=False)
    axes.set_yticklabels(classes, fontsize=size, parse_math=False)
    for (row, column), count in np.ndenumerate(confusion):
        if count and (few or row != column):
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7 if few else 5)
