"""Decodes pictures: small ones on the event loop, most in threads, and costly ones in processes."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Never, TypeVar

from export.format.artifact import ImageInput
from imaging.crops import Box
from imaging.decoding import ExaminedImage
from imaging.limits.cost import Cost
from imaging.limits.limits import Limits
from imaging.preprocessing import InputSpec, Picture
from service.errors import DeadlineExceededError
from service.inference.preprocessing import Target, Upload, examine_picture, preprocess, preprocess_regions
from service.inference.process_pool import ProcessPool
from service.inference.rectified.memory import Hold, MemoryBudget, return_free_memory
from service.request_context import track_future
from service.settings import Settings

IN_PLACE_PIXELS = 128 * 128
"""Largest picture that is encoded, or decoded beside a spare core, on the event loop."""


class InPlace(NamedTuple):
    """The largest pictures that are decoded on the event loop: under load, a thread would cost more."""

    bytes: int
    pixels: int
    seconds: float


WITH_SPARE_CORE = InPlace(64 * 2**10, IN_PLACE_PIXELS, 0.003)
WITHOUT_SPARE_CORE = InPlace(512 * 2**10, 512 * 512, 0.008)
"""A thread would not work beside the event loop, but take turns with it."""
IN_THREAD_S = 0.25
"""Longest predicted work of a thread, which cannot be stopped at the deadline."""
KEPT_IN_THREAD_S = 1.0
"""The same for a picture that is kept: a process would take as long to send it."""
BYTES_PER_PIXEL = 4 + 4
"""Memory for each pixel of a rectified image that is sampled from the picture: its pixels, and those of the file."""
TURNING_PASSES = 3
"""How often the pixels of a picture are read to turn it: as an array, reduced, and sampled."""
LARGE_BYTES = 32 * 2**20
"""Memory of a picture after whose decoding free memory is returned to the system."""

Value = TypeVar("Value")


class Decoders:
    """The threads and processes that decode pictures."""

    def __init__(self, settings: Settings, *, spare_core: bool = True) -> None:
        """``spare_core`` says whether a thread and the event loop can run at the same time."""
        self._in_place = WITH_SPARE_CORE if spare_core else WITHOUT_SPARE_CORE
        self._limits = Limits(settings.max_pixels, settings.max_side)
        threads = settings.decode_threads or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
        processes = settings.decode_processes
        self._processes = ProcessPool(processes, self._limits.max_bytes) if processes else None
        self._memory = MemoryBudget(settings.max_source_bytes)

    def read_at_once(self, upload: Upload, model_input: ImageInput) -> Picture | None:
        """Decode ``upload`` into an input of the model; None if that would hold the event loop for too long.

        Raises:
            RequestError: the picture cannot be used.
        """
        if len(upload.data) <= self._in_place.bytes:
            examined = examine_picture(upload, self._limits)
            if fits(examined.cost, self._in_place):
                return preprocess(examined, model_input)
        return None

    async def read(self, upload: Upload, model_input: ImageInput, deadline: float) -> Picture:
        """Decode ``upload`` into an input of the model, in a thread or in a process if it takes long.

        Raises:
            RequestError: the picture cannot be used, or was not decoded by the ``deadline``.
        """
        picture = self.read_at_once(upload, model_input)
        return await self.read_elsewhere(upload, model_input, deadline) if picture is None else picture

    async def read_elsewhere(self, upload: Upload, model_input: ImageInput, deadline: float) -> Picture:
        """Decode ``upload`` in a thread or in a process; see `read`."""
        return await self.before_deadline(self._read_in_thread(upload, model_input, deadline), deadline)

    @asynccontextmanager
    async def keep(
        self, upload: Upload, model_input: ImageInput, rectified_pixels: int, deadline: float
    ) -> AsyncIterator[Picture]:
        """Decode ``upload`` as `read` does, and keep the whole picture too while the context lasts.

        Meanwhile it counts towards the memory of kept pictures, with ``rectified_pixels`` that are made of it.

        Raises:
            RequestError: see `read`.
        """
        async with self._hold(upload, rectified_pixels, deadline) as examined:
            yield await self._prepare(partial(preprocess, keep=True), examined, model_input, 1, deadline)

    @asynccontextmanager
    async def keep_regions(
        self,
        upload: Upload,
        model_input: ImageInput,
        regions: Sequence[Box],
        turn: float,
        rectified_pixels: int,
        deadline: float,
    ) -> AsyncIterator[list[Picture]]:
        """Decode ``upload`` once, into an input of the model for each of ``regions``, or one of the whole; see `keep`.

        All are turned back by ``turn`` degrees. The whole picture is kept only if there are ``rectified_pixels``.

        Raises:
            InvalidParameterError: a region lies outside of the picture.
            RequestError: see `read`.
        """
        work = partial(
            preprocess_regions,
            keep=rectified_pixels > 0,
            regions=regions,
            max_pixels=self._limits.max_pixels,
            turn=turn,
        )
        passes = 1 + max(1, len(regions)) * (TURNING_PASSES if turn else 1)
        async with self._hold(upload, rectified_pixels, deadline) as examined:
            yield await self._prepare(work, examined, model_input, passes, deadline)

    @asynccontextmanager
    async def _hold(self, upload: Upload, rectified_pixels: int, deadline: float) -> AsyncIterator[ExaminedImage]:
        """Examine ``upload``, and take the memory of the whole picture and of what is made of it."""
        if len(upload.data) <= self._in_place.bytes:
            examined = examine_picture(upload, self._limits)
        else:
            examining = self.in_thread(partial(examine_picture, upload, self._limits))
            examined = await self.before_deadline(examining, deadline)
        cost = examined.cost
        hold = Hold(cost.bytes + rectified_pixels * BYTES_PER_PIXEL)
        try:
            await self.before_deadline(self._memory.take(hold), deadline)
            yield examined
        finally:
            self._memory.give_back(hold)
            if hold.size > LARGE_BYTES:
                return_free_memory()

    async def before_deadline(self, work: Coroutine[Any, Any, Value], deadline: float) -> Value:
        """The result of ``work`` on a picture, which is dropped when the client disconnects or the time is over.

        Work that runs in a thread then goes on to its end.

        Raises:
            DeadlineExceededError: the ``deadline`` has passed.
            ClientDisconnect: the client has disconnected.
        """
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):  # drops work that still waits for a thread
                return await while_client_waits(work)
        except TimeoutError:
            raise DeadlineExceededError("the picture was not processed before the deadline; try again later") from None

    async def _read_in_thread(self, upload: Upload, model_input: ImageInput, deadline: float) -> Picture:
        """Decode ``upload`` in a thread, or in a process if it takes long."""
        found = await self.in_thread(partial(self._read_unless_long, upload, model_input, deadline))
        return found if isinstance(found, Picture) else await self._in_process(preprocess, found, model_input, deadline)

    def _read_unless_long(self, upload: Upload, model_input: ImageInput, deadline: float) -> Picture | ExaminedImage:
        """Decode the picture, or only examine it if a process has to decode it."""
        if time.perf_counter() > deadline:
            raise TimeoutError
        examined = examine_picture(upload, self._limits)
        if self._needs_process(examined.cost, IN_THREAD_S):
            return examined
        try:
            return preprocess(examined, model_input)
        finally:
            if examined.cost.bytes > LARGE_BYTES:
                return_free_memory()

    async def _prepare(
        self,
        work: Callable[[ExaminedImage, InputSpec], Value],
        examined: ExaminedImage,
        model_input: ImageInput,
        passes: int,
        deadline: float,
    ) -> Value:
        """The result of ``work``, which reads all pixels ``passes`` times, here or in a thread or a process."""
        if fits(examined.cost, self._in_place, passes):
            return work(examined, model_input)
        return await self.before_deadline(self._prepare_elsewhere(work, examined, model_input, deadline), deadline)

    async def _prepare_elsewhere(
        self,
        work: Callable[[ExaminedImage, InputSpec], Value],
        examined: ExaminedImage,
        model_input: ImageInput,
        deadline: float,
    ) -> Value:
        if self._needs_process(examined.cost, KEPT_IN_THREAD_S):
            return await self._in_process(work, examined, model_input, deadline)
        return await self.in_thread(partial(work, examined, model_input))

    def _needs_process(self, cost: Cost, longest_s: float) -> bool:
        return self._processes is not None and (cost.seconds > longest_s or not cost.bounded)

    async def _in_process(
        self,
        work: Callable[[ExaminedImage, InputSpec], Value],
        examined: ExaminedImage,
        model_input: ImageInput,
        deadline: float,
    ) -> Value:
        assert self._processes is not None  # noqa: S101 - see `_needs_process`
        target = Target(model_input.height, model_input.width, model_input.channels, tuple(model_input.background))
        return await self._processes.run(work, examined, target, deadline=deadline)

    async def in_thread(self, work: Callable[[], Value]) -> Value:
        """Run ``work``, which takes less than a second, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Kill the processes. The threads end with their present work."""
        self._threads.shutdown(wait=False)
        if self._processes is not None:
            await self._processes.close()


async def while_client_waits(work: Coroutine[Any, Any, Value]) -> Value:
    """The result of ``work``, which is cancelled when this is, and when the client of the request disconnects.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    task = asyncio.ensure_future(work)
    disconnected: asyncio.Future[Never] = track_future(asyncio.get_running_loop().create_future())
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else await disconnected
    finally:
        task.cancel()
        disconnected.cancel()
        del work, task, disconnected  # an error leads back to this frame: the cycle would keep the upload for long


def fits(cost: Cost, in_place: InPlace, passes: int = 1) -> bool:
    """Whether a picture may be decoded on the event loop, where its pixels are then read ``passes`` times."""
    return cost.bounded and cost.pixels * passes <= in_place.pixels and cost.seconds <= in_place.seconds
