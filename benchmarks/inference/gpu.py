"""On a GPU: the backend alone, the engine, and HTTP, at batches of 1 to 256; and whether CUDA answers as the CPU does.

    python -m benchmarks.inference.gpu [--models models] [--seconds 3] [--cuda-graphs]

Has not been run yet: the machines that the figures in docs/operate/performance.md come from have no GPU.
"""

import argparse
import asyncio
import io
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from export.format.artifact import Artifact, Outputs, find_artifacts, read_artifact
from service.inference.backends import Backend, cuda_obstacle, open_backend
from service.inference.engine import Engine
from service.inference.preprocessing import Upload
from service.inference.registry import Models
from service.repository.startup import load_models
from service.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOLERANCE = 1e-3
GREY_LEVELS = 2
PORT = 8766


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--cuda-graphs", action="store_true")
    options = parser.parse_args()
    if obstacle := cuda_obstacle():
        sys.exit(f"error: {obstacle}")
    settings = Settings(models=options.models, device="cuda", max_batch=256, cuda_graphs=options.cuda_graphs)
    models = load_models(settings)
    model = models.find(None, None)
    folder = next(path for name, version, path in find_artifacts(options.models) if (name, version) == model[:2])
    artifact = read_artifact(folder)
    print(f"{model.name}/{model.version}; nodes not on the GPU: {nodes_elsewhere(artifact) or 'none'}")
    backend = open_backend(artifact, "cuda", 0, cuda_graphs=options.cuda_graphs)
    images = pictures(artifact, max(BATCHES))
    worst = differences(backend.run(images), open_backend(artifact, "cpu", 0).run(images))
    for name, (difference, allowed) in worst.items():
        print(f"{name}: CUDA differs from the CPU by at most {difference:.2g} (allowed: {allowed})")
        if difference > allowed:
            sys.exit(f"error: {name} differs too much")
    print(
        "\n| batch | backend images/s | p50 ms | p99 ms | engine images/s | HTTP images/s |\n|---|---|---|---|---|---|"
    )
    files = [png(image) for image in images]
    for batch in BATCHES:
        rate, p50, p99 = alone(backend, images[:batch], options.seconds)
        engine = asyncio.run(through_engine(models, settings, files[:batch], options.seconds))
        http = through_http(options, files[:batch])
        print(f"| {batch} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {engine:.0f} | {http:.0f} |")
    query = ["nvidia-smi", "--query-gpu=name,memory.used", "--format=csv,noheader"]
    print(subprocess.run(query, capture_output=True, text=True, check=True).stdout)


def pictures(artifact: Artifact, count: int) -> NDArray[np.uint8]:
    """Distinct pictures of noise: ``(N, H, W, C)``."""
    taken = artifact.manifest.input
    shape = (count, taken.height, taken.width, taken.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture as it is sent."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return content.getvalue()


def nodes_elsewhere(artifact: Artifact) -> list[str]:
    """Why ONNX Runtime would leave nodes to the CPU, if it would: it is forbidden to, and says so."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        onnxruntime.InferenceSession(artifact.model_file, options, providers=["CUDAExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the finding
        return [str(error)]
    return []


def differences(found: Outputs, expected: Outputs) -> dict[str, tuple[float, float]]:
    """The largest difference of each output, and what is allowed."""
    return {
        name: (
            float(np.abs(found[name].astype(float) - answer.astype(float)).max()),
            GREY_LEVELS if answer.dtype == np.uint8 else TOLERANCE,
        )
        for name, answer in expected.items()
    }


def alone(backend: Backend, images: NDArray[np.uint8], seconds: float) -> tuple[float, float, float]:
    """Images/s, p50 and p99 in ms of the backend alone."""
    for _ in range(10):
        backend.run(images)
    times = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        backend.run(images)
        times.append((time.perf_counter() - before) * 1000)
    return len(images) * len(times) / sum(times) * 1000, statistics.median(times), float(np.percentile(times, 99))


async def through_engine(models: Models, settings: Settings, files: list[bytes], seconds: float) -> float:
    """Images/s with as many pictures under way as there are files."""
    engine, model, done = Engine(models, settings), models.find(None, None), 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        uploads = (Upload(file, None) for file in files)
        await asyncio.gather(*(engine.predict(model, upload, None, settings.timeout_ms) for upload in uploads))
        done += len(files)
    return done / (time.perf_counter() - started)


def through_http(options: argparse.Namespace, files: list[bytes]) -> float:
    """Images/s of POST /predict/batch."""
    command = [sys.executable, "-m", "service", "--models", options.models, "--device", "cuda", "--max-batch", "256"]
    command += ["--port", str(PORT), *(["--cuda-graphs", "true"] if options.cuda_graphs else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, httpx.Client(timeout=60) as client:
        if process.stdout is None or " at http" not in process.stdout.readline():
            sys.exit("error: the service did not start")
        address, parts, done = f"http://127.0.0.1:{PORT}/predict/batch", [("images", file) for file in files], 0
        client.post(address, files=parts).raise_for_status()
        started = time.perf_counter()
        while time.perf_counter() - started < options.seconds:
            client.post(address, files=parts, params={"rectified": "none"}).raise_for_status()
            done += len(files)
        process.terminate()
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
