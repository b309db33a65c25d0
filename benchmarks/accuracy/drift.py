"""What the drift of a served model says of test pictures, and of the same turned, moved or scaled further.

    python -m benchmarks.accuracy.drift models/digits/2 runs/digits [--data-root data] [--pictures 1000]

Prints the table of docs/operate/drift.md: the service is started over the artifact's folder, is shown the pictures in
POST /predict/batch, and is asked for /metrics. RUN is what the artifact was exported from; its ``run.json`` is enough.
"""

import argparse
import io
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from torch import Tensor

from training.data.batches import test_split
from training.data.distortions import similarity_maps
from training.fitting.runs import Run
from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import sample

QUANTITIES = ("rotation", "scale", "shift_x", "shift_y", "outside", "confidence", "classes")
AT_ONCE = 200
"""Pictures in a request."""
SEED = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args()
    run = Run(options.run)
    split = test_split(run.info().recipe, run.source(options.data_root))
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(SEED))[: 2 * options.pictures]
    images, labels = split.images[order], split.labels[order]
    print(f"| {options.pictures:,} test pictures | {' | '.join(QUANTITIES)} |")
    print(f"|---|{'---|' * len(QUANTITIES)}")
    with serving(options.artifact, options.pictures) as client:
        for name, pictures in scenes(images, labels, options.pictures):
            found = show(client, pictures)
            cells = [f"**{gap:.2f}**" if gap > 0.25 else f"{gap:.2f}" for gap in map(found.__getitem__, QUANTITIES)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def scenes(images: Tensor, labels: Tensor, count: int) -> Iterator[tuple[str, Tensor]]:
    """What is shown, and its name: ``images`` ``(N, C, H, W)`` uint8 are twice as many as are shown of most."""
    some = images[:count]
    yield "as they are", some
    yield "others, as they are", images[count:]
    for degrees in (15, 30, 60, 90, 180):
        yield f"turned by up to {degrees}° more", moved(some, degrees=degrees)
    for share in (0.1, 0.2, 0.3):
        yield f"{share:.0%} further to the right", moved(some, right=share)
    for scale in (0.8, 0.6, 1.3):
        yield f"{scale} times the size", moved(some, scale=scale)
    yield "half as bright", (some.float() / 2).to(torch.uint8)
    kept = images[labels < (labels.max() + 1) / 2]
    yield "half of the classes alone", kept[torch.arange(count) % len(kept)]


def moved(images: Tensor, degrees: float = 0, scale: float = 1, right: float = 0) -> Tensor:
    """``images`` turned up to ``degrees`` either way, scaled, and shifted by a share of their width; borders go on."""
    height, width = images.shape[-2:]
    uniform = torch.rand(len(images), generator=torch.Generator().manual_seed(SEED))
    shift = torch.tensor([right * width, 0.0]).expand(len(images), 2)
    size = height, width
    maps = similarity_maps(
        (2 * uniform - 1) * math.radians(degrees), torch.full_like(uniform, scale), shift, size, size
    )
    there = sample(images.float(), affine_points(maps, base_grid(height, width)), "border")
    return there.round().clamp(0, 255).to(torch.uint8)


@contextmanager
def serving(artifact: Path, window: int) -> Iterator[httpx.Client]:
    """A client of the service over ``artifact`` alone, whose window is ``window`` pictures."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / artifact.parent.name).mkdir()
        (Path(folder) / artifact.parent.name / artifact.name).symlink_to(artifact.resolve())
        flags = ["--models", folder, "--port", "0", "--drift-window", str(window)]
        command = [sys.executable, "-m", "service", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                with httpx.Client(base_url=line.split(" at ")[1].split()[0], timeout=60) as client:
                    yield client
            finally:
                process.terminate()


def show(client: httpx.Client, pictures: Tensor) -> dict[str, float]:
    """Send ``pictures`` ``(N, C, H, W)``; the distances by quantity."""
    files = [("images", encoded(picture)) for picture in pictures]
    for start in range(0, len(files), AT_ONCE):
        client.post("/predict/batch?rectified=none", files=files[start : start + AT_ONCE]).raise_for_status()
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    samples = [sample for family in families for sample in family.samples if sample.name == "stn_drift_distance"]
    return {sample.labels["quantity"]: sample.value for sample in samples}


def encoded(picture: Tensor) -> bytes:
    """``(C, H, W)`` as PNG."""
    content = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy()).save(content, "PNG")
    return content.getvalue()


if __name__ == "__main__":
    main()
