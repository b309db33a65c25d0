"""Pictures a second of the training loop against the way of PyTorch's tutorials, as a ratio within one run.

    python -m benchmarks.training [--recipe mnist-r-affine] [--rounds 5] [--threads 2] [--seconds 4]

The same network on the same pictures of random pixels. Ours: pictures in memory as uint8, distorted or augmented as
batches, channels_last, the recipe's precision. The tutorials': a DataLoader with as many workers as threads, PIL
transforms picture by picture, float32. Every picture goes through the network once; rounds are interleaved and medians
taken. Only the ratio means anything on another machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from training.catalogue import find_recipe
from training.data import Split, distort, loader
from training.network import SpatialTransformerClassifier
from training.recipes import Recipe, change_recipe
from training.streams import Stream, seeded
from training.trainer import Training, parameter_groups

PICTURES = 4096
CLASSES = 10
ORIGINAL = {"mnist": (28, 28), "cifar10": (32, 32), "gtsrb": (48, 48)}
WARM_UP_STEPS = 3


class Files(Dataset[tuple[Tensor, int]]):
    """Pictures one by one through PIL, as `torchvision.datasets` hand them out."""

    def __init__(self, pictures: Tensor, recipe: Recipe) -> None:
        self.pictures = pictures.permute(0, 2, 3, 1).numpy()
        self.transform = tutorial_transforms(recipe)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        picture = self.pictures[position]
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        return self.transform(image), position % CLASSES


def tutorial_transforms(recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """What the recipe does to pictures, by torchvision's transforms of single PIL pictures."""
    steps: list[Callable[..., Any]] = []
    if recipe.distortion == "r":
        steps.append(transforms.RandomRotation(90, transforms.InterpolationMode.BILINEAR))
    elif recipe.distortion == "rts":
        steps.append(transforms.Pad(tuple((c - o) // 2 for c, o in zip(recipe.canvas, ORIGINAL["mnist"], strict=True))))
        bilinear = transforms.InterpolationMode.BILINEAR
        steps.append(transforms.RandomAffine(45, (0.15, 0.15), (0.7, 1.2), interpolation=bilinear))
    elif recipe.augmented:
        limits = recipe.augmentation
        shift, zoom = (limits.shift, limits.shift), (1 / limits.zoom, limits.zoom)
        bilinear = transforms.InterpolationMode.BILINEAR
        steps.append(transforms.RandomAffine(limits.rotation, shift, zoom, limits.shear, bilinear))
        steps.append(transforms.ColorJitter(0.5, 0.5))
    else:
        raise SystemExit(
            f"{recipe.name} has no counterpart in torchvision's transforms; take an r, rts or photo recipe"
        )
    composed: Callable[[Image.Image], Tensor] = transforms.Compose([*steps, transforms.ToTensor()])
    return composed


def tutorial_steps(recipe: Recipe, pictures: Tensor, workers: int) -> Iterator[int]:
    """Train step by step, for ever; yields the pictures of each."""
    network = SpatialTransformerClassifier(recipe, CLASSES, len(recipe.mean)).train()
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    batches = DataLoader(
        Files(pictures, recipe), recipe.batch_size, shuffle=True, num_workers=workers, persistent_workers=True
    )
    while True:
        for images, labels in batches:
            optimiser.zero_grad()
            functional.cross_entropy(network(images).logits, labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            yield len(labels)


def our_steps(recipe: Recipe, pictures: Tensor) -> Iterator[int]:
    """The same with the training loop's parts."""
    training = Training(SpatialTransformerClassifier(recipe, CLASSES, len(recipe.mean)), recipe, 0, CLASSES)
    training.setup("fit")
    optimiser = torch.optim.AdamW(parameter_groups(training.network, recipe))
    batches = loader(Split(pictures, torch.arange(len(pictures)) % CLASSES), recipe.batch_size, shuffle_seed=0)
    step = 0
    while True:
        for batch in batches:
            step += 1
            optimiser.zero_grad()
            seen = distort(training.distortion, batch, seeded(Stream.DISTORTION, 0, step))
            functional.cross_entropy(training(seen.images).logits, seen.labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            yield len(seen.labels)


def rate(steps: Iterator[int], seconds: float) -> float:
    """Pictures a second over about ``seconds``."""
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        done += next(steps)
    return done / passed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist-r-affine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = change_recipe(find_recipe(options.recipe), {"upright": 0.0, "area": 0.0, "area_of": "picture"})
    size = (PICTURES, len(recipe.mean), *ORIGINAL[recipe.dataset])
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    ways = {"tutorial": tutorial_steps(recipe, pictures, options.threads), "ours": our_steps(recipe, pictures)}
    for steps in ways.values():
        for _ in range(WARM_UP_STEPS):
            next(steps)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, steps in ways.items():
            rates[way].append(rate(steps, options.seconds))
    medians = {way: statistics.median(found) for way, found in rates.items()}
    print(f"{recipe.name}, {options.threads} threads, torch {torch.__version__}")
    for way, median in medians.items():
        print(f"{way:9} {median:8,.0f} pictures/s")
    print(f"ours is {medians['ours'] / medians['tutorial']:.2f} times as fast")


if __name__ == "__main__":
    main()
