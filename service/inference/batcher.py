"""Requests that are waiting at the same time share an inference; one that waits alone starts at once.

An item carries its own future. While an inference runs, items gather; when it ends, all of them (up to a maximum)
make the next batch. So the batch grows with the load, and an idle server waits for nobody. Short inferences run in
place on the event loop; longer ones in a thread, one at a time, if there is a core that could run it meanwhile. Else
batches are cut so that they are short: two threads on one core only take turns, and larger batches are no cheaper.

What holds the event loop lets nobody gather. Where pictures come together, a batch therefore begins with the first turn
of the loop that brings no more of them: no time passes idle, and no batch is small for having begun too soon.

While anything waits or runs, a clock ticks: it answers what is overdue and gives up an inference that hangs.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from export.format.artifact import Outputs
from service.errors import DeadlineExceededError, InferenceFailedError, NotReadyError
from service.metrics.recorder import ModelMetrics

IN_PLACE_MS = 2.0
"""Longest inference, as foretold by the last ones, that may hold the event loop."""
CUT_MS = 8.0
"""The same, where batches are cut to it."""
MIN_MS = 1e-3
"""A picture takes at least so long."""
GROWTH = 1.1
"""By how much what is foretold grows from one inference to the next."""
TICK_S = 0.02

Run = Callable[[NDArray[np.uint8]], Outputs]
Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class Inference(NamedTuple, Generic[Value]):
    """What the model answered for one picture."""

    value: Value
    batch_size: int
    queue_ms: float
    inference_ms: float


class Item(Generic[Value]):
    """A picture that waits, and the future of its answer."""

    __slots__ = ("answer", "arrived", "deadline", "pixels")

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        answer: asyncio.Future[Inference[Value]],
        arrived: float,
        deadline: float,
    ) -> None:
        self.pixels = pixels
        self.answer = answer
        self.arrived = arrived
        self.deadline = deadline


class Batcher(Generic[Value]):
    """Gathers pictures for one model. All methods are called on the event loop."""

    def __init__(
        self,
        run: Run,
        read: Callable[[Outputs], Sequence[Value]],
        *,
        max_batch: int,
        inference_timeout_s: float,
        picture_ms: float,
        meter: ModelMetrics,
        in_place: bool = True,
        spare_core: bool = True,
    ) -> None:
        """``run`` takes ``(N, H, W, C)`` uint8 for up to ``max_batch``, of its outputs ``read`` makes N values.

        ``picture_ms`` is how long it took for one picture; ``meter`` counts the inferences; ``in_place=False`` runs
        all in the thread; ``spare_core`` says whether that can run while the event loop does.
        """
        self._run = run
        self._read = read
        self._max_batch = max_batch
        self._hang_s = inference_timeout_s
        self._picture_ms = picture_ms
        self._cut = in_place and not spare_core
        self._in_place_ms = (CUT_MS if self._cut else IN_PLACE_MS) if in_place else 0.0
        self._waiting: deque[Item[Value]] = deque()
        self._running: list[Item[Value]] = []
        self._busy_since: float | None = None
        self._ticking = False
        self._together = False
        """Whether the last batch was of several."""
        self._closed = False
        self._meter = meter
        self._context = Context()  # of no request: what is logged of a batch is of all
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.hangs = False
        """Whether the inference that runs has been given up; nothing is taken until it ends."""

    def submit(
        self, pixels: NDArray[np.uint8], deadline: float = float("inf"), held_s: float = 0.0
    ) -> asyncio.Future[Inference[Value]]:
        """Queue ``pixels`` ``(H, W, C)``; ``deadline`` is as `time.perf_counter` gives it.

        Their request has waited for ``held_s`` already. Who does not want the answer any more fails the future.

        Raises:
            NotReadyError: the batcher is closed, or its model hangs.
        """
        if self._closed:
            raise NotReadyError("the service is shutting down; send the request to another instance")
        if self.hangs:
            raise NotReadyError("the model does not answer any more; send the request to another instance")
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        item = Item(pixels, loop.create_future(), now - held_s, deadline)
        self._waiting.append(item)
        if self._busy_since is None:
            self._busy_since = now
            loop.call_soon(self._gather, 0 if self._together else 1, context=self._context)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_S, self._tick, context=self._context)
        return item.answer

    @property
    def waiting(self) -> int:
        """Pictures that wait for an inference."""
        return len(self._waiting)

    async def close(self) -> None:
        """Take nothing new, answer everything that waits, and end the thread when what it does is done."""
        self._closed = True
        if pending := [item.answer for item in (*self._running, *self._waiting)]:
            await asyncio.wait(pending)
        self._thread.shutdown(wait=False)  # nobody waits for what it still computes, which may never end

    def _gather(self, before: int) -> None:
        """Begin, unless more wait now than ``before`` this turn of the event loop, and a batch is not full.

        From 0 it takes a turn at least: answers that were just written leave before the loop is held again.
        """
        count = len(self._waiting)
        if before < count and (count < self._most() or not before):
            asyncio.get_running_loop().call_soon(self._gather, count)
        else:
            self._next()

    def _next(self) -> None:
        """Start the inference of what waits now, or go idle."""
        batch: list[Item[Value]] = []
        now = time.perf_counter()
        most = self._most()
        while self._waiting and len(batch) < most:
            item = self._waiting.popleft()
            if item.answer.done():  # it was given up
                continue
            if now >= item.deadline:
                expire(item)
            else:
                batch.append(item)
        self._running = batch
        if not batch:
            self._busy_since = None
            return
        self._busy_since = now
        self._together = len(batch) > 1
        loop = asyncio.get_running_loop()
        try:
            images = np.stack([item.pixels for item in batch]) if self._together else batch[0].pixels[np.newaxis]
            if len(batch) * self._picture_ms > self._in_place_ms:
                task = loop.run_in_executor(self._thread, self._timed, images)
                task.add_done_callback(lambda done: self._finish(batch, done))
                return
            self._resolve(batch, *self._timed(images))
        except Exception as error:  # noqa: BLE001 - whatever is raised fails this batch, and the next one is started
            self._fail(batch, error)
        loop.call_soon(self._gather, 0)

    def _most(self) -> int:
        """Pictures in the next batch at most."""
        if not self._cut:
            return self._max_batch
        return max(1, min(self._max_batch, int(CUT_MS / max(self._picture_ms, MIN_MS))))

    def _timed(self, images: NDArray[np.uint8]) -> tuple[Sequence[Value], float, float]:
        started = time.perf_counter()
        outputs = self._run(images)
        ended = time.perf_counter()
        wrong = sorted(name for name, output in outputs.items() if len(output) != len(images))
        if wrong:
            raise ValueError(f"the model gave another number of {', '.join(wrong)} than it was given pictures")
        return self._read(outputs), started, ended

    def _finish(self, batch: list[Item[Value]], done: asyncio.Future[tuple[Sequence[Value], float, float]]) -> None:
        if self.hangs:
            self.hangs = False
            log.warning("model_answers_again")
        try:
            self._resolve(batch, *done.result())
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(batch, error)
        self._next()

    def _resolve(self, batch: list[Item[Value]], values: Sequence[Value], started: float, ended: float) -> None:
        size = len(batch)
        inference_ms = (ended - started) * 1000
        # A slow one may have been interrupted; only several in a row are believed.
        self._picture_ms = min(inference_ms / size, GROWTH * self._picture_ms)
        self._meter.inferred(size, size * started - sum([item.arrived for item in batch]), ended - started)
        for item, value in zip(batch, values, strict=True):
            if not item.answer.done():
                item.answer.set_result(Inference(value, size, (started - item.arrived) * 1000, inference_ms))

    def _fail(self, batch: list[Item[Value]], error: BaseException) -> None:
        log.error("inference_failed", batch_size=len(batch), error=repr(error))
        self._meter.failed(len(batch))
        for item in batch:
            if not item.answer.done():
                item.answer.set_exception(
                    InferenceFailedError("the model failed on this batch of pictures; the log says why")
                )

    def _tick(self) -> None:
        """Look after those who have to wait, and after the model."""
        now = time.perf_counter()
        if self._busy_since is None:
            self._ticking = False
            return
        asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for item in (*self._running, *self._waiting):
            if now >= item.deadline and not item.answer.done():
                expire(item)
        if now - self._busy_since > self._hang_s and not self.hangs:
            self.hangs = True
            log.error("model_hangs", seconds=round(now - self._busy_since, 1), given_up=len(self._waiting))
            for item in (*self._running, *self._waiting):
                if not item.answer.done():
                    item.answer.set_exception(
                        InferenceFailedError("the model hangs and was given up; the log says since")
                    )
            self._waiting.clear()


def expire(item: Item[Value]) -> None:
    """Answer an item that is overdue."""
    item.answer.set_exception(
        DeadlineExceededError("the answer was not ready within the time given; try again later or allow more time")
    )
