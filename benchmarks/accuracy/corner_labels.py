"""Traffic signs on streets with known corners, labelled for a share of the training pictures.

``python -m benchmarks.accuracy.corner_labels write SCENES DATA_ROOT FOLDER`` takes signs of GTSRB from DATA_ROOT, cut
at their boxes, and pastes each onto a part of a photograph of a street, turned and in perspective. Tracks of signs stay
in one split, and test pictures have streets of their own.
``python -m benchmarks.accuracy.corner_labels measure FOLDER RUNS --shares 1 0.1 0.01 0`` trains the recipe `corners`
with the corners of this share of the training pictures of each class, evaluates it, and prints a table. All validation
and test pictures have corners.

SCENES is described in `benchmarks.accuracy.streets`.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.accuracy.streets import Box, is_free, is_held_out, read_boxes
from training.data.distortions import convex, homographies
from training.data.folder.listing import CORNERS_TABLE, SPLIT_TABLE
from training.data.published.traffic_signs import Sign, file_signs
from training.evaluation.corners import CornerFit
from training.fitting.runs import Run, begin_run
from training.fitting.trainer import fit
from training.networks.geometry import base_grid, corner_points, projective_points
from training.networks.samplers import sample
from training.recipes.photographs import CORNERS
from training.recipes.recipe import change_recipe
from training.reports.evaluation import evaluate

CLASSES = {14: "stop", 17: "no-entry", 33: "turn-right", 13: "yield", 12: "priority-road", 1: "speed-limit-30"}
COUNTS = {"train": 120, "validation": 20, "test": 50}
"""Pictures of each class."""
SIDE = 160
"""Side of a picture in pixels."""
SMALLEST, LARGEST = 0.25, 0.6
"""Side of a sign, as a share of the picture's."""
TURN = 25
"""Largest rotation of a sign in degrees."""
PERSPECTIVE = 0.15
"""Largest shift of each corner along each axis, as a share of the sign's side."""
ALL_CORNERS = "all-corners.csv"
SMALL: dict[str, object] = {
    "canvas": (64, 64),
    "view": (32, 32),
    "rectified": (32, 32),
    "batch_size": 48,
    "upright": 0.0,
}
"""What makes the recipe small enough for a processor's core."""
HEADER = ("path", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


def write(scenes: Path, data_root: Path, folder: Path) -> int:
    """Write the pictures, ``split.csv``, and all corners beside the folder; return the number of pictures."""
    generator = np.random.default_rng(0)
    signs = file_signs(data_root, "train")
    boxes = read_boxes(scenes)
    streets = {held: [file for file in sorted(boxes) if is_held_out(file) == held] for held in (False, True)}
    split, corners = [("path", "split")], []
    for label, name in CLASSES.items():
        (folder / name).mkdir(parents=True)
        of_class = [sign for sign in signs if sign.label == label]
        tracks = generator.permutation(sorted({sign.track for sign in of_class})).tolist()
        parts = {"test": tracks[: len(tracks) // 4], "validation": tracks[len(tracks) // 4 : len(tracks) // 3]}
        parts["train"] = tracks[len(tracks) // 3 :]
        for part, count in COUNTS.items():
            chosen = [sign for sign in of_class if sign.track in parts[part]]
            for number in range(count):
                street = streets[part == "test"][int(generator.integers(len(streets[part == "test"])))]
                ground = background(street, boxes[street], generator)
                picture, points = paste(ground, chosen[int(generator.integers(len(chosen)))], generator)
                path = f"{name}/{part}-{number:03d}.png"
                Image.fromarray(picture).save(folder / path)
                split.append((path, part))
                corners.append((path, *(round(value, 2) for value in points.flatten().tolist())))
    write_table(folder / SPLIT_TABLE, split)
    write_table(folder.parent / f"{folder.name}-{ALL_CORNERS}", [HEADER, *corners])
    return len(corners)


def background(street: Path, boxes: list[Box], generator: np.random.Generator) -> Image.Image:
    """Return a square part of a photograph that no box touches, or else the whole photograph."""
    with Image.open(street) as opened:
        picture = opened.convert("RGB")
    for _ in range(60):
        side = round(generator.uniform(0.4, 1) * min(picture.size))
        left, top = (int(generator.integers(0, length - side + 1)) for length in picture.size)
        if is_free(boxes, left, top, side):
            picture = picture.crop((left, top, left + side, top + side))
            break
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def paste(ground: Image.Image, sign: Sign, generator: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """Paste a sign, cut at its box: return the picture ``(SIDE, SIDE, 3)``, and the corners ``(4, 2)`` in pixels."""
    with Image.open(sign.file) as opened:
        picture = opened.convert("RGB")
    left, top, right, bottom = ((edge + 1) / 2 * picture.size[n % 2] for n, edge in enumerate(sign.box))
    patch = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC, (left, top, right, bottom))
    while True:
        size = SIDE * SMALLEST * (LARGEST / SMALLEST) ** generator.random()
        angle = np.radians(generator.uniform(-TURN, TURN))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        square = corner_points()[0].double().numpy() / 2 + generator.uniform(-PERSPECTIVE, PERSPECTIVE, (4, 2))
        shape = size * square @ turn
        low, high = 4 - shape.min(axis=0), SIDE - 4 - shape.max(axis=0)
        points = torch.from_numpy(shape + generator.uniform(low, np.maximum(high, low)))
        if (high >= low).all() and convex(points[None]).all():
            break
    normal = (points / SIDE * 2 - 1)[None].float()
    fine = 2
    grid = projective_points(homographies(normal, corner_points()), base_grid(fine * SIDE, fine * SIDE))
    pixels, street = (torch.from_numpy(np.array(each)).permute(2, 0, 1)[None].float() for each in (patch, ground))
    inside = (grid.abs() <= 1).all(dim=-1)[:, None].float()
    share = torch.nn.functional.avg_pool2d(inside, fine)
    placed = torch.nn.functional.avg_pool2d(sample(pixels, grid, "border") * inside, fine)
    light = float(np.exp(generator.uniform(-0.3, 0.3)))
    mixed = (placed * light + (1 - share) * street)[0].permute(1, 2, 0)
    noisy = mixed.numpy() + generator.normal(0, 4, (SIDE, SIDE, 1))
    return noisy.round().clip(0, 255).astype(np.uint8), points


def label(folder: Path, share: float) -> int:
    """Write ``corners.csv`` with ``share`` of the training pictures of each class; return how many those are."""
    with (folder.parent / f"{folder.name}-{ALL_CORNERS}").open(newline="") as table:
        rows = list(csv.reader(table))[1:]
    kept, labelled = [], 0
    for row in rows:
        name, _, number = row[0].rpartition("-")
        if not name.endswith("/train") or int(number.partition(".")[0]) < round(share * COUNTS["train"]):
            kept.append(tuple(row))
            labelled += name.endswith("/train")
    write_table(folder / CORNERS_TABLE, [HEADER, *kept])
    return labelled


def write_table(file: Path, rows: Sequence[tuple[object, ...]]) -> None:
    """Write a table with commas."""
    with file.open("w", newline="") as table:
        csv.writer(table, lineterminator="\n").writerows(rows)


def measure(folder: Path, runs: Path, shares: list[float], epochs: int) -> None:
    """Train with each share of the corners, unless that was done before, and print a table."""
    print("| training pictures with corners | corner error, pixels | 90th percentile | overlap | read |")
    print("|---|---|---|---|---|", flush=True)
    for share in shares:
        run = Run(runs / f"corners-{share:g}")
        if not run.evaluation_file.exists():
            label(folder, share)
            recipe = change_recipe(CORNERS, {**SMALL, "epochs": epochs})
            run = begin_run(run.folder, recipe, 0, folder, {*SMALL, "epochs"})
            fit(run, folder, progress=False)
            evaluate(run, folder)
        found = run.evaluation()
        scores = found.corners
        if scores is None or scores.after is None or scores.before is None:
            raise SystemExit(f"{run.folder} has not measured corners; delete it")
        print(row(f"{scores.labelled} ({share:.0%})", scores.after, f"{found.accuracy:.1%}"), flush=True)
        if share == shares[-1]:
            print(row("the whole picture", scores.before))
        if share == shares[0] and scores.guess is not None:
            print(row("mean corners, without looking", scores.guess))


def row(name: str, fit: CornerFit, read: str = "") -> str:
    """Return a row of the table."""
    return f"| {name} | {fit.error_px:.1f} | {fit.error_px_90:.1f} | {fit.overlap:.3f} | {read} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Traffic signs on streets with known corners.")
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write", help="write the pictures")
    writer.add_argument("scenes", type=Path)
    writer.add_argument("data_root", type=Path)
    writer.add_argument("folder", type=Path)
    trainer = commands.add_parser("measure", help="train with shares of the corners, and print a table")
    trainer.add_argument("folder", type=Path)
    trainer.add_argument("runs", type=Path)
    trainer.add_argument("--shares", type=float, nargs="+", default=[1, 0.1, 0.01, 0])
    trainer.add_argument("--epochs", type=int, default=60)
    asked = parser.parse_args()
    if asked.command == "write":
        print(write(asked.scenes, asked.data_root, asked.folder), "pictures")
    else:
        measure(asked.folder, asked.runs, asked.shares, asked.epochs)
