"""The data sets of the recipes, in torchvision's layout; missing ones are downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from training.data.folder.corners import read_corners
from training.data.folder.source import Folder, read_split
from training.data.folder.store import is_streamed
from training.data.published.birds import Birds
from training.data.published.traffic_signs import Signs
from training.data.random_streams import Stream, seeded
from training.data.splits import Source, Split, hold_out
from training.errors import DataError
from training.recipes.recipe import Recipe

OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR-10."""

Stored = TypeVar("Stored")


class Digits:
    """MNIST. With ``sums``, the classes are sums of two digits, while the labels remain those of single digits."""

    def __init__(self, root: Path, validation_size: int, *, sums: bool) -> None:
        """``validation_size`` of the training pictures are held out."""
        self.root = root
        self.validation_size = validation_size
        self.classes = tuple(map(str, range(19 if sums else 10)))

    def training(self) -> tuple[Split, Split]:
        return hold_out(self._read(train=True), self.validation_size, "mnist")

    def test(self) -> Split:
        return self._read(train=False)

    def _read(self, *, train: bool) -> Split:
        from torchvision.datasets import MNIST  # slow to import

        place = f"put its four idx files into {self.root / 'MNIST' / 'raw'}"
        dataset = stored(lambda: MNIST(self.root, train=train, download=True), "MNIST", self.root, place)
        return Split(dataset.data[:, None], dataset.targets)


class FewDigits(Digits):
    """MNIST-12k: MNIST's 70,000 digits in one random order, a few of them for training and many for the test.

    The numbers are those of MNIST-rot and its kin (Larochelle et al. 2007): 12,000 digits to train and validate,
    50,000 for the test, and the rest unused. Which digits these are is drawn once, by `Stream.SPLIT`; they are not
    the authors'.
    """

    def __init__(
        self, root: Path, validation_size: int, *, sums: bool, training_size: int = 12_000, test_size: int = 50_000
    ) -> None:
        """``validation_size`` of the ``training_size`` pictures are held out."""
        super().__init__(root, validation_size, sums=sums)
        self.training_size = training_size
        self.test_size = test_size

    def training(self) -> tuple[Split, Split]:
        chosen, _ = self._shared_out()
        return hold_out(chosen, self.validation_size, "mnist-12k")

    def test(self) -> Split:
        _, chosen = self._shared_out()
        return chosen

    def _shared_out(self) -> tuple[Split, Split]:
        """Return the pictures to train and validate, and those for the test.

        Raises:
            DataError: MNIST cannot be read, or its files have too few digits.
        """
        first, second = self._read(train=True), self._read(train=False)
        whole = Split(torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels]))
        used = self.training_size + self.test_size
        if len(whole.labels) < used:
            raise DataError(
                f"mnist-12k needs {used:,} digits, but MNIST in {self.root} has {len(whole.labels):,}; put its four "
                f"idx files into {self.root / 'MNIST' / 'raw'}"
            )
        order = torch.randperm(len(whole.labels), generator=seeded(Stream.SPLIT))
        return whole.at(order[: self.training_size]), whole.at(order[self.training_size : used])


class Objects:
    """CIFAR-10."""

    classes: tuple[str, ...] = OBJECTS

    def __init__(self, root: Path, validation_size: int) -> None:
        """``validation_size`` of the training pictures are held out."""
        self.root = root
        self.validation_size = validation_size

    def training(self) -> tuple[Split, Split]:
        return hold_out(self._read(train=True), self.validation_size, "cifar10")

    def test(self) -> Split:
        return self._read(train=False)

    def _read(self, *, train: bool) -> Split:
        from torchvision.datasets import CIFAR10  # slow to import

        place = f"put its folder cifar-10-batches-py into {self.root}"
        dataset = stored(lambda: CIFAR10(self.root, train=train, download=True), "CIFAR-10", self.root, place)
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(dataset.targets))


def stored(read: Callable[[], Stored], name: str, root: Path, cure: str) -> Stored:
    """Call ``read``, which reads a data set with torchvision.

    Raises:
        DataError: it is missing and cannot be downloaded; the message ends with ``cure``.
    """
    try:
        return read()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's message has a line for each address that it tried
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({reason}); "
            f"{cure} or name another folder with --data-root"
        ) from error


def open_source(recipe: Recipe, root: Path, split_file: Path | None = None, corners_file: Path | None = None) -> Source:
    """Return the data set of ``recipe`` under ``root``; no picture is read yet.

    Raises:
        DataError: the recipe is for a folder of pictures, and its ``split_file`` or ``corners_file`` cannot be read; or
            it is for CUB-200-2011, whose table of classes cannot be read.
    """
    if recipe.dataset == "folder":
        if split_file is None:
            raise DataError("a folder of pictures must be split before it can be read; create a run of it")
        outlines = [] if corners_file is None else read_corners(corners_file)
        entries = read_split(split_file)
        streamed = is_streamed(recipe, len(entries))
        form = (recipe.canvas, len(recipe.mean), recipe.scene, outlines)
        return Folder(root, entries, *form, streamed=streamed, cache=recipe.cache)
    if recipe.dataset == "cifar10":
        return Objects(root, recipe.validation_size)
    if recipe.dataset == "gtsrb":
        return Signs(root, recipe.validation_size, recipe.canvas)
    if recipe.dataset == "cub":
        return Birds(root, recipe.validation_size, recipe.canvas)
    digits = FewDigits if recipe.dataset == "mnist-12k" else Digits
    return digits(root, recipe.validation_size, sums=recipe.distortion == "addition")
