"""CUB-200-2011: photographs of 200 species of birds, which differ in details (Wah et al. 2011)."""

import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import torch

from training.data.pictures import read_pictures, shape
from training.data.splits import Split, hold_out
from training.errors import DataError
from training.recipes.recipe import Size

FOLDER = "CUB_200_2011"
"""The folder that the data set's archive unpacks to."""

Value = TypeVar("Value")


class Bird(NamedTuple):
    """A picture of the data set."""

    file: Path
    label: int
    box: tuple[float, float, float, float]
    """Left, top, width and height of the bird's bounding box, in pixels."""


class Birds:
    """The data set's pictures, resized to one size. It is not downloaded: its pictures have terms of use."""

    classes: tuple[str, ...]

    def __init__(self, root: Path, validation_size: int, size: Size) -> None:
        """``validation_size`` of the training pictures are held out; ``size`` is (height, width).

        Raises:
            DataError: the table of classes cannot be read.
        """
        self.folder = root / FOLDER
        self.validation_size = validation_size
        self.size = size
        names = read_table(self.folder / "classes.txt", " ".join)
        if sorted(names) != list(range(1, len(names) + 1)):
            raise DataError(
                f"{self.folder / 'classes.txt'} does not number the classes from 1; unpack the archive again"
            )
        self.classes = tuple((name.partition(".")[2] or name).replace("_", " ") for _, name in sorted(names.items()))

    def training(self) -> tuple[Split, Split]:
        return hold_out(self._read(train=True), self.validation_size, "cub")

    def test(self) -> Split:
        return self._read(train=False)

    def _read(self, *, train: bool) -> Split:
        birds = self._birds(train=train)
        boxes = [normalised(bird) for bird in birds]
        return Split(
            read_pictures([bird.file for bird in birds], self.size, channels=3),
            torch.tensor([bird.label for bird in birds]),
            boxes=torch.tensor(boxes).view(-1, 2, 2),
        )

    def _birds(self, *, train: bool) -> list[Bird]:
        """Return the pictures of a split, in the order of their numbers.

        Raises:
            DataError: a table is missing or damaged, or the tables do not fit together.
        """
        is_training = read_table(self.folder / "train_test_split.txt", zero_or_one)
        files = read_table(self.folder / "images.txt", path_inside)
        labels = read_table(self.folder / "image_class_labels.txt", lambda words: int(words[0]) - 1)
        boxes = read_table(self.folder / "bounding_boxes.txt", four_numbers)
        if not files.keys() == is_training.keys() == labels.keys() == boxes.keys():
            raise DataError(f"the tables in {self.folder} name different pictures; unpack the archive again")
        if unknown := set(labels.values()) - set(range(len(self.classes))):
            raise DataError(f"{self.folder / 'image_class_labels.txt'} has a class {min(unknown) + 1} without a name")
        chosen = [number for number in sorted(files) if is_training[number] == train]
        return [Bird(self.folder / "images" / files[number], labels[number], boxes[number]) for number in chosen]


def read_table(file: Path, convert: Callable[[list[str]], Value]) -> dict[int, Value]:
    """Read a table of a number and values in each line; ``convert`` gets the values.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"CUB-200-2011 is not complete: {file} cannot be read ({error.strerror}); download its archive, unpack it, "
            "and name the folder that holds CUB_200_2011/ with --data-root"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is damaged ({error.reason} in UTF-8); unpack the archive again") from error
    found: dict[int, Value] = {}
    for position, line in enumerate(lines, start=1):
        number, *values = line.split() or ["", ""]
        try:
            found[int(number)] = convert(values)
        except (LookupError, ValueError) as error:
            raise DataError(f"{file} is damaged in line {position}; unpack the archive again") from error
    return found


def zero_or_one(words: list[str]) -> bool:
    """Parse whether a picture is for training.

    Raises:
        ValueError: it is neither 0 nor 1.
    """
    return bool(("0", "1").index(words[0]))


def path_inside(words: list[str]) -> str:
    """Parse the path of a picture, which can contain spaces.

    Raises:
        ValueError: it leads out of the folder.
    """
    path = PurePosixPath(" ".join(words))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} leads out of the folder")
    return str(path)


def four_numbers(words: list[str]) -> tuple[float, float, float, float]:
    """Parse a bounding box.

    Raises:
        ValueError: it has not four numbers, or no area.
    """
    left, top, width, height = map(float, words)
    if not all(map(math.isfinite, (left, top, width, height))) or min(width, height) <= 0:
        raise ValueError(f"{words} is no box")
    return left, top, width, height


def normalised(bird: Bird) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the bird's box, normalised to [-1, 1].

    Raises:
        DataError: the picture is missing or damaged.
    """
    width, height, _ = shape(bird.file)
    left, top, wide, high = bird.box
    right, bottom = left + wide, top + high
    return (2 * left / width - 1, 2 * top / height - 1, 2 * right / width - 1, 2 * bottom / height - 1)
