"""Playing cards on tables as somebody's own pictures: folders by class, a card in each.

``python -m benchmarks.accuracy.card_crops cut CARDS FOLDER [--marked SHARE]`` cuts each card out of its photograph,
with three times its size around it, and writes a split by blocks of photographs. With ``--marked``, it also writes a
``corners.csv`` with the boxes of this share of the training and validation pictures; by default, none are given.
``python -m benchmarks.accuracy.card_crops measure RUN FOLDER`` compares what a run found in the test pictures with
their boxes, which it was not given.

CARDS holds photographs in ``images/`` and ``boxes.csv`` with the columns file, class, x1, y1, x2, y2 in pixels.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data.batches import loader
from training.evaluation.overlaps import bounds, intersection_over_union
from training.fitting.runs import Run
from training.networks.geometry import affine_points, corner_points

AROUND = 3
"""Side of a crop, in multiples of the card's longer side."""
OFF_CENTRE = 0.1
"""Largest distance of the card's centre from that of the crop, as a share of the side."""
BLOCK = 8
"""Neighbouring photographs that stay in one split, because they may show the same scene."""
PARTS = ("train", "train", "test", "train", "train", "validation", "train")
BOXES = "boxes.json"


def cut(cards: Path, folder: Path, marked: float = 0.0) -> int:
    """Write the crops, ``split.csv``, and the boxes in the crops; return the number of crops.

    Where ``marked`` is above 0, ``corners.csv`` has the boxes of this share of the training and validation pictures.
    """
    generator = np.random.default_rng(0)
    with (cards / "boxes.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    names = sorted({row["file"] for row in rows}, key=lambda name: (len(name), name))
    split, outlines, boxes = ["path,split"], ["path,x1,y1,x2,y2"], {}
    for number, row in enumerate(rows):
        left, top, right, bottom = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        with Image.open(cards / "images" / row["file"]) as opened:
            picture = opened.convert("RGB")
        longer = max(right - left, bottom - top)
        side = min(AROUND * longer, *picture.size)
        aside, below = generator.uniform(-OFF_CENTRE, OFF_CENTRE, 2) * side
        x = np.clip((left + right - side) / 2 + aside, 0, picture.width - side)
        y = np.clip((top + bottom - side) / 2 + below, 0, picture.height - side)
        path = Path(row["class"], f"{Path(row['file']).stem}-{number}.png")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        size = max(round(side), 1)
        picture.resize((size, size), Image.Resampling.BICUBIC, (x, y, x + side, y + side)).save(folder / path)
        part = PARTS[names.index(row["file"]) // BLOCK % len(PARTS)]
        split.append(f"{path.as_posix()},{part}")
        inside = ((np.array([[left, top], [right, bottom]]) - (x, y)) / side).clip(0, 1)
        boxes[path.as_posix()] = (inside * 2 - 1).tolist()
        if part != "test" and number * marked % 1 < marked:
            outlines.append(",".join([path.as_posix(), *(f"{edge:.1f}" for edge in (inside * size).flatten())]))
    (folder / "split.csv").write_text("\n".join(split) + "\n")
    if marked:
        (folder / "corners.csv").write_text("\n".join(outlines) + "\n")
    (folder.parent / f"{folder.name}-{BOXES}").write_text(json.dumps(boxes))
    return len(rows)


def measure(folder: Path, pictures: Path) -> dict[str, float]:
    """Return the mean overlap of theta's box, and of the best fixed centre crop, with the cards' boxes."""
    run = Run(folder)
    network = run.trained_network()
    boxes = json.loads((pictures.parent / f"{pictures.name}-{BOXES}").read_text())
    with run.split_file.open(newline="") as table:
        wanted = torch.tensor([boxes[row["path"]] for row in csv.DictReader(table) if row["split"] == "test"])
    test = run.source(pictures).test()
    with torch.inference_mode():
        thetas = torch.cat([network(batch.images.float() / 255).warps[-1].theta for batch in loader(test, 100)])
    found = bounds(affine_points(thetas, corner_points()))
    sides = [percent / 100 for percent in range(10, 101)]
    centred = [torch.tensor([[-side, -side], [side, side]]).expand_as(wanted) for side in sides]
    return {
        "pictures": len(wanted),
        "theta": round(float(intersection_over_union(found, wanted).mean()), 3),
        "best centre crop": max(round(float(intersection_over_union(box, wanted).mean()), 3) for box in centred),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Playing cards as somebody's own pictures.")
    parser.add_argument("command", choices=["cut", "measure"])
    parser.add_argument("source", type=Path, help="CARDS, or the run")
    parser.add_argument("folder", type=Path, help="folder of the crops")
    parser.add_argument("--marked", type=float, default=0.0, help="share of the crops whose boxes are given")
    asked = parser.parse_args()
    print(
        cut(asked.source, asked.folder, asked.marked) if asked.command == "cut" else measure(asked.source, asked.folder)
    )
