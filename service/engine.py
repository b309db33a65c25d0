"""From an upload to an answer: decode, infer together with others, encode. Every protocol calls this."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.artifact import ImageInput
from service.batcher import Inference
from service.errors import ModelFailedError
from service.geometry import corners
from service.images import Format, Picture, Upload, encode, open_picture, prepare
from service.models import Model, Models
from service.settings import Settings

IN_PLACE_BYTES = 64 * 2**10
IN_PLACE_PIXELS = 128 * 128
"""Pictures up to both are decoded, and rectified images up to the latter encoded, on the event loop: a fraction of a
millisecond each, less than the way to a thread and back under load."""

Value = TypeVar("Value")


class Encoded(NamedTuple):
    """A rectified image as a file."""

    format: Format
    width: int
    height: int
    data: bytes


class Straightened(NamedTuple):
    """What one transformer of the model did to the picture."""

    name: str
    kind: str
    theta: NDArray[np.float32]
    """``(2, 3)``."""
    parameters: NDArray[np.float32]
    corners: NDArray[np.float64]
    """``(4, 2)`` in pixels of the uploaded picture."""
    rectified: Encoded | None


class Timings(NamedTuple):
    """In milliseconds."""

    decode: float
    queue: float
    inference: float
    encode: float


class Answer(NamedTuple):
    """All that the model says about one picture."""

    model: Model
    probabilities: NDArray[np.float32]
    """``(K,)``."""
    transforms: list[Straightened]
    batch_size: int
    timings: Timings


class Engine:
    """The models and the threads that large pictures are decoded and encoded in."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self._max_pixels = settings.max_pixels
        workers = settings.decode_threads or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self.ready = True

    async def predict(self, model: Model, upload: Upload, rectified: Format | None) -> Answer:
        """Answer for one picture; ``rectified`` is how to encode the rectified images.

        Raises:
            RequestError: the picture cannot be used, the queue is full or the model failed.
        """
        started = time.perf_counter()
        picture = await self._read(upload, model.manifest.input)
        decoded = time.perf_counter()
        inference = await model.batcher.submit(picture.pixels)
        inferred = time.perf_counter()
        if not all(np.isfinite(output).all() for output in inference.outputs.values()):
            raise ModelFailedError("the model gave values that are no numbers for this picture")
        probabilities: NDArray[np.float32] = inference.outputs[model.manifest.probabilities]
        transforms = await self._straightened(model, picture, inference, rectified)
        encode_ms = (time.perf_counter() - inferred) * 1000
        timings = Timings((decoded - started) * 1000, inference.queue_ms, inference.inference_ms, encode_ms)
        return Answer(model, probabilities, transforms, inference.batch_size, timings)

    async def close(self) -> None:
        """Answer everything that was accepted, then end the threads."""
        self.ready = False
        await asyncio.gather(*(model.batcher.close() for model in self.models))
        await asyncio.to_thread(self._threads.shutdown)

    async def _read(self, upload: Upload, model_input: ImageInput) -> Picture:
        if len(upload.data) > IN_PLACE_BYTES:
            return await self._in_thread(lambda: prepare(open_picture(upload, self._max_pixels), model_input))
        image = open_picture(upload, self._max_pixels)
        if image.width * image.height > IN_PLACE_PIXELS:
            return await self._in_thread(lambda: prepare(image, model_input))
        return prepare(image, model_input)

    async def _straightened(
        self, model: Model, picture: Picture, inference: Inference, rectified: Format | None
    ) -> list[Straightened]:
        results = []
        for transform in model.manifest.transforms:
            theta: NDArray[np.float32] = inference.outputs[transform.theta]
            parameters: NDArray[np.float32] = inference.outputs[transform.parameters]
            pixels: NDArray[np.uint8] = inference.outputs[transform.rectified]
            where = corners(theta, picture.width, picture.height)
            encoded = await self._encode(pixels, rectified) if rectified else None
            results.append(Straightened(transform.name, transform.kind, theta, parameters, where, encoded))
        return results

    async def _encode(self, pixels: NDArray[np.uint8], picture_format: Format) -> Encoded:
        height, width = pixels.shape[:2]
        if height * width > IN_PLACE_PIXELS:
            data = await self._in_thread(lambda: encode(pixels, picture_format))
        else:
            data = encode(pixels, picture_format)
        return Encoded(picture_format, width, height, data)

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
