"""GTSRB: photographs of German traffic signs, in tracks of 30 per physical sign (Stallkamp et al. 2012)."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from training.data.pictures import read_pictures
from training.data.splits import Split, hold_out
from training.errors import DataError
from training.recipes.recipe import Size

CLASSES = (
    "Speed limit (20km/h)",
    "Speed limit (30km/h)",
    "Speed limit (50km/h)",
    "Speed limit (60km/h)",
    "Speed limit (70km/h)",
    "Speed limit (80km/h)",
    "End of speed limit (80km/h)",
    "Speed limit (100km/h)",
    "Speed limit (120km/h)",
    "No passing",
    "No passing for vehicles over 3.5 metric tons",
    "Right-of-way at the next intersection",
    "Priority road",
    "Yield",
    "Stop",
    "No vehicles",
    "Vehicles over 3.5 metric tons prohibited",
    "No entry",
    "General caution",
    "Dangerous curve to the left",
    "Dangerous curve to the right",
    "Double curve",
    "Bumpy road",
    "Slippery road",
    "Road narrows on the right",
    "Road work",
    "Traffic signals",
    "Pedestrians",
    "Children crossing",
    "Bicycles crossing",
    "Beware of ice/snow",
    "Wild animals crossing",
    "End of all speed and passing limits",
    "Turn right ahead",
    "Turn left ahead",
    "Ahead only",
    "Go straight or right",
    "Go straight or left",
    "Keep right",
    "Keep left",
    "Roundabout mandatory",
    "End of no passing",
    "End of no passing by vehicles over 3.5 metric tons",
)
BOX_COLUMNS = ("Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
FULL_TRAINING_SET = Path("gtsrb", "GTSRB", "Final_Training", "Images")
"""The 39,209 training pictures of the benchmark's own archive; torchvision's archive has 26,640 of them."""


class Sign(NamedTuple):
    """A row of the benchmark's tables."""

    file: Path
    label: int
    track: int
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the bounding box, normalised to [-1, 1]."""


class Signs:
    """The benchmark's pictures, resized to one size.

    The tracks of the training pictures are their groups. The test pictures come in tracks too, but their order is
    random and their table does not name the tracks.
    """

    classes: tuple[str, ...] = CLASSES

    def __init__(self, root: Path, validation_size: int, size: Size) -> None:
        """``validation_size`` of the training pictures, in whole tracks, are held out; ``size`` is (height, width)."""
        self.root = root
        self.validation_size = validation_size
        self.size = size

    def training(self) -> tuple[Split, Split]:
        return hold_out(self._read("train"), self.validation_size, "gtsrb")

    def test(self) -> Split:
        return self._read("test")

    def _read(self, split: str) -> Split:
        try:
            signs = file_signs(self.root, split)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise DataError(
                f"GTSRB cannot be read from {self.root} and was not downloaded ({' '.join(str(error).split())}); "
                "name the folder that holds gtsrb/ with --data-root"
            ) from error
        return Split(
            read_pictures([sign.file for sign in signs], self.size, channels=3),
            torch.tensor([sign.label for sign in signs]),
            torch.tensor([1000 * sign.label + sign.track for sign in signs]) if split == "train" else None,
            torch.tensor([sign.box for sign in signs]).view(-1, 2, 2),
        )


def file_signs(root: Path, split: str) -> list[Sign]:
    """Return the pictures of a split, as torchvision stores them; missing ones are downloaded."""
    from torchvision.datasets import GTSRB  # slow to import

    base = root / "gtsrb"
    if split == "test":
        GTSRB(root, "test", download=True)
        tables = [(base / "GT-final_test.csv", base / "GTSRB" / "Final_Test" / "Images")]
    else:
        folder = root / FULL_TRAINING_SET
        if not folder.is_dir():
            GTSRB(root, "train", download=True)
            folder = base / "GTSRB" / "Training"
        tables = [(file, file.parent) for file in sorted(folder.glob("*/GT-*.csv"))]

    def sign(folder: Path, row: dict[str, str]) -> Sign:
        track = int(row["Filename"].split("_")[0]) if split == "train" else 0
        return Sign(folder / row["Filename"], class_of(row["ClassId"]), track, outline(row))

    return [found for file, folder in tables for found in read_table(file, partial(sign, folder))]


def read_table(file: Path, sign: Callable[[dict[str, str]], Sign]) -> list[Sign]:
    """Convert each row of a table with a header by ``sign``.

    Raises:
        DataError: a row is damaged.
    """
    with file.open(newline="") as text:
        reader = csv.DictReader(text, delimiter=";")
        try:
            return list(map(sign, reader))
        except (csv.Error, AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"{file} is damaged in line {reader.line_num} ({error}); copy it again") from error


def class_of(text: str) -> int:
    """Parse the number of a class.

    Raises:
        ValueError: there is no such class.
    """
    number = int(text)
    if number not in range(len(CLASSES)):
        raise ValueError(f"there is no class {number}")
    return number


def outline(row: dict[str, str]) -> tuple[float, float, float, float]:
    """Return the sign's bounding box; its last row and column are part of it."""
    width, height, left, top, right, bottom = (int(row[name]) for name in BOX_COLUMNS)
    return (2 * left / width - 1, 2 * top / height - 1, 2 * (right + 1) / width - 1, 2 * (bottom + 1) / height - 1)
