"""The splits of a data set, distorted as the recipe says, and loaders of whole batches.

Pictures are kept in memory as uint8. Conversion and distortion work on whole batches, never on single pictures.
"""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.augmentation import Jittered
from training.data.distortions import Distorted, Distortion, make_distortion
from training.data.random_streams import Stream, seeded
from training.data.splits import Source, Split
from training.errors import DataError
from training.recipes.recipe import Recipe


class Pictures(Dataset[Split]):
    """A map-style data set whose index is a tensor of positions: one batch."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, positions: Tensor) -> Split:
        return self.split.at(positions)


class Batches(Sampler[Tensor]):
    """A sampler of whole batches. Their order depends only on seed and epoch, so a resumed run sees the same one."""

    def __init__(self, length: int, batch_size: int, shuffle_seed: int | None) -> None:
        """Without ``shuffle_seed`` the order is kept, and a smaller last batch too; with it, that batch is dropped."""
        self.length = length
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the trainer calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle_seed is None:
            return -(-self.length // self.batch_size)
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, because a resuming trainer calls iter() before set_epoch(): the order is drawn on first use.
        if self.shuffle_seed is None:
            order = torch.arange(self.length)
        else:
            order = torch.randperm(self.length, generator=seeded(Stream.ORDER, self.shuffle_seed, self.epoch))
        yield from torch.split(order, self.batch_size)[: len(self)]


def loader(split: Split, batch_size: int, shuffle_seed: int | None = None) -> DataLoader[Split]:
    """Return a loader of batches of ``split``, shuffled if ``shuffle_seed`` is given."""
    batches = Batches(len(split.labels), batch_size, shuffle_seed)
    return DataLoader(Pictures(split), sampler=batches, batch_size=None)


def training_splits(recipe: Recipe, source: Source) -> tuple[Split, Split]:
    """Return the training pictures, undistorted, and the validation pictures, distorted once.

    Raises:
        DataError: the data set cannot be read, or leaves less than one batch to train on.
    """
    train, validation = source.training()
    if recipe.batch_size > len(train.labels):
        raise DataError(
            f"batch_size is {recipe.batch_size}, but {recipe.dataset} has only {len(train.labels)} pictures to train "
            "on; lower it with --set batch_size=N"
        )
    return train, distorted(recipe, validation, Stream.VALIDATION)


def test_split(recipe: Recipe, source: Source) -> Split:
    """Return all test pictures, distorted with parameters from `Stream.TEST`.

    Raises:
        DataError: the data set cannot be read.
    """
    return distorted(recipe, source.test(), Stream.TEST)


def distortion(recipe: Recipe) -> Distortion:
    """Return the recipe's distortion."""
    return make_distortion(recipe.distortion, recipe.canvas)


def training_distortion(recipe: Recipe) -> Distortion:
    """Return the random change of training pictures: the augmentation if there is any, else the distortion."""
    return Jittered(recipe.canvas, recipe.augmentation) if recipe.augmented else distortion(recipe)


def distorted(recipe: Recipe, pictures: Split, stream: Stream) -> Split:
    """Distort ``pictures`` once, rounded to uint8, as a client of the service would send them."""
    if recipe.distortion == "none" and pictures.images.shape[-2:] == recipe.canvas:
        return pictures
    changed = distort(distortion(recipe), pictures, seeded(stream))
    return Split(changed.images.round().clamp(0, 255).to(torch.uint8), changed.labels)


def distort(how: Distortion, split: Split, generator: Generator) -> Distorted:
    """Distort ``split`` with parameters drawn from ``generator``; the images become float from 0 to 255."""
    height, width = split.images.shape[-2:]
    parameters = how.draw(len(split.labels), (height, width), generator)
    return how.apply(split.images.float(), split.labels, parameters)
