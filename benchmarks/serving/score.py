"""Pictures a second of ``python -m service score`` against a plain loop that does the same work, as a ratio.

    python -m benchmarks.serving.score [--model digits] [--picture FILE] [--pictures 4000] [--rounds 3] [--ray]

The loop is what a careful person would write: each process reads its share of the files, decodes them with Pillow, runs
ONNX Runtime on batches of 64 with one thread, and writes classes, probabilities, theta and corners to Parquet. Both
have as many processes, take turns, and are warm. Where other programs use the machine too, the time of the processors
is disturbed less than that of the clock. With ``--ray``, a Ray cluster of one node is started here and is a third way;
the processes of Ray count too. Only the ratios mean anything on another machine.
"""

import argparse
import io
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.comparison import usage
from export.format.artifact import Manifest, read_artifact
from service.score.inputs import Selection, find_input, open_source
from service.score.parts import Parts
from service.score.rows import Row, chunks
from service.score.run import PART_ROWS, find_model, worker_settings
from service.score.scorer import ScoreOptions
from service.score.workers.processes import Processes
from service.score.workers.workers import Workers
from service.settings import Settings

BATCH = 64
TOP_K = 5
CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], np.float32)


class Rate(NamedTuple):
    """How fast a way was."""

    pictures_per_s: float
    pictures_per_cpu_s: float
    """Pictures a second of all processors together."""


class Loop:
    """The model, and the way from files to a table, without anything of the service."""

    def __init__(self, folder: Path) -> None:
        self._manifest: Manifest = read_artifact(folder).manifest
        main = self._manifest.transforms[self._manifest.main]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        model = folder / self._manifest.model_file
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._outputs = [self._manifest.probabilities, main.theta]

    def score(self, files: Sequence[str], out: Path) -> int:
        """Write the answers to ``files``, and return their number."""
        columns: dict[str, list[Any]] = {name: [] for name in ("path", "classes", "probabilities", "theta", "corners")}
        for start in range(0, len(files), BATCH):
            names = files[start : start + BATCH]
            pictures = [self._decode(Path(name).read_bytes()) for name in names]
            images = np.stack([pixels for pixels, _ in pictures])
            probabilities, theta = self._session.run(self._outputs, {self._manifest.input.name: images})
            for name, (_, size), row, matrix in zip(names, pictures, probabilities, theta, strict=True):
                best = np.argsort(-row)[:TOP_K]
                columns["path"].append(name)
                columns["classes"].append([self._manifest.classes[index] for index in best])
                columns["probabilities"].append(row[best])
                columns["theta"].append(matrix.tolist())
                columns["corners"].append(((CORNERS @ matrix.T + 1) / 2 * size).tolist())
        pq.write_table(pa.table(columns), out, compression="zstd")
        return len(files)

    def _decode(self, content: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        given = self._manifest.input
        opened = Image.open(io.BytesIO(content))
        size = opened.size
        image = opened.convert("L" if given.channels == 1 else "RGB")
        if image.size != (given.width, given.height):
            image = image.resize((given.width, given.height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(given.height, given.width, given.channels), size


@lru_cache(maxsize=1)
def loop(folder: Path) -> Loop:
    """Return the loop of this process."""
    return Loop(folder)


def score_share(folder: Path, files: Sequence[str], out: Path) -> int:
    """Score ``files`` in a process of the plain loop."""
    return loop(folder).score(files, out)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/digit.png"))
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="measure actors of a Ray cluster too")
    chosen = parser.parse_args()
    name, version, digest = find_model(Settings(models=chosen.models), chosen.model)
    settings = Settings(models=chosen.models, device="cpu", threads=1)
    settings, count = worker_settings(settings, f"{name}/{version}", chosen.workers)
    options = ScoreOptions(settings, name, version, digest, TOP_K)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(count, get_context("spawn")) as pool:
        files = write_pictures(Path(folder) / "pictures", chosen.picture, chosen.pictures)
        shares = [files[start::count] for start in range(count)]
        place = chosen.models / name / str(version)
        plain: list[Rate] = []
        with ExitStack() as stack:
            ways: dict[str, Workers] = {"score": stack.enter_context(Processes(options, count))}
            if chosen.ray:
                ways["score --ray"] = stack.enter_context(actors(options, count))
            rates: dict[str, list[Rate]] = {way: [] for way in ways}
            warm = [[Row(number, files[0], location=files[0])] for number in range(8 * count)]
            for workers in ways.values():
                list(workers.score(warm))
            list(pool.map(score_share, [place] * count, [files[:BATCH]] * count, outputs(folder, count)))
            for number in range(chosen.rounds):
                with timed(len(files), plain):
                    list(pool.map(score_share, [place] * count, shares, outputs(folder, count)))
                for way, workers in ways.items():
                    with timed(len(files), rates[way]):
                        score(workers, Path(folder), f"{way}-{number}")
    print(f"{name}/{version}, {chosen.picture}, {count} processes, median of {chosen.rounds} rounds\n")
    print("| | pictures/s | ratio | pictures/s of processor | ratio |\n|---|---|---|---|---|")
    base = median(plain)
    for way, rate in {"plain loop": base, **{way: median(found) for way, found in rates.items()}}.items():
        ratios = [one / other for one, other in zip(rate, base, strict=True)]
        print(f"| {way} | {rate[0]:.0f} | {ratios[0]:.2f} | {rate[1]:.0f} | {ratios[1]:.2f} |")


def actors(options: ScoreOptions, count: int) -> AbstractContextManager[Workers]:
    """Start a Ray cluster of one node with ``count`` actors, which ends with the context."""
    import ray

    from service.score.workers.cluster import Cluster, Share

    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    settings = options.settings.model_copy(update={"models": str(options.settings.models_folder.absolute())})
    return Cluster(options._replace(settings=settings), Share(count))


def score(workers: Workers, folder: Path, name: str) -> None:
    """Score the pictures as the command does, from the listing to the last part."""
    selection = Selection(str(folder / "pictures"), None, None, (), 2**20)
    with Parts(folder / f"out-{name}", {}, PART_ROWS) as parts:
        source = open_source(find_input(selection), selection, parts.listing)
        parts.begin()
        for scored in workers.score(chunks(source.rows(0))):
            parts.add(scored.batch, scored.next_row)
        parts.finish()


def write_pictures(folder: Path, picture: Path, count: int) -> list[str]:
    """Write copies of ``picture``, and return their names."""
    folder.mkdir()
    content = picture.read_bytes()
    files = [folder / f"{number:07d}{picture.suffix}" for number in range(count)]
    for file in files:
        file.write_bytes(content)
    return [str(file) for file in files]


def outputs(folder: str, count: int) -> list[Path]:
    """Return the files that the plain loop writes."""
    return [Path(folder) / f"plain-{number}.parquet" for number in range(count)]


@contextmanager
def timed(pictures: int, rates: list[Rate]) -> Iterator[None]:
    """Measure what happens in the context, in this process and its children."""
    cpu, _ = usage(os.getpid())
    started = perf_counter()
    yield
    elapsed = perf_counter() - started
    after, _ = usage(os.getpid())
    rates.append(Rate(pictures / elapsed, pictures / (after - cpu)))


def median(rates: Sequence[Rate]) -> Rate:
    """Return the medians of several rounds."""
    return Rate(*map(statistics.median, zip(*rates, strict=True)))


if __name__ == "__main__":
    main()
