"""Write GTSRB in its own layout from sheets of 48x48 tiles.

    python -m benchmarks.accuracy.gtsrb_sheets SHEETS DATA_ROOT

SHEETS holds ``train.csv`` and ``test.csv``, a row for each picture, and their tiles in that order in ``train_00.jpg``,
and so on. Recipes for traffic signs then read DATA_ROOT. Tables keep the sizes and boxes of the original photographs.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

TILE = 48
COLUMNS = ("width", "height", "roi_x1", "roi_y1", "roi_x2", "roi_y2", "class_id")
HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def tiles(sheets: Path, split: str) -> Iterator[Image.Image]:
    """All tiles of a split, in their order."""
    for file in sorted(sheets.glob(f"{split}_[0-9][0-9].jpg")):
        with Image.open(file) as sheet:
            for top in range(0, sheet.height, TILE):
                for left in range(0, sheet.width, TILE):
                    yield sheet.crop((left, top, left + TILE, top + TILE)).convert("RGB")


def convert(sheets: Path, root: Path, most: int | None = None) -> None:
    """Write the pictures and tables of both splits; of each, ``most`` at most."""
    base = root / "gtsrb"
    for split, pictures in (("train", "Final_Training"), ("test", "Final_Test")):
        tables: dict[Path, str] = defaultdict(lambda: HEADER)
        with (sheets / f"{split}.csv").open(newline="") as table:
            for row, tile in islice(zip(csv.DictReader(table), tiles(sheets, split), strict=False), most):
                folder, label = base / "GTSRB" / pictures / "Images", int(row["class_id"])
                name, file = f"{int(row['index']):05d}.ppm", base / "GT-final_test.csv"
                if split == "train":
                    folder = folder / f"{label:05d}"
                    name, file = f"{int(row['track']):05d}_{int(row['frame']):05d}.ppm", folder / f"GT-{label:05d}.csv"
                folder.mkdir(parents=True, exist_ok=True)
                tile.save(folder / name)
                tables[file] += ";".join([name, *(row[column] for column in COLUMNS)]) + "\n"
        for file, text in tables.items():
            file.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write GTSRB in its own layout from sheets of tiles.")
    parser.add_argument("sheets", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--most", type=int, help="pictures of each split, at most")
    asked = parser.parse_args()
    convert(asked.sheets, asked.data_root, asked.most)
