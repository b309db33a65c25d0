"""Choose sizes, normalisation, batch size and epochs for a folder of pictures."""

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.data.folder.source import Entry
from training.data.pictures import read_pictures, shape
from training.recipes.recipe import Recipe, Size, change_recipe

SIDES = (32, 48, 64, 96, 128)
"""Possible sides of the network's input."""
LONGEST = SIDES[-1] ** 2 // SIDES[0]
"""Longest side of an elongated input; with the shortest side it has as many pixels as the largest square."""
SQUARE = 4 / 3
"""Aspect ratio up to which a square input is chosen."""
STEP = 8
STEPS = 4000
"""Approximate number of training steps."""
EPOCHS = (12, 200)
BATCHES = (8, 128)
STEPS_IN_AN_EPOCH = 8
"""Smallest number of steps per epoch."""
MEASURED = 2000
"""Number of training pictures from which mean and standard deviation are computed."""

MEASURED_AT_ONCE = 100


def fit_to_pictures(recipe: Recipe, root: Path, entries: Sequence[Entry], chosen: Collection[str]) -> Recipe:
    """Return ``recipe`` with sizes, normalisation, epochs and batch size adapted to these pictures.

    With ``adapt=false``, only the batch size is limited to the number of pictures.

    Args:
        recipe: a recipe with dataset=folder.
        root: the folder.
        entries: its split table; only training pictures are used.
        chosen: fields that keep their values.

    Raises:
        RecipeError: the chosen fields are inconsistent with the rest.
        DataError: a picture cannot be read.
    """
    files = [root / entry.path for entry in entries if entry.part == "train"]
    if not recipe.adapt:
        return change_recipe(recipe, {"batch_size": max(2, min(recipe.batch_size, len(files)))})
    shapes = [shape(file) for file in files]
    canvas = recipe.canvas if "canvas" in chosen else canvas_for([(s.height, s.width) for s in shapes])
    channels = len(recipe.mean) if "mean" in chosen else 3 if any(s.coloured for s in shapes) else 1
    some = files[:: -(-len(files) // MEASURED)]
    mean, std = mean_and_spread(read_pictures(some, canvas, channels))
    fitting = min(max(len(files) // STEPS_IN_AN_EPOCH, BATCHES[0]), BATCHES[1])
    batch = recipe.batch_size if "batch_size" in chosen else fitting
    found: dict[str, object] = {
        "canvas": canvas,
        "rectified": rectified_for(canvas, recipe.crop),
        "mean": mean,
        "std": std,
        "batch_size": min(batch, len(files)),
        "epochs": min(max(STEPS * batch // len(files), EPOCHS[0]), EPOCHS[1]),
    }
    return change_recipe(recipe, {name: value for name, value in found.items() if name not in chosen})


def canvas_for(sizes: Sequence[Size]) -> Size:
    """Choose the network's input size for pictures of these sizes: about their median size and aspect ratio.

    The longer side is limited to `LONGEST`.
    """
    height, width = (statistics.median(sides) for sides in zip(*sizes, strict=True))
    side = max([s for s in SIDES if s <= (height * width) ** 0.5], default=SIDES[0])
    if max(height, width) <= SQUARE * min(height, width):
        return side, side
    stretch = (height / width) ** 0.5
    tall, wide = (min(max(SIDES[0], STEP * round(s / STEP)), LONGEST) for s in (side * stretch, side / stretch))
    return tall, wide


def rectified_for(canvas: Size, crop: float) -> Size:
    """Choose the size of the rectified image: five sixths of the ``crop``, but at least the smallest input size."""
    height, width = (max(min(side, SIDES[0]), STEP * round(side * crop * 5 / 6 / STEP)) for side in canvas)
    return height, width


def mean_and_spread(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of ``(N, C, H, W)`` uint8, scaled to [0, 1]."""
    count = images[:, 0].numel()
    sums = torch.zeros(2, images.shape[1], dtype=torch.int64)  # of levels and of their squares, exactly
    for some in torch.split(images, MEASURED_AT_ONCE):
        levels = some.transpose(0, 1).flatten(1).long()
        sums += torch.stack([levels.sum(dim=1), levels.square().sum(dim=1)])
    mean = sums[0].double() / count
    spread = ((sums[1] - sums[0] * mean) / max(count - 1, 1)).clamp(min=0).sqrt()
    mean, spread = mean / 255, (spread / 255).clamp(min=0.01)
    return tuple(round(float(v), 4) for v in mean), tuple(round(float(v), 4) for v in spread)
