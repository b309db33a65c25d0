"""Digits under affine distortions, read by models that have only seen shifted ones, as affNIST asks.

    python -m training run mnist-t-affine --set canvas=[40,40] --model shifted --out runs/shifted
    python -m benchmarks.affnist models/shifted/1 [...] [--data-root data] [--views 8]

affNIST's own files are not needed: MNIST's 10,000 test pictures are distorted once by its published rule (Tieleman
2013). Rotation is uniform within 20 degrees, shear within 0.2, the scale of each axis within 0.8 to 1.2, and the place
anywhere on 40x40 where the digit's ink is whole. With ``--views``, the probabilities of that many slightly changed
views are averaged, as the service does it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks.reliability import Pixels, all_views, seeing
from export.format.artifact import read_artifact
from export.onnx import OnnxRuntime
from imaging.views import MOST_VIEWS
from training.data.augmentation import linear_maps
from training.data.distortions import make_distortion, warp_affine
from training.data.sources import Digits
from training.data.splits import Split

CANVAS = (40, 40)
TURN = math.radians(20)
SHEAR = 0.2
SCALE = (0.8, 1.2)
EXAMPLES = 5000


def affine_distorted(digits: Split, generator: Generator) -> Tensor:
    """Distort ``digits`` by affNIST's rule: ``(N, 1, 28, 28)`` -> ``(N, 1, 40, 40)`` from 0 to 255."""
    count = len(digits.labels)
    drawn = torch.rand(6, count, generator=generator)
    angle, shear = (2 * drawn[0] - 1) * TURN, (2 * drawn[1] - 1) * SHEAR
    wide, high = 1 / (SCALE[0] + (SCALE[1] - SCALE[0]) * drawn[2:4])
    linear = linear_maps(angle, shear, wide, high)  # from the canvas to the digit, in pixels
    half = torch.tensor([14.0, 14.0])
    maps = torch.cat([linear * 20, torch.zeros(count, 2, 1)], dim=-1) / half[:, None]
    centred = warp_affine(digits.images.float(), maps, CANVAS)
    least, most = free_shifts(centred)
    shift = (least + (most - least + 1) * drawn[4:].T).floor()
    moved = torch.cat([maps[:, :, :2], -(linear @ shift[:, :, None]) / half[:, None]], dim=-1)
    return warp_affine(digits.images.float(), moved, CANVAS)


def free_shifts(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the ink of ``(N, 1, H, W)`` can move to the left and top, and to the right and bottom: (N, 2)."""
    low, high = [], []
    for axis in (2, 1):  # x, then y, of (N, H, W)
        inked = (images[:, 0] > 0).any(dim=3 - axis)
        side = inked.shape[1]
        first = inked.int().argmax(dim=1)
        last = side - 1 - inked.flip(1).int().argmax(dim=1)
        low.append(-first)
        high.append(side - 1 - last)
    return torch.stack(low, dim=1).float(), torch.stack(high, dim=1).float()


def as_pixels(images: Tensor) -> Pixels:
    """Convert ``(N, 1, H, W)`` from 0 to 255 to pixels ``(N, H, W, 1)``, as a client would send them."""
    found: Pixels = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--views", type=int, choices=range(1, MOST_VIEWS + 1), default=8, metavar="N")
    options = parser.parse_args()
    digits = Digits(options.data_root, EXAMPLES, sums=False).test()
    shifted = make_distortion("t", CANVAS)
    parameters = shifted.draw(len(digits.labels), (28, 28), torch.Generator().manual_seed(0))
    pictures = {
        "shifted, as in training": as_pixels(shifted.apply(digits.images.float(), digits.labels, parameters).images),
        "affinely distorted": as_pixels(affine_distorted(digits, torch.Generator().manual_seed(1))),
    }
    labels = digits.labels.numpy()
    print(f"| model | digits | right | right with {options.views} views |\n|---|---|---|---|")
    for folder in options.artifacts:
        artifact = read_artifact(folder)
        see = seeing(OnnxRuntime().load(artifact.model, artifact.manifest.outputs), artifact.manifest)
        for name, shown in pictures.items():
            alone = see(shown).probabilities
            together = alone + sum(see(view).probabilities for view in all_views(shown)[: options.views])
            right, averaged = (np.mean(found.argmax(axis=1) == labels) for found in (alone, together))
            print(f"| {folder} | {name} | {right:.2%} | {averaged:.2%} |", flush=True)


if __name__ == "__main__":
    main()
