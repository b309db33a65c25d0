"""Pictures to compare on, and the names of classes: what a user provides beside the network."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from export.format.errors import ArtifactError
from training.data.folder.listing import is_picture
from training.data.pictures import read_pictures

MOST = 64
"""Largest number of samples that are read."""
GENERATED = 16
LONGEST_NAME = 1000


def sample_pictures(folder: Path | None, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return pictures ``(N, H, W, C)`` from ``folder`` and the folders in it, or generated ones.

    Raises:
        ArtifactError: the folder has none.
        DataError: a file is damaged.
    """
    if folder is None:
        return generate(height, width, channels)
    try:
        files = sorted(file for file in folder.rglob("*") if is_picture(file))
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror}; name a folder with --samples") from error
    if not files:
        raise ArtifactError(f"{folder} has no pictures; name a folder with some, or leave --samples out")
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, MOST).round().astype(int))]
    pixels = read_pictures(chosen, (height, width), channels).numpy()
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def generate(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Draw pictures ``(N, H, W, C)`` of bright shapes on a dark ground, always the same."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(GENERATED):
        picture = Image.new("RGB", (width, height), tuple(random.integers(0, 60, 3).tolist()))
        draw = ImageDraw.Draw(picture)
        for _ in range(3):
            left, top = random.uniform(0, 0.6, 2) * (width, height)
            wide, high = random.uniform(0.15, 0.5, 2) * (width, height)
            shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
            shape((left, top, left + wide, top + high), fill=tuple(random.integers(90, 256, 3).tolist()))
        smooth = picture.rotate(float(random.uniform(-40, 40)), Image.Resampling.BILINEAR)
        smooth = smooth.filter(ImageFilter.GaussianBlur(min(height, width) / 40))
        pictures.append(np.asarray(smooth.convert("L" if channels == 1 else "RGB")).reshape(height, width, channels))
    return np.stack(pictures)


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the names of the classes, one a line, in the order of the network's scores.

    Raises:
        ArtifactError: the file is unreadable, or a name is missing, too long or doubled.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {error.strerror}; name the file of the classes") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file} is not UTF-8 text; save it so, with one class a line") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or len(name) > LONGEST_NAME:
            raise ArtifactError(f"line {number} of {file} is {'too long' if name else 'empty'}; name one class a line")
        if name in seen:
            raise ArtifactError(f"line {number} of {file} repeats {name!r}; each class needs a name of its own")
        seen.add(name)
    if len(names) < 2:
        raise ArtifactError(f"{file} names {len(names)} classes; a classifier has at least two, one a line")
    return tuple(names)
