"""What a recipe for a folder of one's own leaves open, chosen by looking at the pictures."""

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from training.data.folders import Entry
from training.data.pictures import read_pictures, shape
from training.recipes.recipe import Recipe, Size, change_recipe

SIDES = (32, 48, 64, 96, 128)
"""Of the network's input."""
LONGEST = SIDES[-1] ** 2 // SIDES[0]
"""Of a long input's sides: at the shortest other side it has the pixels of the largest square."""
SQUARE = 4 / 3
"""Ratio of the sides below which a square is taken."""
STEP = 8
STEPS = 4000
"""Of a training, about."""
EPOCHS = (12, 60)
BATCHES = (8, 128)
STEPS_IN_AN_EPOCH = 8
"""At least, where there are few pictures."""
MEASURED = 2000
"""Training pictures from which mean and spread are taken."""


def fit_to_pictures(recipe: Recipe, root: Path, entries: Sequence[Entry], chosen: Collection[str]) -> Recipe:
    """``recipe`` with sizes, channels, mean and spread, epochs and batch of its own for these pictures.

    Args:
        recipe: for a folder.
        root: the folder.
        entries: its split; only pictures to train on are looked at.
        chosen: fields that stay as they are.

    Raises:
        RecipeError: what was chosen does not go with the rest.
        DataError: a picture cannot be read.
    """
    files = [root / entry.path for entry in entries if entry.part == "train"]
    shapes = [shape(file) for file in files]
    canvas = recipe.canvas if "canvas" in chosen else canvas_for([(s.height, s.width) for s in shapes])
    channels = len(recipe.mean) if "mean" in chosen else 3 if any(s.coloured for s in shapes) else 1
    some = files[:: -(-len(files) // MEASURED)]
    mean, std = mean_and_spread(read_pictures(some, canvas, channels))
    fitting = min(max(len(files) // STEPS_IN_AN_EPOCH, BATCHES[0]), BATCHES[1])
    batch = recipe.batch_size if "batch_size" in chosen else fitting
    found: dict[str, object] = {
        "canvas": canvas,
        "rectified": rectified_for(canvas),
        "mean": mean,
        "std": std,
        "batch_size": min(batch, len(files)),
        "epochs": min(max(STEPS * batch // len(files), EPOCHS[0]), EPOCHS[1]),
    }
    return change_recipe(recipe, {name: value for name, value in found.items() if name not in chosen})


def canvas_for(sizes: Sequence[Size]) -> Size:
    """The network's input for pictures of such (height, width): no larger than most of them, and about their shape.

    The longer side of very long ones is cut to `LONGEST`.
    """
    height, width = (statistics.median(sides) for sides in zip(*sizes, strict=True))
    side = max([s for s in SIDES if s <= (height * width) ** 0.5], default=SIDES[0])
    if max(height, width) <= SQUARE * min(height, width):
        return side, side
    stretch = (height / width) ** 0.5
    tall, wide = (min(max(SIDES[0], STEP * round(s / STEP)), LONGEST) for s in (side * stretch, side / stretch))
    return tall, wide


def rectified_for(canvas: Size) -> Size:
    """Two thirds of the canvas, but not less than the smallest one."""
    height, width = (max(min(side, SIDES[0]), STEP * round(side * 2 / 3 / STEP)) for side in canvas)
    return height, width


def mean_and_spread(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel of ``(N, C, H, W)`` uint8, on a scale from 0 to 1."""
    pixels = images.transpose(0, 1).flatten(1).double() / 255
    mean, spread = pixels.mean(dim=1), pixels.std(dim=1).clamp(min=0.01)
    return tuple(round(float(v), 4) for v in mean), tuple(round(float(v), 4) for v in spread)
