"""Data sets and splits, and the loaders that hand out whole batches.

Pictures are kept in memory as uint8 and leave it a batch at a time, so that conversion and distortion work on
batches and nothing is done picture by picture.
"""

from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import MNIST

from training.distortions import Distorted, Distortion, make_distortion
from training.errors import DataError
from training.recipes import Recipe


class Stream(IntEnum):
    """What random numbers are for. Each use has its own, so that none changes another."""

    SPLIT = 0
    """Choice of the validation pictures: the same for every run, so that runs can be compared."""
    VALIDATION = 1
    TEST = 2
    """Distortions of the test pictures: with it anyone can rebuild them."""
    ORDER = 3
    DISTORTION = 4
    UPRIGHTNESS = 5
    PATH = 6


class Split(NamedTuple):
    """Pictures and their classes."""

    images: Tensor
    """``(N, C, H, W)`` uint8."""
    labels: Tensor
    """``(N,)`` int64."""


class Pictures(Dataset[Split]):
    """A split as a map-style data set whose index is a whole batch of positions."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, positions: Tensor) -> Split:
        return Split(self.split.images[positions], self.split.labels[positions])


class Batches(Sampler[Tensor]):
    """Positions of whole batches; shuffled by seed and epoch alone, so that a resumed run sees the same order."""

    def __init__(self, length: int, batch_size: int, shuffle_seed: int | None) -> None:
        """``shuffle_seed=None`` keeps the order and the last, smaller batch; else that batch is left out."""
        self.length = length
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle_seed is None:
            return -(-self.length // self.batch_size)
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, since a resuming trainer calls iter() before set_epoch(): the order is drawn at the first batch.
        if self.shuffle_seed is None:
            order = torch.arange(self.length)
        else:
            order = torch.randperm(self.length, generator=seeded(Stream.ORDER, self.shuffle_seed, self.epoch))
        yield from torch.split(order, self.batch_size)[: len(self)]


def seeded(stream: Stream, seed: int = 0, position: int = 0) -> Generator:
    """A generator for one place of a run (a step, an epoch): no state to lose when the run is interrupted."""
    mixed = np.random.SeedSequence((stream, seed, position)).generate_state(1)  # torch heeds only 32 bits of a seed
    return Generator().manual_seed(int(mixed[0]))


def loader(split: Split, batch_size: int, shuffle_seed: int | None = None) -> DataLoader[Split]:
    """Batches of ``split``; in the order of the split unless ``shuffle_seed`` is given."""
    batches = Batches(len(split.labels), batch_size, shuffle_seed)
    return DataLoader(Pictures(split), sampler=batches, batch_size=None)


def read_mnist(root: Path, *, train: bool) -> Split:
    """MNIST as torchvision stores it under ``root``; downloaded there when it is missing.

    Raises:
        DataError: it is not there and cannot be downloaded.
    """
    try:
        dataset = MNIST(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's has a line for each place that it tried
        raise DataError(
            f"MNIST is not in {root} and could not be downloaded ({reason}); "
            f"put its four idx files into {root / 'MNIST' / 'raw'} or name another folder with --data-root"
        ) from error
    return Split(dataset.data[:, None], dataset.targets)


def training_splits(recipe: Recipe, root: Path) -> tuple[Split, Split]:
    """The undistorted training pictures, and the distorted validation pictures split off from them.

    Raises:
        DataError: the data set cannot be read, or is smaller than the recipe's validation set and a batch.
    """
    whole = read_mnist(root, train=True)
    count = len(whole.labels)
    if recipe.validation_size >= count:
        raise DataError(
            f"{recipe.dataset} has {count} training pictures, so {recipe.validation_size} cannot be split off; "
            "lower it with --set validation_size=N"
        )
    if recipe.batch_size > count - recipe.validation_size:
        raise DataError(
            f"{recipe.batch_size} pictures make a batch, but {recipe.dataset} leaves only "
            f"{count - recipe.validation_size} to train on; lower it with --set batch_size=N"
        )
    order = torch.randperm(count, generator=seeded(Stream.SPLIT))
    held_out, kept = order[: recipe.validation_size], order[recipe.validation_size :]
    train = Split(whole.images[kept], whole.labels[kept])
    validation = Split(whole.images[held_out], whole.labels[held_out])
    return train, distorted(recipe, validation, Stream.VALIDATION)


def test_split(recipe: Recipe, root: Path) -> Split:
    """The distorted test pictures: every test picture once, under the distortions of `Stream.TEST`.

    Raises:
        DataError: the data set cannot be read.
    """
    return distorted(recipe, read_mnist(root, train=False), Stream.TEST)


def first_test_digits(root: Path, count: int) -> Split:
    """The first ``count`` test pictures as they are, without a distortion.

    Raises:
        DataError: the data set cannot be read.
    """
    whole = read_mnist(root, train=False)
    return Split(whole.images[:count], whole.labels[:count])


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the recipe's classes, in the order of its labels."""
    return tuple(str(number) for number in range(19 if recipe.distortion == "addition" else 10))


def distortion(recipe: Recipe) -> Distortion:
    """The recipe's distortion."""
    return make_distortion(recipe.distortion, recipe.canvas)


def distorted(recipe: Recipe, split: Split, stream: Stream) -> Split:
    """``split`` distorted once and for all, rounded to uint8: pictures as a client of the service would send."""
    changed = distort(distortion(recipe), split, seeded(stream))
    return Split(changed.images.round().clamp(0, 255).to(torch.uint8), changed.labels)


def distort(how: Distortion, split: Split, generator: Generator) -> Distorted:
    """``split`` under parameters drawn from ``generator``; the images are float from 0 to 255."""
    height, width = split.images.shape[-2:]
    parameters = how.draw(len(split.labels), (height, width), generator)
    return how.apply(split.images.float(), split.labels, parameters)
