"""Find, straighten and read signs that GTSRB's crops do not show: moved, and in photographs of streets.

``python -m benchmarks.accuracy.streets backgrounds SCENES FOLDER`` writes patches without signs, for placement.
``python -m benchmarks.accuracy.streets evaluate MODEL_OR_RUN ... --scenes SCENES --data-root DATA`` prints a table.
With ``--second-look``, each crop of a street is looked at again, at twice the region that was found. Thetas are those
of the second look. Classes have the mean probabilities of both looks, while the service keeps those of the first.

SCENES holds photographs in ``images/`` and ``boxes.csv`` with the columns file, width, height, class, x1, y1, x2, y2 in
pixels. The photographs are numbered, and neighbouring numbers often show the same place: of each three blocks of 25
numbers, the first two give backgrounds, the third is held out for evaluation.
"""

import argparse
import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from service.inference.views.second_look import WIDTH
from training.data.published.traffic_signs import Signs
from training.data.random_streams import Stream, seeded
from training.evaluation.overlaps import ellipse_bounds, ellipse_box, intersection_over_union
from training.evaluation.poses import rotation
from training.fitting.runs import Run
from training.networks.geometry import affine_points, base_grid, compose
from training.networks.samplers import sample

BLOCK, BLOCKS = 25, 6
"""Numbers in a block, of which every second is in SCENES; the last two of `BLOCKS` are held out."""
GROUPS = {"speedlimit": range(9), "stop": range(14, 15)}
"""Classes of GTSRB that count as right for a class of the scenes."""
SIDE = 192
"""Side of a crop before it is reduced to the network's input."""
SHARES = {"35 to 80 %": (0.35, 0.8), "20 to 35 %": (0.2, 0.35), "80 to 100 %": (0.8, 1.0)}
TURN = 20
"""Largest rotation of a crop in degrees, in either direction."""
PATCHES = 6
"""Largest number of backgrounds from one photograph."""
Answer = Callable[[Tensor], tuple[Tensor, Tensor | None]]


class Box(NamedTuple):
    """A labelled box, in pixels."""

    file: Path
    label: str
    left: float
    top: float
    right: float
    bottom: float


def read_boxes(scenes: Path) -> dict[Path, list[Box]]:
    """Read all boxes by photograph."""
    found: dict[Path, list[Box]] = defaultdict(list)
    with (scenes / "boxes.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            file = scenes / "images" / row["file"]
            found[file].append(Box(file, row["class"], *(float(row[name]) for name in ("x1", "y1", "x2", "y2"))))
    return found


def is_held_out(file: Path) -> bool:
    """Whether a photograph is for evaluation only."""
    (number,) = re.findall(r"\d+", file.stem)
    return int(number) // BLOCK % BLOCKS >= BLOCKS - 2


def write_backgrounds(scenes: Path, folder: Path) -> int:
    """Write square patches that no box touches; return their number."""
    generator = np.random.default_rng(0)
    folder = folder / "streets"
    folder.mkdir(parents=True)
    count = 0
    for file, boxes in read_boxes(scenes).items():
        if is_held_out(file):
            continue
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        kept = 0
        for _ in range(60):
            side = round(generator.uniform(0.2, 0.9) * min(picture.size))
            left, top = (int(generator.integers(0, length - side + 1)) for length in picture.size)
            if side < 48 or not is_free(boxes, left, top, side):
                continue
            patch = picture.crop((left, top, left + side, top + side))
            patch.resize((144, 144), Image.Resampling.BICUBIC).save(folder / f"{file.stem}-{kept}.webp", quality=90)
            kept, count = kept + 1, count + 1
            if kept == PATCHES:
                break
    return count


def is_free(boxes: list[Box], left: float, top: float, side: float) -> bool:
    """Whether none of ``boxes`` touches a square."""
    right, bottom = left + side, top + side
    return not any(b.left < right and b.right > left and b.top < bottom and b.bottom > top for b in boxes)


class Crops(NamedTuple):
    """Crops of held-out photographs around one sign each."""

    images: Tensor
    """``(N, 3, SIDE, SIDE)`` uint8."""
    labels: list[str]
    maps: Tensor
    """``(N, 2, 3)``: from the crop to the photograph, normalised, with the photograph's longer side as both units."""
    boxes: Tensor
    """``(N, 2, 2)`` in the same units."""


def crops(boxes: list[Box], shares: tuple[float, float]) -> Crops:
    """Cut out each sign, at a random place, turned, with a side of ``shares`` of the crop.

    Signs are left out whose crop would be larger than the photograph.
    """
    generator = seeded(Stream.TEST)
    images, labels, maps, outlines = [], [], [], []
    for box in boxes:
        with Image.open(box.file) as opened:
            picture = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)[None].float()
        share, turn, right, down = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        share = shares[0] + (shares[1] - shares[0]) * share
        angle = math.radians(TURN * (2 * turn - 1))
        height, width = picture.shape[-2:]
        side = max(box.right - box.left, box.bottom - box.top) / share
        if side > min(height, width):
            continue
        free = (1 - share) * side / 2
        cosine, sine = math.cos(angle), math.sin(angle)
        aside, below = free * (2 * right - 1), free * (2 * down - 1)
        x = (box.left + box.right) / 2 + cosine * aside - sine * below
        y = (box.top + box.bottom) / 2 + sine * aside + cosine * below
        half = side / 2
        x, y = min(max(x, half), width - half), min(max(y, half), height - half)
        pixels = torch.tensor([[[half * cosine, -half * sine, x], [half * sine, half * cosine, y]]])
        size = torch.tensor([width / 2, height / 2]).view(1, 2, 1)
        normal = (pixels - torch.tensor([0.0, 0.0, 1.0]) * size) / size
        more = max(1, math.ceil(side / SIDE))
        cut = sample(picture, affine_points(normal, base_grid(SIDE * more, SIDE * more)), "border")
        images.append(functional.avg_pool2d(cut, more).round().to(torch.uint8))
        maps.append(pixels)
        labels.append(box.label)
        outlines.append([[box.left, box.top], [box.right, box.bottom]])
    return Crops(torch.cat(images), labels, torch.cat(maps), torch.tensor(outlines))


def artifact(folder: Path) -> tuple[Answer, int]:
    """Return a function that runs an artifact, and the side of its input."""
    manifest = json.loads((folder / "manifest.json").read_text())
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    theta = manifest["transforms"][-1]["theta"] if manifest["transforms"] else None
    names = [manifest["probabilities"], *([theta] if theta else [])]

    def answer(images: Tensor) -> tuple[Tensor, Tensor | None]:
        inputs = {manifest["input"]["name"]: images.permute(0, 2, 3, 1).contiguous().numpy()}
        probabilities, *thetas = (torch.from_numpy(found) for found in session.run(names, inputs))
        return probabilities, thetas[0] if thetas else None

    return answer, manifest["input"]["height"]


def trained(folder: Path) -> tuple[Answer, int]:
    """Return a function that runs a run's best network at its temperature, and the side of its input."""
    run = Run(folder)
    network, temperature = run.trained_network(), run.evaluation().temperature

    def answer(images: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode():
            output = network(images.float() / 255)
        return (output.logits / temperature).softmax(dim=1), output.warps[-1].theta if output.warps else None

    return answer, run.info().recipe.canvas[0]


def scaled(answer: Answer, factor: float) -> Answer:
    """Return ``answer`` with frames that are wider and higher by ``factor``."""

    def answer_scaled(images: Tensor) -> tuple[Tensor, Tensor | None]:
        probabilities, theta = answer(images)
        return probabilities, None if theta is None else theta * torch.tensor([factor, factor, 1.0])

    return answer_scaled


def answers(answer: Answer, images: Tensor, side: int) -> tuple[Tensor, Tensor | None]:
    """Run a network on pictures of any size."""
    probabilities, thetas = [], []
    for batch in torch.split(images, 100):
        small = batch
        if batch.shape[-1] != side:
            small = functional.interpolate(batch.float(), (side, side), mode="bilinear", antialias=True)
            small = small.round().clamp(0, 255).to(torch.uint8)
        found, theta = answer(small)
        probabilities.append(found)
        thetas += [] if theta is None else [theta]
    return torch.cat(probabilities), torch.cat(thetas) if thetas else None


def look_again(answer: Answer, images: Tensor, side: int) -> tuple[Tensor, Tensor | None]:
    """Run a network on pictures, and again on twice the region that it found in each."""
    first, theta = answers(answer, images, side)
    if theta is None:
        return first, theta
    frame = theta * torch.tensor([WIDTH, WIDTH, 1.0])
    fine = sample(images.float(), affine_points(frame, base_grid(2 * side, 2 * side)), "border")
    second, nearer = answers(answer, functional.avg_pool2d(fine, 2).round().to(torch.uint8), side)
    return (first + second) / 2, None if nearer is None else compose(frame, nearer)


def street_rows(
    look: Callable[[Answer, Tensor, int], tuple[Tensor, Tensor | None]],
    answer: Answer,
    side: int,
    scenes: Path,
    *,
    on_backgrounds: bool,
) -> Iterator[dict[str, object]]:
    """Measure on signs of the held-out photographs, or of those that give backgrounds; ``look`` runs the network."""
    boxes = [box for file, found in read_boxes(scenes).items() if is_held_out(file) != on_backgrounds for box in found]
    known = [box for box in boxes if box.label in GROUPS]
    for name, shares in SHARES.items():
        cut = crops(known, shares)
        probabilities, theta = look(answer, cut.images, side)
        groups = torch.stack([probabilities[:, list(members)].sum(dim=1) for members in GROUPS.values()], dim=1)
        others = [label for label in range(probabilities.shape[1]) if not any(label in g for g in GROUPS.values())]
        wanted = torch.tensor([list(GROUPS).index(label) for label in cut.labels])
        right = torch.cat([groups, probabilities[:, others]], dim=1).argmax(dim=1) == wanted
        test = f"streets{' of backgrounds' if on_backgrounds else ''}, {name}"
        row: dict[str, object] = {"test": test, "pictures": len(wanted), "right": percent(right)}
        if theta is not None:
            frames = compose(cut.maps, theta)
            outlines = ellipse_box(frames)
            found = intersection_over_union(outlines, cut.boxes)
            row["IoU"] = round(float(found.mean()), 3)
            row["degrees"] = degrees(rotation(frames))
            row["degrees given"] = degrees(rotation(cut.maps))
            row["found"] = percent(found > 0.5)
            sides, wanted_sides = (box[:, 1] - box[:, 0] for box in (outlines, cut.boxes))
            factors = (sides / wanted_sides)[found > 0.5].median(dim=0).values
            row["width and height of what is found, to the box (median)"] = [round(f, 3) for f in factors.tolist()]
        yield row


def degrees(angles: Tensor) -> float:
    """Return the root mean square of angles in radians, in degrees."""
    return round(float(angles.rad2deg().square().mean().sqrt()), 2)


def percent(right: Tensor) -> float:
    """Return a share in per cent."""
    return round(100 * float(right.float().mean()), 2)


def sign_rows(answer: Answer, side: int, data_root: Path, *, on_validation: bool) -> Iterator[dict[str, object]]:
    """Measure on GTSRB's pictures as they are, and moved."""
    signs = Signs(data_root, 4000, (48, 48))
    split = signs.training()[1] if on_validation else signs.test()
    assert split.boxes is not None
    count = len(split.labels)
    number = torch.rand(4, count, generator=seeded(Stream.TEST))
    zoom, angle = 1.8 ** number[0], torch.deg2rad(15 * (2 * number[1] - 1))
    shift = 0.44 * (2 * number[2:].T - 1)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    linear = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    moves = torch.cat([linear, -(linear @ shift[:, :, None])], dim=2)
    still = torch.eye(2, 3).expand(count, -1, -1)
    for name, maps in (("as they are", still), ("moved", moves)):
        images = split.images
        if name == "moved":
            parts = zip(torch.split(images, 1000), torch.split(maps, 1000), strict=True)
            grid = base_grid(96, 96)
            images = torch.cat(
                [sample(i.float(), affine_points(m, grid), "border").round().to(torch.uint8) for i, m in parts]
            )
        probabilities, theta = answers(answer, images, side)
        row: dict[str, object] = {
            "test": f"GTSRB {'validation' if on_validation else 'test'}, {name}",
            "pictures": count,
            "right": percent(probabilities.argmax(dim=1) == split.labels),
        }
        if theta is not None:
            frames = compose(maps, theta)
            found = ellipse_box(frames) if name == "moved" else ellipse_bounds(frames)
            row["IoU"] = round(float(intersection_over_union(found, split.boxes).mean()), 3)
            row["degrees"] = degrees(rotation(frames))
            row["degrees given"] = degrees(rotation(maps))
        yield row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find, straighten and read signs in photographs of streets.")
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("backgrounds", help="write patches without signs")
    writer.add_argument("scenes", type=Path)
    writer.add_argument("folder", type=Path)
    judge = commands.add_parser("evaluate", help="measure models or runs")
    judge.add_argument("models", type=Path, nargs="+")
    judge.add_argument("--scenes", type=Path)
    judge.add_argument("--data-root", type=Path)
    judge.add_argument(
        "--validation",
        action="store_true",
        help="no test pictures: GTSRB's validation pictures, and signs of the photographs that give backgrounds",
    )
    judge.add_argument("--second-look", action="store_true", help="look at each crop of a street twice")
    judge.add_argument("--scale", type=float, default=1.0, help="factor of the width and height of all frames")
    asked = parser.parse_args()
    if asked.command == "backgrounds":
        print(write_backgrounds(asked.scenes, asked.folder), "patches")
    else:
        for folder in asked.models:
            answer, side = (artifact if (folder / "manifest.json").exists() else trained)(folder)
            answer = scaled(answer, asked.scale)
            rows: list[dict[str, object]] = []
            if asked.scenes is not None:
                rows += street_rows(
                    look_again if asked.second_look else answers,
                    answer,
                    side,
                    asked.scenes,
                    on_backgrounds=asked.validation,
                )
            if asked.data_root is not None:
                rows += sign_rows(answer, side, asked.data_root, on_validation=asked.validation)
            for row in rows:
                print(folder, *(f"{name}: {value}" for name, value in row.items()), sep="  ")
