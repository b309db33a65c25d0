"""Memory of streamed pictures: ``python -m benchmarks.training.streaming --pictures 20000 --side 224``.

Pictures are generated as JPEG files, decoded to the file that training streams from, and read in the batches of one
epoch, without a network. The JPEG files are links to a thousand that differ. Memory is that of this process: what it
allocated (RssAnon), and with the pages of the file that the system happens to keep in memory (VmRSS), which it gives
back when they are needed. ``--limit`` lets the system refuse allocations beyond so many MiB (RLIMIT_DATA), which pages
of a file that is only read do not count for. ``--folder`` names a place with room for the file.
"""

import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from training.data.batches import loader
from training.data.folder.source import Entry, Folder

EVERY_S = 0.02
BATCH = 64
NOISE = 24
DISTINCT = 1000


def write_pictures(root: Path, count: int, side: int) -> list[Entry]:
    """Write ``count`` JPEG files of two classes; those after the first `DISTINCT` are links to earlier ones."""
    generator = np.random.default_rng(0)
    for label in "ab":
        (root / label).mkdir(parents=True)
    paths = [f"{'ab'[number % 2]}/{number:06}.jpg" for number in range(count)]
    for path in paths[:DISTINCT]:
        small = Image.fromarray(generator.integers(0, 256, (NOISE, NOISE, 3), np.uint8))
        small.resize((side, side)).save(root / path)
    for number, path in enumerate(paths[DISTINCT:]):
        (root / path).hardlink_to(root / paths[number % DISTINCT])
    return [Entry(path, "train") for path in paths]


class Memory(threading.Thread):
    """Samples the memory of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"RssAnon": 0, "VmRSS": 0}
        """Largest values in KiB."""
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(EVERY_S):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peaks:
                    self.peaks[name] = max(self.peaks[name], int(value.split()[0]))


def main(
    pictures: Annotated[int, typer.Option(help="Number of pictures.")] = 20_000,
    side: Annotated[int, typer.Option(help="Their side in pixels.")] = 224,
    streamed: Annotated[bool, typer.Option(help="Or hold them in memory.")] = True,
    limit: Annotated[int | None, typer.Option(help="MiB that the process may allocate.")] = None,
    place: Annotated[Path | None, typer.Option("--folder", help="Folder for the files, which are deleted.")] = None,
) -> None:
    """Measure the peak of memory while pictures are decoded and read."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit * 2**20, limit * 2**20))
    with tempfile.TemporaryDirectory(dir=place) as folder:
        root = Path(folder)
        entries = write_pictures(root, pictures, side)
        memory = Memory()
        memory.start()
        started = time.perf_counter()
        train, _ = Folder(
            root, [*entries[:-2], entries[-2]._replace(part="validation")], (side, side), 3, streamed=streamed
        ).training()
        decoded = time.perf_counter()
        total = sum(int(batch.images.sum(dtype=torch.int64)) for batch in loader(train, BATCH, shuffle_seed=0))
        read = time.perf_counter()
        memory.stopped.set()
        memory.join()
    print(f"decoded in {decoded - started:.1f} s, an epoch read in {read - decoded:.1f} s (sum of levels {total})")
    for name, kib in memory.peaks.items():
        print(f"peak {name}: {kib / 1024:.0f} MiB of {train.images.numel() / 2**20:.0f} MiB of pictures")


if __name__ == "__main__":
    typer.run(main)
