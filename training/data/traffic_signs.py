"""GTSRB: photographs of German traffic signs, 30 of each physical sign (Stallkamp et al. 2012)."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import GTSRB

from training.data.collection import Collection, hold_out
from training.data.pictures import read_pictures
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
SHEETS = "gtsrb48"
"""A folder of the benchmark as sheets of small tiles with tables beside them; if there is one, it is what is read."""
TILE = 48
TILES_IN_A_ROW = 40
FULL_TRAINING_SET = Path("gtsrb", "GTSRB", "Final_Training", "Images")
"""All 39,209 training pictures as the benchmark's own archive unpacks; torchvision's archive has 26,640 of them."""


class Sign(NamedTuple):
    """A row of the benchmark's tables."""

    file: Path
    label: int
    track: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, normalised to [-1, 1]."""


class Signs:
    """The benchmark under a folder, all pictures brought to one size."""

    classes: tuple[str, ...] = CLASSES

    def __init__(self, root: Path, validation_size: int, size: Size) -> None:
        """``validation_size`` of the training pictures, in whole tracks, are held out; ``size`` is (height, width)."""
        self.root = root
        self.validation_size = validation_size
        self.size = size

    def training(self) -> tuple[Collection, Collection]:
        return hold_out(self._read("train"), self.validation_size, "gtsrb")

    def test(self) -> Collection:
        return self._read("test")

    def _read(self, split: str) -> Collection:
        sheets = self.root / SHEETS
        try:
            signs = sheet_signs(sheets, split) if sheets.is_dir() else file_signs(self.root, split)
            images = read_tiles(sheets, split, self.size) if sheets.is_dir() else None
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise DataError(
                f"GTSRB cannot be read from {self.root} and was not downloaded ({' '.join(str(error).split())}); "
                "name the folder that holds gtsrb/ with --data-root"
            ) from error
        if images is None:
            images = read_pictures([sign.file for sign in signs], self.size, channels=3)
        if len(images) < len(signs):
            raise DataError(f"{sheets} has {len(images)} tiles for {len(signs)} rows of {split}.csv; copy it again")
        return Collection(
            images[: len(signs)],
            torch.tensor([sign.label for sign in signs]),
            torch.tensor([1000 * sign.label + sign.track for sign in signs]) if split == "train" else None,
            torch.tensor([sign.box for sign in signs]).view(-1, 2, 2),
        )


def file_signs(root: Path, split: str) -> list[Sign]:
    """The single pictures, as torchvision stores them; it downloads what is missing."""
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
    columns = ("Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")

    def sign(folder: Path, row: dict[str, str]) -> Sign:
        track = int(row["Filename"].split("_")[0]) if split == "train" else 0
        return Sign(folder / row["Filename"], class_of(row["ClassId"]), track, outline(row, columns))

    return [found for file, folder in tables for found in read_table(file, ";", partial(sign, folder))]


def sheet_signs(folder: Path, split: str) -> list[Sign]:
    """The rows of a table beside sheets of tiles."""
    columns = ("width", "height", "roi_x1", "roi_y1", "roi_x2", "roi_y2")

    def sign(row: dict[str, str]) -> Sign:
        track = int(row["track"]) if split == "train" else 0
        return Sign(folder, class_of(row["class_id"]), track, outline(row, columns))

    return read_table(folder / f"{split}.csv", ",", sign)


def read_table(file: Path, delimiter: str, sign: Callable[[dict[str, str]], Sign]) -> list[Sign]:
    """What ``sign`` makes of each row of a table with a header.

    Raises:
        DataError: a row is damaged.
    """
    with file.open(newline="") as text:
        reader = csv.DictReader(text, delimiter=delimiter)
        try:
            return list(map(sign, reader))
        except (csv.Error, AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"{file} is damaged in line {reader.line_num} ({error}); copy it again") from error


def class_of(text: str) -> int:
    """The number of a class.

    Raises:
        ValueError: there is no such class.
    """
    number = int(text)
    if number not in range(len(CLASSES)):
        raise ValueError(f"there is no class {number}")
    return number


def outline(row: dict[str, str], names: tuple[str, ...]) -> tuple[float, float, float, float]:
    """The box about the sign; ``names`` are the columns of width and height, then of its corners, which it includes."""
    width, height, left, top, right, bottom = (int(row[name]) for name in names)
    return (
        2 * left / width - 1,
        2 * top / height - 1,
        2 * (right + 1) / width - 1,
        2 * (bottom + 1) / height - 1,
    )


def read_tiles(folder: Path, split: str, size: Size) -> torch.Tensor:
    """All tiles of a split in their order, resized: ``(N, 3, H, W)`` uint8."""
    tiles = []
    for file in sorted(folder.glob(f"{split}_[0-9][0-9].jpg")):
        with Image.open(file) as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        down = pixels.shape[0] // TILE
        split_up = pixels.reshape(down, TILE, TILES_IN_A_ROW, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
        if size != (TILE, TILE):
            height, width = size
            resized = [Image.fromarray(tile).resize((width, height), Image.Resampling.BILINEAR) for tile in split_up]
            split_up = np.stack([np.asarray(tile) for tile in resized])
        tiles.append(torch.from_numpy(split_up.copy()).permute(0, 3, 1, 2))
    return torch.cat(tiles).contiguous()
