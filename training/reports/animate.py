"""Animations of a trained network: the same pictures over the epochs, and one moving picture."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from training.data.batches import training_distortion
from training.data.distortions import Distorted, Distortion, Placed, similarity_maps
from training.data.placement import OnBackgrounds
from training.data.random_streams import Stream, seeded
from training.files import write_bytes
from training.fitting.runs import Run
from training.networks.geometry import affine_points, corner_points
from training.reports.outlines import border

FRAMES = 48
STOPS = 4
"""Number of random distortions between which a moving picture is interpolated."""
FRAME_MS = 80
SIDE = 112
"""Side of a picture in a frame, in pixels."""
ORANGE = (255, 140, 0)


def animate_run(run: Run, data_root: Path) -> list[Path]:
    """Draw ``epochs.gif`` and ``moving.gif`` of a trained run with a transformer; return the files.

    The digits of a sequence do not move, so it has only the first.

    Raises:
        RunError: the run is not trained, or has no snapshots.
        DataError: the data set cannot be read.
    """
    if not run.info().recipe.branches:
        return []
    run.pictures.mkdir(exist_ok=True)
    files = [save_gif(epoch_frames(run), run.pictures / "epochs.gif", 4 * FRAME_MS)]
    if not run.info().recipe.sequence:
        files.append(save_gif(moving_frames(run, data_root), run.pictures / "moving.gif", FRAME_MS))
    return files


def epoch_frames(run: Run) -> list[Image.Image]:
    """Draw one frame per epoch: the validation pictures with theta's quadrilateral, and their rectified images.

    Raises:
        RunError: there are no snapshots.
    """
    images, thetas, rectified = run.snapshots()
    frames = []
    for theta, views in zip(thetas, rectified, strict=True):
        corners = affine_points(torch.from_numpy(theta), corner_points()).numpy()
        columns = [
            np.vstack([framed(image, outline), framed(view)])
            for image, outline, view in zip(images, corners, views, strict=True)
        ]
        frames.append(Image.fromarray(np.hstack(columns)))
    return frames


def moving_frames(run: Run, data_root: Path) -> list[Image.Image]:
    """Draw the first test picture under changing distortion or augmentation, and its rectified image beside it."""
    info = run.info()
    network = run.trained_network()
    first = run.source(data_root).test().at(torch.arange(1))
    moved = path(training_distortion(info.recipe), first.images.float(), first.labels).images
    with torch.inference_mode():
        warp = network(moved / 255).warps[-1]
        rectified = (network.as_picture(warp.rectified) * 255).clamp(0, 255).to(torch.uint8).numpy()
    outlines = border(warp, 2, 2) - 1  # normalised again
    pictures = moved.clamp(0, 255).to(torch.uint8).numpy()
    return [
        Image.fromarray(np.hstack([framed(image, outline), framed(view)]))
        for image, outline, view in zip(pictures, outlines, rectified, strict=True)
    ]


def path(how: Distortion, image: Tensor, label: Tensor) -> Distorted:
    """Return `FRAMES` distortions of one picture that form a smooth loop.

    Args:
        how: the family of distortions.
        image: ``(1, C, H, W)``.
        label: ``(1,)``.
    """
    images, labels = image.expand(FRAMES, -1, -1, -1), label.expand(FRAMES)
    turn = torch.arange(FRAMES) / FRAMES * 2 * math.pi
    height, width = images.shape[-2:]
    if isinstance(how, Placed):
        low, high = how.scale
        scale = (low + high) / 2 + (high - low) / 2 * torch.sin(2 * turn)
        free = (torch.tensor(how.canvas) - scale[:, None] * torch.tensor([height, width])).clamp(min=0) / 2
        shift = torch.stack([torch.cos(turn) * free[:, 1], torch.sin(turn) * free[:, 0]], dim=1)
        angle = math.radians(how.rotation_deg) * torch.sin(turn)
        maps = similarity_maps(angle, scale, shift, (height, width), how.canvas)
        return how.apply(images, labels, (maps,))
    if isinstance(how, OnBackgrounds):  # the object moves; all else stays
        how = how.without_clutter()
    stops = how.draw(STOPS, (height, width), seeded(Stream.PATH))
    if isinstance(how, OnBackgrounds):
        stops = stops[0], *(values[:1].expand_as(values) for values in stops[1:])
    place = torch.arange(FRAMES) / FRAMES * STOPS
    before, share = place.long(), place - place.floor()
    smooth = (1 - torch.cos(share * math.pi)) / 2
    between = tuple(
        values[before] + (values[(before + 1) % STOPS] - values[before]) * smooth.view(-1, *[1] * (values.dim() - 1))
        for values in stops
    )
    return how.apply(images, labels, between)


def framed(image: NDArray[np.uint8], outline: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Enlarge ``image`` ``(C, H, W)`` to RGB, with a closed ``outline`` ``(M, 2)`` in normalised coordinates."""
    channels = [image[0]] * 3 if len(image) == 1 else [*image, np.zeros_like(image[0])][:3]
    picture = Image.fromarray(np.stack(channels, axis=-1)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    if outline is not None:
        points = [tuple(point) for point in ((outline + 1) / 2 * SIDE).tolist()]
        ImageDraw.Draw(picture).line([*points, points[0]], fill=ORANGE, width=2)
    return np.asarray(picture)


def save_gif(frames: list[Image.Image], file: Path, frame_ms: int) -> Path:
    """Write ``frames`` as a GIF that loops."""
    content = io.BytesIO()
    reduced = [frame.quantize(16) for frame in frames]
    reduced[0].save(content, "GIF", save_all=True, append_images=reduced[1:], duration=frame_ms, loop=0, optimize=True)
    write_bytes(file, content.getvalue())
    return file
