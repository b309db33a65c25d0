"""Processor time to a validation accuracy: a recipe against PyTorch's tutorial; see benchmarks/training/tutorial.py.

The tutorial's side is its loop, network and settings as published (PyTorch, "Spatial Transformer Networks Tutorial"):
localisation with 7x7 and 5x5 convolutions, two convolutions and dropout behind it, SGD at a constant rate of 0.01,
batches of 64, float32, at most 20 epochs; a DataLoader whose PIL pictures are transformed one by one. Digits are
distorted as the recipe does it; traffic signs are not augmented, as in the tutorial. Its test after each epoch is on
the recipe's validation pictures.

The recipe's side is a whole run, as `training run` makes it, with the validation of each epoch.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from training.data.batches import distortion, loader, training_splits
from training.data.sources import open_source
from training.data.splits import Split
from training.fitting.runs import begin_run
from training.fitting.trainer import fit
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe

EPOCHS = 20
BATCH = 64
RATE = 0.01
ROUNDING = 1e-6
"""Of an accuracy in float32."""


class Reached(NamedTuple):
    """When an accuracy was reached, if it was."""

    seconds: float
    """Processor time from the reading of the pictures on."""
    epochs: int
    accuracy: float


class Picture(Dataset[tuple[Tensor, int]]):
    """Pictures one by one through PIL and torchvision's transforms, distorted as the ``recipe`` says if it does."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self.split = split
        self.canvas = recipe.canvas
        self.distortion = None if recipe.distortion == "none" else distortion(recipe)
        self.finish = transforms.ToTensor()  # the network normalises
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        pixels = self.split.images[position].permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if self.distortion is not None:
            (maps,) = self.distortion.draw(1, (image.height, image.width), self.generator)
            image = image.transform(
                (self.canvas[1], self.canvas[0]),
                Image.Transform.AFFINE,
                in_pixels(maps[0], image.size, self.canvas),
                Image.Resampling.BILINEAR,
            )
        found: Tensor = self.finish(image)
        return found, int(self.split.labels[position])


def in_pixels(theta: Tensor, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[float, ...]:
    """Convert ``theta`` ``(2, 3)`` to PIL's coefficients; ``canvas`` is (height, width), ``size`` (width, height)."""
    found: list[float] = []
    for (across, down, shift), side in zip(theta.tolist(), size, strict=True):
        found += [across * side / canvas[1], down * side / canvas[0], side / 2 * (shift + 1 - across - down)]
    return tuple(found)


def tutorial_recipe(recipe: Recipe) -> Recipe:
    """Return the tutorial's network for the pictures of ``recipe``."""
    return Recipe(
        name="tutorial",
        summary="PyTorch's tutorial",
        dataset=recipe.dataset,
        distortion=recipe.distortion,
        canvas=recipe.canvas,
        mean=recipe.mean,
        std=recipe.std,
        normalise="before",
        transformer="affine",
        rectified=recipe.canvas,
        localisation="tutorial",
        classifier="tutorial",
        samples=1,
        epochs=EPOCHS,
        learning_rate=RATE,
    )


def tutorial(recipe: Recipe, data_root: Path, accuracy: float) -> Reached:
    """Train the tutorial's network with its loop until it has the ``accuracy``, or for `EPOCHS` epochs."""
    started = time.process_time()
    torch.manual_seed(0)
    source = open_source(recipe, data_root)
    train, validation = training_splits(recipe, source)
    network = SpatialTransformerClassifier(tutorial_recipe(recipe), len(source.classes), len(recipe.mean))
    optimiser = torch.optim.SGD(network.parameters(), RATE)
    batches = DataLoader(Picture(train, recipe), BATCH, shuffle=True)
    best = Reached(0.0, 0, 0.0)
    for epoch in range(1, EPOCHS + 1):
        network.train()
        for images, labels in batches:
            optimiser.zero_grad()
            logits = network(images).logits
            functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        found = share_right(network, validation)
        best = max(best, Reached(time.process_time() - started, epoch, found), key=lambda each: each.accuracy)
        print(f"tutorial, epoch {epoch}: {found:.2%} after {time.process_time() - started:.0f} s", flush=True)
        if found >= accuracy:
            break
    return best


def share_right(network: SpatialTransformerClassifier, split: Split) -> float:
    """Return the accuracy of ``network`` on ``split``."""
    network.eval()
    with torch.inference_mode():
        right = [
            (network(batch.images.float() / 255).logits.argmax(dim=1) == batch.labels).sum()
            for batch in loader(split, 1000)
        ]
    return int(torch.stack(right).sum()) / len(split.labels)


class Watch(Callback):
    """Ends a run when its validation accuracy is reached."""

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy
        self.started = time.process_time()
        self.best = Reached(0.0, 0, 0.0)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        found = float(trainer.callback_metrics["validation_accuracy"])
        passed = time.process_time() - self.started
        self.best = max(self.best, Reached(passed, trainer.current_epoch + 1, found), key=lambda each: each.accuracy)
        print(f"ours, epoch {trainer.current_epoch + 1}: {found:.2%} after {passed:.0f} s", flush=True)
        trainer.should_stop = trainer.should_stop or found >= self.accuracy - ROUNDING


def ours(recipe: Recipe, data_root: Path, accuracy: float) -> Reached:
    """Train a run of ``recipe`` until it has the ``accuracy``, or to its end."""
    folder = Path(tempfile.mkdtemp()) / "run"
    watch = Watch(accuracy)
    try:
        fit(begin_run(folder, recipe, 0, data_root), data_root, progress=False, watchers=[watch])
    finally:
        shutil.rmtree(folder.parent)
    return watch.best


def compare(recipe: Recipe, data_root: Path, accuracy: float) -> Iterator[str]:
    """Yield what is found as lines of text, for the ``accuracy``, or the tutorial's best if that is lower."""
    if recipe.distortion not in {"none", "r", "rts", "t"}:
        raise SystemExit(
            f"the tutorial's pictures cannot be distorted by {recipe.distortion}; take a recipe of R or RTS"
        )
    theirs = tutorial(recipe, data_root, accuracy)
    wanted = min(accuracy, theirs.accuracy)
    found = ours(recipe, data_root, wanted)
    for name, (seconds, epochs, best) in (("tutorial", theirs), ("ours", found)):
        yield f"{name:9} {best:.2%} after {seconds:,.0f} s of processor time, {epochs} epochs"
    if found.accuracy >= wanted - ROUNDING:
        yield f"ours is {theirs.seconds / found.seconds:.1f} times as fast to {wanted:.2%}"
