"""Where the time of a request goes: each stage by itself, then all of them in the service, without a network.

    taskset -c 0 python -m benchmarks.serving.stages [--models models --model digits]
        [--picture docs/pictures/digit.png]

Every stage is run thousands of times in a row on the same picture, in a processor that knows it by heart: in a request
it takes up to twice as long. Best of several rounds. All of them is from the bytes of a request to those of its answer,
on the fast path and through the application, and to a refusal by a full queue. Ways are measured in turns. The rest, up
to what `benchmarks.serving.comparison` says a request costs, is the kernel, and that the processor does not know it by
heart.
"""

import argparse
import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any, cast

import numpy as np
import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from uvicorn.server import ServerState

from benchmarks.inference import artifacts
from benchmarks.serving.comparison import MODELS, media_type
from export.format.artifact import read_artifact
from imaging.limits.limits import Limits
from service.api.prediction_json import describe_answer
from service.app import create_app
from service.inference.admission import CapacityLimiter
from service.inference.backends import open_backend
from service.inference.engine import Answer
from service.inference.outputs import read
from service.inference.preprocessing import Upload, examine_picture, preprocess
from service.inference.rectified.image import encode_image
from service.inference.registry import Model
from service.repository.startup import load_models
from service.request_context import Timings
from service.responses import to_bytes
from service.server.server import Server, calm_collector
from service.settings import Settings

BATCH = 32
ROUNDS = 7
STAGE_S = 0.05
"""Roughly how long a round of a stage takes."""
REQUESTS = 256
PAUSE_S = 1e-4


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--model", default="light")
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/digit.png"))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if options.models == MODELS:
        artifacts.main(MODELS)
    settings = Settings(models=options.models, device="cpu", threads=1, access_log="none", busy_poll_us=0)
    models = load_models(settings)
    print(f"model {options.model}, {options.picture}\n\n| stage | us a picture |\n|---|---|")
    upload = Upload(options.picture.read_bytes(), media_type(options.picture))
    stages(models.find(options.model, None), options.models, upload)
    target = f"/predict?model={options.model}"
    head = f"POST {target} HTTP/1.1\r\nHost: h\r\nContent-Type: {upload.content_type}\r\n"
    data = f"{head}Content-Length: {len(upload.data)}\r\n\r\n".encode() + upload.data
    apps = {
        way: create_app(settings.model_copy(update={"fast_path": is_fast}), models=models)
        for way, is_fast in (("on the fast path", True), ("through the application", False))
    }
    uvloop.run(measure(apps, models.find(options.model, None).limiter, settings.max_queue, data))


async def measure(apps: dict[str, FastAPI], limiter: CapacityLimiter, max_queue: int, data: bytes) -> None:
    """Print the rows of whole requests, by the way that they take."""
    async with AsyncExitStack() as stack:
        configs = {}
        for way, app in apps.items():
            await stack.enter_async_context(app.router.lifespan_context(app))
            configs[way] = Server(app, lambda: None).config
            configs[way].load()
        calm_collector()
        for way, (alone, together, rested) in (await answers(configs, data)).items():
            print(f"| all of it {way}, a request after the other | {alone:.1f} |")
            print(f"| the same, after pauses of {PAUSE_S * 1e6:.0f} us | {rested:.1f} |")
            print(f"| all of it {way}, {BATCH} requests at once, each | {together:.1f} |")
        limiter.take(max_queue, 0)
        refused = await refusals(configs["on the fast path"], data)
        print(f"| a refusal by a full queue | {refused:.1f} |")


def stages(model: Model, models: Path, upload: Upload) -> None:
    """What each takes by itself."""
    backend = open_backend(read_artifact(models / model.name / str(model.version)), "cpu", 1)
    manifest = model.manifest
    opened = examine_picture(upload, Limits())
    picture = preprocess(opened, manifest.input)
    one, many = picture.pixels[np.newaxis], np.stack([picture.pixels] * BATCH)
    outputs, all_outputs = backend.run(one), backend.run(many)
    reading = read(outputs, manifest)[0]
    files = [encode_image(look.rectified, "png") for look in reading.transforms]
    answer = Answer(model, reading, picture.width, picture.height, files, 1, Timings(0.1, 0.2, 0.3, 0.4))
    description = describe_answer(answer, 5, 1.0)
    show("the header of the picture", lambda: examine_picture(upload, Limits()))
    show("its pixels, as the model takes them", lambda: preprocess(opened, manifest.input))
    show("inference of one", lambda: backend.run(one))
    show(f"inference of {BATCH}, each", lambda: backend.run(many), BATCH)
    show("reading the outputs of one", lambda: read(outputs, manifest))
    show(f"reading the outputs of {BATCH}, each", lambda: read(all_outputs, manifest), BATCH)
    show("the rectified image as PNG", lambda: [encode_image(look.rectified, "png") for look in reading.transforms])
    show("the description of the answer", lambda: describe_answer(answer, 5, 1.0))
    show("its JSON", lambda: to_bytes(description))


def show(stage: str, work: Callable[[], object], pictures: int = 1) -> None:
    """Print a row."""
    started = perf_counter()
    work()
    times = max(1, int(STAGE_S / (perf_counter() - started)))
    best = float("inf")
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(times):
            work()
        best = min(best, (perf_counter() - started) / times)
    print(f"| {stage} | {best / pictures * 1e6:.1f} |")


class Client(asyncio.Transport):
    """The other end of a connection, which only waits for answers."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__()
        self.connection = cast(Any, config.http_protocol_class)(config, state, {})
        self.connection.connection_made(self)
        self._answered: asyncio.Future[bytes] | None = None

    def ask(self, data: bytes) -> asyncio.Future[bytes]:
        """Send a request; done when it is answered, with the status."""
        self._answered = asyncio.get_running_loop().create_future()
        self.connection.data_received(data)
        return self._answered

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._answered is not None:
            self._answered.set_result(bytes(data[9:12]))

    def is_closing(self) -> bool:
        return False


async def answers(configs: dict[str, uvicorn.Config], data: bytes) -> dict[str, tuple[float, float, float]]:
    """Microseconds of a request: one after the other and together, of the processor; after a pause, by the clock."""
    clients = {way: (config, ServerState()) for way, config in configs.items()}
    ways = {way: [Client(config, state) for _ in range(BATCH)] for way, (config, state) in clients.items()}
    alone, together = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, float("inf"))
    rested: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, (first, *others) in ways.items():
            started = process_time()
            for _ in range(REQUESTS):
                assert await first.ask(data) == b"200"
            alone[way] = min(alone[way], process_time() - started)
            started = process_time()
            for _ in range(REQUESTS // BATCH):
                await asyncio.gather(*(client.ask(data) for client in (first, *others)))
            together[way] = min(together[way], process_time() - started)
            for _ in range(REQUESTS // ROUNDS):
                sleep(PAUSE_S)  # noqa: ASYNC251 - the processor is to sleep too, as it does between requests
                started = perf_counter()
                await first.ask(data)
                rested[way].append(perf_counter() - started)
    scale = 1e6 / REQUESTS
    return {way: (alone[way] * scale, together[way] * scale, median(rested[way]) * 1e6) for way in ways}


async def refusals(config: uvicorn.Config, data: bytes) -> float:
    """Microseconds of processor time of a refusal."""
    state = ServerState()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    in_progress: Any = {asyncio.ensure_future(asyncio.shield(never)) for _ in range(100)}
    client = Client(config, state)
    client.connection.options.in_progress.update(in_progress)
    best = float("inf")
    for _ in range(ROUNDS):
        started = process_time()
        for _ in range(REQUESTS):
            assert await client.ask(data) == b"429"
        best = min(best, process_time() - started)
    return best / REQUESTS * 1e6


if __name__ == "__main__":
    main()
