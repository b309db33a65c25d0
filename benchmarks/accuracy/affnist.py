"""Digits under affine distortions, read by networks that were trained on shifted ones, as affNIST asks.

    python -m training run affnist --model affnist --out runs/affnist
    python -m benchmarks.accuracy.affnist models/affnist/1 [...] [--data-root data] [--views 8]

affNIST's own files are not read, so figures may differ from published ones. Each of MNIST's 10,000 test pictures is
distorted once by its limits (Tieleman 2013): rotated by up to 20 degrees, sheared along x by up to 0.2, scaled along
each axis by 0.8 to 1.2, in this order, and put anywhere on 40x40 where its ink is whole. Training puts the whole
frame of 28x28 pixels on the canvas, so some of these places are new to a network. The row "at any place" has digits
that are moved as far, and not distorted. In the last column, the probabilities of a picture and of that many slightly
changed views are averaged, as the service does it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks.accuracy.reliability import Pixels, all_views, seeing
from export.format.artifact import read_artifact
from export.onnx import OnnxRuntime
from imaging.views import MOST_VIEWS
from training.data.augmentation import linear_maps
from training.data.batches import test_split
from training.data.distortions import warp_affine
from training.data.sources import open_source
from training.recipes.catalogue import find_recipe

RECIPE = find_recipe("affnist")
TURN = math.radians(20)
SHEAR = 0.2
SCALE = (0.8, 1.2)


def affine_distorted(digits: Tensor, generator: Generator, strength: float = 1.0) -> Tensor:
    """Distort ``digits`` by affNIST's rule: ``(N, 1, H, W)`` -> ``(N, 1, 40, 40)``, in the same range.

    With ``strength`` 0 they are put at the same kind of place, and not distorted.
    """
    count, _, height, width = digits.shape
    drawn = torch.rand(6, count, generator=generator)
    angle, shear = (2 * drawn[0] - 1) * TURN * strength, (2 * drawn[1] - 1) * SHEAR * strength
    wide, high = (SCALE[0] + (SCALE[1] - SCALE[0]) * drawn[2:4]) ** -strength
    linear = linear_maps(angle, shear, wide, high)  # from the canvas to the digit, in pixels
    half_digit = torch.tensor([width / 2, height / 2])
    half_canvas = torch.tensor([RECIPE.canvas[1] / 2, RECIPE.canvas[0] / 2])

    def shifted(shift: Tensor) -> Tensor:
        maps = torch.cat([linear * half_canvas, -linear @ shift[:, :, None]], dim=-1) / half_digit[:, None]
        return warp_affine(digits, maps, RECIPE.canvas)

    least, most = free_shifts(shifted(torch.zeros(count, 2)))
    return shifted((least + (most - least + 1) * drawn[4:].T).floor())


def free_shifts(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how many pixels the ink can be shifted within its picture: ``(N, 1, H, W)`` -> (x, y), ``(N, 2)`` each.

    The first are the least, which are negative, and lead to the left and top; the second are the most.
    """
    least, most = [], []
    for axis in (1, 2):  # columns, then rows, hold ink if any of their pixels does
        inked = (images[:, 0] > 0).any(dim=axis).int()
        least.append(-inked.argmax(dim=1))
        most.append(inked.flip(1).argmax(dim=1))
    return torch.stack(least, dim=1).float(), torch.stack(most, dim=1).float()


def as_pixels(images: Tensor) -> Pixels:
    """Convert ``(N, 1, H, W)`` from 0 to 255 to pixels ``(N, H, W, 1)``, as a client would send them."""
    found: Pixels = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--views", type=int, default=8, choices=range(1, MOST_VIEWS + 1), metavar="N")
    options = parser.parse_args()
    source = open_source(RECIPE, options.data_root)
    digits, shifted = source.test(), test_split(RECIPE, source)
    pictures = {
        "shifted, as in training": as_pixels(shifted.images),
        "at any place": as_pixels(affine_distorted(digits.images.float(), Generator().manual_seed(0), strength=0.0)),
        "affinely distorted": as_pixels(affine_distorted(digits.images.float(), Generator().manual_seed(0))),
    }
    labels = digits.labels.numpy()
    print(f"| model | digits | right | right with {options.views} views |\n|---|---|---|---|")
    for folder in options.artifacts:
        artifact = read_artifact(folder)
        shape = artifact.manifest.input.height, artifact.manifest.input.width, artifact.manifest.input.channels
        if shape != (*RECIPE.canvas, 1):
            parser.error(f"{folder} does not read grey pictures of 40x40 pixels; train it with the recipe affnist")
        see = seeing(OnnxRuntime().load(artifact.model, artifact.manifest.outputs), artifact.manifest)
        for name, shown in pictures.items():
            alone = see(shown).probabilities
            together = alone + sum(see(view).probabilities for view in all_views(shown)[: options.views])
            right, averaged = (np.mean(found.argmax(axis=1) == labels) for found in (alone, together))
            print(f"| {folder} | {name} | {right:.2%} | {averaged:.2%} |", flush=True)


if __name__ == "__main__":
    main()
