"""Pictures a second of the training loop against the way of PyTorch's tutorials, as a ratio within one run.

    python -m benchmarks.training.tutorial [--recipe mnist-r-affine] [--rounds 5] [--threads 2] [--seconds 4]

The same network on the same pictures of random pixels. Ours is what a run does: Lightning's Trainer with the recipe's
clipping, precision and metrics; pictures in memory as uint8, distorted or augmented as batches, channels_last. The
tutorials': a DataLoader with as many workers as threads, PIL transforms picture by picture, float32. Every picture
goes through the network once; the first steps are not counted, rounds are interleaved and medians taken. Only the ratio
means anything on another machine.

    python -m benchmarks.training.tutorial --to-accuracy 0.97 --recipe RECIPE [--set epochs=3] --data-root DATA
        [--threads 1]

Processor time until that validation accuracy, on real pictures, against PyTorch's tutorial
(benchmarks/training/to_accuracy.py).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.training.to_accuracy import compare
from training.data.batches import loader
from training.data.splits import Split
from training.fitting.trainer import Training
from training.networks.network import SpatialTransformerClassifier
from training.recipes.catalogue import find_recipe
from training.recipes.recipe import Recipe, change_recipe, parse_changes

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
    elif recipe.augmented and recipe.distortion == "none":
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


def tutorial_rate(steps: Iterator[int], seconds: float) -> float:
    """Pictures a second over about ``seconds``."""
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        done += next(steps)
    return done / passed


class Clock(Callback):
    """Counts the pictures of a fit from its first steps on, and ends it after about ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = self.passed = 0.0
        self.done = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= WARM_UP_STEPS:
            self.started = time.perf_counter()
            return
        self.done += len(batch.labels)
        self.passed = time.perf_counter() - self.started
        trainer.should_stop = self.passed >= self.seconds


def our_rate(recipe: Recipe, pictures: Tensor, seconds: float) -> float:
    """Pictures a second over about ``seconds`` of a fit."""
    clock = Clock(seconds)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=recipe.epochs,
        deterministic="warn",
        gradient_clip_val=recipe.clip,
        logger=False,
        callbacks=[clock],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    training = Training(SpatialTransformerClassifier(recipe, CLASSES, len(recipe.mean)), recipe, 0, CLASSES)
    trainer.fit(training, loader(Split(pictures, torch.arange(len(pictures)) % CLASSES), recipe.batch_size, 0))
    torch.use_deterministic_algorithms(False)  # as it is for the tutorials
    return clock.done / clock.passed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist-r-affine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--to-accuracy", type=float, metavar="SHARE", help="measure the time to this accuracy instead")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.to_accuracy:
        recipe = change_recipe(find_recipe(options.recipe), parse_changes(options.set))
        for line in compare(recipe, options.data_root, options.to_accuracy):
            print(line, flush=True)
        return
    recipe = change_recipe(find_recipe(options.recipe), {"upright": 0.0, "area": 0.0, "area_of": "picture"})
    tutorial_transforms(recipe)  # which refuses what has no counterpart
    size = (PICTURES, len(recipe.mean), *ORIGINAL[recipe.dataset])
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    steps = tutorial_steps(recipe, pictures, options.threads)
    for _ in range(WARM_UP_STEPS):
        next(steps)
    ways: dict[str, Callable[[], float]] = {
        "tutorial": lambda: tutorial_rate(steps, options.seconds),
        "ours": lambda: our_rate(recipe, pictures, options.seconds),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, measure in ways.items():
            rates[way].append(measure())
    medians = {way: statistics.median(found) for way, found in rates.items()}
    print(f"{recipe.name}, {options.threads} threads, torch {torch.__version__}")
    for way, median in medians.items():
        print(f"{way:9} {median:8,.0f} pictures/s")
    print(f"ours is {medians['ours'] / medians['tutorial']:.2f} times as fast")


if __name__ == "__main__":
    main()
