"""Splits of a data set, distorted as a recipe says, and the loaders that hand out whole batches.

Pictures are kept in memory as uint8 and leave it a batch at a time, so that conversion and distortion work on
batches and nothing is done picture by picture.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.augmentation import Jittered
from training.data.collection import Collection, Source
from training.data.distortions import Distorted, Distortion, make_distortion
from training.data.random_streams import Stream, seeded
from training.errors import DataError
from training.recipes.recipe import Recipe


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


def loader(split: Split, batch_size: int, shuffle_seed: int | None = None) -> DataLoader[Split]:
    """Batches of ``split``; in the order of the split unless ``shuffle_seed`` is given."""
    batches = Batches(len(split.labels), batch_size, shuffle_seed)
    return DataLoader(Pictures(split), sampler=batches, batch_size=None)


def training_splits(recipe: Recipe, source: Source) -> tuple[Split, Split]:
    """The pictures to train on, undistorted, and those to validate on, distorted once and for all.

    Raises:
        DataError: the data set cannot be read, or is smaller than the recipe's validation set and a batch.
    """
    train, validation = source.training()
    if recipe.batch_size > len(train.labels):
        raise DataError(
            f"{recipe.batch_size} pictures make a batch, but {recipe.dataset} leaves only {len(train.labels)} to train "
            "on; lower it with --set batch_size=N"
        )
    return Split(train.images, train.labels), distorted(recipe, validation, Stream.VALIDATION)


def test_split(recipe: Recipe, source: Source) -> Split:
    """The distorted test pictures: every test picture once, under the distortions of `Stream.TEST`.

    Raises:
        DataError: the data set cannot be read.
    """
    return distorted(recipe, source.test(), Stream.TEST)


def distortion(recipe: Recipe) -> Distortion:
    """The recipe's distortion."""
    return make_distortion(recipe.distortion, recipe.canvas)


def training_distortion(recipe: Recipe) -> Distortion:
    """What pictures go through each time they are trained on: the distortion, or where it is none, augmentation."""
    return Jittered(recipe.canvas, recipe.augmentation) if recipe.augmented else distortion(recipe)


def distorted(recipe: Recipe, pictures: Collection, stream: Stream) -> Split:
    """``pictures`` distorted once and for all, rounded to uint8: as a client of the service would send them."""
    if recipe.distortion == "none" and pictures.images.shape[-2:] == recipe.canvas:
        return Split(pictures.images, pictures.labels)
    changed = distort(distortion(recipe), Split(pictures.images, pictures.labels), seeded(stream))
    return Split(changed.images.round().clamp(0, 255).to(torch.uint8), changed.labels)


def distort(how: Distortion, split: Split, generator: Generator) -> Distorted:
    """``split`` under parameters drawn from ``generator``; the images are float from 0 to 255."""
    height, width = split.images.shape[-2:]
    parameters = how.draw(len(split.labels), (height, width), generator)
    return how.apply(split.images.float(), split.labels, parameters)
