"""Requests that are waiting at the same time share an inference; one that waits alone starts at once.

An item carries its own future. While an inference runs, items gather; when it ends, all of them (up to a maximum)
make the next batch. So the batch grows with the load, and an idle server waits for nobody. Short inferences run in
place on the event loop; longer ones in a thread, one at a time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from export.artifact import Outputs
from service.errors import ModelFailedError, NotReadyError, QueueFullError

IN_PLACE_MS = 2.0
"""Longest inference, as foretold by the last ones, that may hold the event loop."""

log = structlog.get_logger(__name__)


class Inference(NamedTuple):
    """What the model answered for one picture."""

    outputs: Outputs
    """By name, without the batch axis."""
    batch_size: int
    queue_ms: float
    inference_ms: float


class Item(NamedTuple):
    """A picture that waits, and the future of its answer."""

    pixels: NDArray[np.uint8]
    answer: asyncio.Future[Inference]
    arrived: float


class Batcher:
    """Gathers pictures for one model. All methods are called on the event loop."""

    def __init__(
        self,
        run: Callable[[NDArray[np.uint8]], Outputs],
        *,
        max_batch: int,
        max_queue: int,
        picture_ms: float,
    ) -> None:
        """``run`` takes ``(N, H, W, C)`` uint8 for up to ``max_batch``; ``picture_ms`` is how long it took for one."""
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._picture_ms = picture_ms
        self._waiting: deque[Item] = deque()
        self._busy = False
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    def submit(self, pixels: NDArray[np.uint8]) -> asyncio.Future[Inference]:
        """Queue ``pixels`` ``(H, W, C)``.

        Raises:
            QueueFullError: as many pictures are waiting as may.
            NotReadyError: the batcher is closed.
        """
        if self._closed:
            raise NotReadyError("the service is shutting down; send the request to another instance")
        if len(self._waiting) >= self._max_queue:
            raise QueueFullError(f"{len(self._waiting)} pictures are waiting already; try again a little later")
        loop = asyncio.get_running_loop()
        item = Item(pixels, loop.create_future(), time.perf_counter())
        self._waiting.append(item)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
        return item.answer

    async def close(self) -> None:
        """Take nothing new, answer everything that waits, and end the thread."""
        self._closed = True
        if pending := [item.answer for item in self._waiting]:
            await asyncio.wait(pending)
        await asyncio.to_thread(self._thread.shutdown)

    def _next(self) -> None:
        """Start the inference of what waits now, or go idle."""
        batch: list[Item] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            if not item.answer.done():  # else it was given up
                batch.append(item)
        if not batch:
            self._busy = False
            return
        loop = asyncio.get_running_loop()
        images = np.stack([item.pixels for item in batch])
        if len(batch) * self._picture_ms <= IN_PLACE_MS:
            started = time.perf_counter()
            try:
                outputs = self._run(images)
            except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the answer to this batch
                self._fail(batch, error)
            else:
                self._resolve(batch, outputs, started, time.perf_counter())
            loop.call_soon(self._next)
        else:
            task = loop.run_in_executor(self._thread, self._timed, images)
            task.add_done_callback(lambda done: self._finish(batch, done))

    def _timed(self, images: NDArray[np.uint8]) -> tuple[Outputs, float, float]:
        started = time.perf_counter()
        outputs = self._run(images)
        return outputs, started, time.perf_counter()

    def _finish(self, batch: list[Item], done: asyncio.Future[tuple[Outputs, float, float]]) -> None:
        error = done.exception()
        if error is not None:
            self._fail(batch, error)
        else:
            self._resolve(batch, *done.result())
        self._next()

    def _resolve(self, batch: list[Item], outputs: Outputs, started: float, ended: float) -> None:
        size = len(batch)
        inference_ms = (ended - started) * 1000
        self._picture_ms = inference_ms / size
        wrong = sorted(name for name, output in outputs.items() if len(output) != size)
        if wrong:
            self._fail(
                batch, ValueError(f"the model gave another number of {', '.join(wrong)} than it was given pictures")
            )
            return
        for index, item in enumerate(batch):
            if not item.answer.done():
                answer = {name: output[index] for name, output in outputs.items()}
                item.answer.set_result(Inference(answer, size, (started - item.arrived) * 1000, inference_ms))

    def _fail(self, batch: list[Item], error: BaseException) -> None:
        log.error("inference_failed", batch_size=len(batch), error=repr(error))
        for item in batch:
            if not item.answer.done():
                item.answer.set_exception(
                    ModelFailedError("the model failed on this batch of pictures; the log says why")
                )
