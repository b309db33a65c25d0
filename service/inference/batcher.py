"""Dynamic batching without a delay: pictures that wait at the same time share an inference.

Each picture has a future of its own. Pictures gather while an inference runs; when it ends, all of them (up to a
maximum) form the next batch. The batch size therefore grows with the load, and a picture alone starts at once.

Short inferences run in place on the event loop. Longer ones run in a thread, one at a time, if a spare core can run it.
Without a spare core, batches are cut to a short duration: two threads on one core only take turns, and larger batches
are no cheaper.

Nothing gathers while the event loop is blocked. Under load, a batch therefore starts at the first iteration of the loop
that brings no further pictures.

A periodic check fails overdue pictures and gives up an inference that hangs.
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
"""Longest predicted inference that may block the event loop."""
CUT_MS = 8.0
"""The same limit where batches are cut to it."""
MIN_MS = 1e-3
"""Lower bound of the predicted time of a picture."""
GROWTH = 1.1
"""Largest growth of the prediction from one inference to the next."""
TICK_S = 0.02

Run = Callable[[NDArray[np.uint8]], Outputs]
Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class Inference(NamedTuple, Generic[Value]):
    """The result for one picture."""

    value: Value
    batch_size: int
    queue_ms: float
    inference_ms: float


class Item(Generic[Value]):
    """A picture in the queue and the future of its result."""

    __slots__ = ("answer", "arrived", "deadline", "is_view", "pixels")

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        answer: asyncio.Future[Inference[Value]],
        arrived: float,
        deadline: float,
        is_view: bool,
    ) -> None:
        self.pixels = pixels
        self.answer = answer
        self.arrived = arrived
        self.deadline = deadline
        self.is_view = is_view


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
        metrics: ModelMetrics,
        observe: Callable[[Outputs], None] | None = None,
        in_place: bool = True,
        spare_core: bool = True,
    ) -> None:
        """Create an idle batcher.

        Args:
            run: maps ``(N, H, W, C)`` uint8 with N up to ``max_batch`` to outputs.
            read: splits the outputs into N values.
            max_batch: the largest batch.
            inference_timeout_s: the time after which an inference is given up.
            picture_ms: the measured duration of an inference for one picture.
            metrics: counts the inferences.
            observe: is given the outputs for all pictures that are no views.
            in_place: whether short inferences run on the event loop.
            spare_core: whether the thread and the event loop can run at the same time.
        """
        self._run = run
        self._read = read
        self._observe = observe
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
        """Whether the last batch had several pictures."""
        self._closed = False
        self._metrics = metrics
        self._context = Context()  # of no request, since a batch may belong to several
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.hangs = False
        """Whether the running inference has been given up. Nothing is accepted until it ends."""

    def submit(
        self,
        pixels: NDArray[np.uint8],
        deadline: float = float("inf"),
        queued_s: float = 0.0,
        *,
        is_alone: bool = False,
        is_view: bool = False,
    ) -> asyncio.Future[Inference[Value]]:
        """Queue ``pixels`` ``(H, W, C)`` until ``deadline``, a time of `time.perf_counter`.

        The request has already waited for ``queued_s``. With ``is_alone`` no other picture can come in this iteration
        of the event loop, and an idle batcher does not wait for one. ``is_view`` says that it is a changed view of
        another picture, which tells nothing of the pictures that are sent. To cancel, set an exception on the returned
        future.

        Raises:
            NotReadyError: the batcher is closed, or its model hangs.
        """
        if self._closed:
            raise NotReadyError("the service is shutting down; send the request to another instance")
        if self.hangs:
            raise NotReadyError("the model hangs; send the request to another instance")
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        item = Item(pixels, loop.create_future(), now - queued_s, deadline, is_view)
        self._waiting.append(item)
        if self._busy_since is None:
            self._busy_since = now
            if is_alone:
                self._context.run(self._next, is_alone=True)
            else:
                loop.call_soon(self._gather, 0 if self._together else 1, context=self._context)
        if not self._ticking and self._busy_since is not None:
            self._ticking = True
            loop.call_later(TICK_S, self._tick, context=self._context)
        return item.answer

    @property
    def waiting(self) -> int:
        """Number of pictures that wait for an inference."""
        return len(self._waiting)

    async def close(self) -> None:
        """Reject new pictures and finish the queued ones. The thread ends with its inference."""
        self._closed = True
        if pending := [item.answer for item in (*self._running, *self._waiting)]:
            await asyncio.wait(pending)
        self._thread.shutdown(wait=False)  # an inference that hangs would never let it end

    def _gather(self, before: int) -> None:
        """Start a batch unless it is not full and has grown from ``before`` in this iteration of the event loop.

        With ``before`` 0 at least one iteration passes, so that finished answers are sent before the loop is blocked.
        """
        count = len(self._waiting)
        if before < count and (count < self._most() or not before):
            asyncio.get_running_loop().call_soon(self._gather, count)
        else:
            self._next()

    def _next(self, *, is_alone: bool = False) -> None:
        """Start the inference of the queued pictures, or go idle; after a picture ``is_alone``, do so at once."""
        batch: list[Item[Value]] = []
        now = time.perf_counter()
        most = self._most()
        while self._waiting and len(batch) < most:
            item = self._waiting.popleft()
            if item.answer.done():  # cancelled
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
            views = [item.is_view for item in batch]
            if len(batch) * self._picture_ms > self._in_place_ms:
                task = loop.run_in_executor(self._thread, self._timed, images, views)
                task.add_done_callback(lambda done: self._finish(batch, done))
                return
            self._resolve(batch, *self._timed(images, views))
        except Exception as error:  # noqa: BLE001 - whatever is raised fails this batch, and the next one is started
            self._fail(batch, error)
        if is_alone:
            self._running, self._busy_since = [], None
        else:
            loop.call_soon(self._gather, 0)

    def _most(self) -> int:
        """Largest size of the next batch."""
        if not self._cut:
            return self._max_batch
        return max(1, min(self._max_batch, int(CUT_MS / max(self._picture_ms, MIN_MS))))

    def _timed(self, images: NDArray[np.uint8], views: list[bool]) -> tuple[Sequence[Value], float, float]:
        started = time.perf_counter()
        outputs = self._run(images)
        ended = time.perf_counter()
        wrong = sorted(name for name, output in outputs.items() if len(output) != len(images))
        if wrong:
            raise ValueError(f"the number of {', '.join(wrong)} differs from the number of pictures in the batch")
        if self._observe is not None and not all(views):
            self._observe(without(outputs, views) if any(views) else outputs)
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
        # A single slow inference may have been interrupted, so the prediction rises slowly.
        self._picture_ms = min(inference_ms / size, GROWTH * self._picture_ms)
        self._metrics.inferred(size, size * started - sum([item.arrived for item in batch]), ended - started)
        for item, value in zip(batch, values, strict=True):
            if not item.answer.done():
                item.answer.set_result(Inference(value, size, (started - item.arrived) * 1000, inference_ms))

    def _fail(self, batch: list[Item[Value]], error: BaseException) -> None:
        log.error("inference_failed", batch_size=len(batch), error=repr(error))
        self._metrics.failed(len(batch))
        for item in batch:
            if not item.answer.done():
                item.answer.set_exception(
                    InferenceFailedError("the model failed on this batch; the log of the service has the reason")
                )

    def _tick(self) -> None:
        """Fail overdue pictures and give up an inference that hangs."""
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
                        InferenceFailedError("the inference hangs and was given up; send the picture again later")
                    )
            self._waiting.clear()


def expire(item: Item[Value]) -> None:
    """Fail an overdue item."""
    item.answer.set_exception(
        DeadlineExceededError("the answer was not ready within the time given; try again later or allow more time")
    )


def without(outputs: Outputs, left_out: list[bool]) -> Outputs:
    """Return the outputs of a batch without those that are ``left_out``."""
    kept = np.logical_not(left_out)
    return {name: output[kept] for name, output in outputs.items()}
