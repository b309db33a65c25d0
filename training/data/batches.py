"""The splits of a data set, distorted as the recipe says, and loaders of whole batches.

Pictures are kept in memory as uint8. Conversion and distortion work on whole batches, never on single pictures.
"""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.augmentation import Jittered
from training.data.distortions import Distorted, Distortion, make_distortion
from training.data.placement import OnBackgrounds, read_backgrounds
from training.data.random_streams import Stream, seeded
from training.data.splits import Source, Split
from training.errors import DataError
from training.networks.geometry import compose
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

    def __init__(self, length: int, batch_size: int, shuffle_seed: int | None, shares: Tensor | None = None) -> None:
        """Set the order.

        Args:
            length: number of pictures.
            batch_size: pictures per batch.
            shuffle_seed: without, the order is kept, and a smaller last batch too; with it, that batch is dropped.
            shares: ``(length,)``: how often each picture is drawn, relative to the others; by default, each is shown
                once.
        """
        self.length = length
        self.shares = shares
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
        elif self.shares is not None:
            generator = seeded(Stream.ORDER, self.shuffle_seed, self.epoch)
            order = torch.multinomial(self.shares, self.length, replacement=True, generator=generator)
        else:
            order = torch.randperm(self.length, generator=seeded(Stream.ORDER, self.shuffle_seed, self.epoch))
        yield from torch.split(order, self.batch_size)[: len(self)]


def loader(split: Split, batch_size: int, shuffle_seed: int | None = None, balance: float = 0.0) -> DataLoader[Split]:
    """Return a loader of batches of ``split``, shuffled if ``shuffle_seed`` is given.

    With ``balance`` above 0, pictures are drawn with replacement, those of rare classes more often: a class of n
    pictures is shown in proportion to n to the power of 1 - ``balance``.
    """
    shares = split.labels.bincount()[split.labels].double() ** -balance if balance else None
    batches = Batches(len(split.labels), batch_size, shuffle_seed, shares)
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
    return make_distortion(recipe.distortion, recipe.canvas, recipe.sequence)


def training_distortion(recipe: Recipe) -> Distortion:
    """Return the random change of training pictures: the placement, the distortion, or else the augmentation.

    Raises:
        DataError: the recipe's backgrounds cannot be read.
    """
    if recipe.placement.chance:
        others = Jittered(recipe.canvas, recipe.augmentation)
        return OnBackgrounds(others, recipe.placement, recipe.crop, read_backgrounds(recipe))
    if recipe.augmented and recipe.distortion == "none":
        return Jittered(recipe.canvas, recipe.augmentation)
    return distortion(recipe)


def shape_changes(recipe: Recipe, pictures: Split, generator: Generator) -> Tensor | None:
    """Draw how the augmentation changes the shape of digits that are distorted afterwards: ``(N, 2, 3)``, or None."""
    if not recipe.augmented or recipe.distortion == "none":
        return None
    height, width = pictures.images.shape[-2:]
    maps, _ = Jittered((height, width), recipe.augmentation).draw(len(pictures.labels), (height, width), generator)
    return maps


def distorted(recipe: Recipe, pictures: Split, stream: Stream) -> Split:
    """Distort ``pictures`` once, rounded to uint8, as a client of the service would send them."""
    if recipe.distortion == "none" and pictures.images.shape[-2:] == recipe.canvas:
        return pictures
    changed = distort(distortion(recipe), pictures, seeded(stream))
    return Split(changed.images.round().clamp(0, 255).to(torch.uint8), changed.labels)


def distort(how: Distortion, split: Split, generator: Generator, before: Tensor | None = None) -> Distorted:
    """Distort ``split`` with parameters drawn from ``generator``; the images become float from 0 to 255.

    ``before`` ``(N, 2, 3)`` are maps that change the pictures first; the distortion must be an affine map too. Both are
    applied in one, so that pictures are interpolated once. The result's maps lead to the changed pictures.

    Pictures with known corners show the thing among its surroundings, so they are not placed on backgrounds.
    """
    height, width = split.images.shape[-2:]
    parameters = how.draw(len(split.labels), (height, width), generator)
    if split.corners is not None and isinstance(how, OnBackgrounds):
        parameters = how.spare(parameters, split.corners.known.cpu())
    if before is None:
        return how.apply(split.images.float(), split.labels, parameters)
    maps, *others = parameters
    distorted = how.apply(split.images.float(), split.labels, (compose(before, maps), *others))
    return distorted._replace(maps=maps)
