"""From an upload to an answer: decode, infer together with others, encode. Every protocol calls this."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from itertools import starmap
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import ImageInput
from imaging.fast_codecs import FileFormat, encode
from imaging.preprocessing import Picture
from service.errors import InferenceFailedError, RequestError
from service.inference.decoding import IN_PLACE_PIXELS, Decoders
from service.inference.outputs import ModelOutput
from service.inference.preprocessing import Upload
from service.inference.registry import Model, Models, load_models
from service.request_context import Timings, held_s, record_model, record_prediction, track_future
from service.settings import Settings

PICTURES_AT_ONCE = 16
"""Of one request that are decoded together; after an error no others are begun."""
TURN_S = 0.005
"""Longest time that pictures are worked on in one turn of the event loop, besides the last one."""


class Answer(NamedTuple):
    """All that a model says about one picture."""

    model: Model
    reading: ModelOutput
    width: int
    height: int
    """Of the uploaded picture, upright, in its own pixels."""
    rectified: list[bytes] | None
    """A file for each transformer, if they were asked for."""
    batch_size: int
    timings: Timings

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.model.manifest.classes[int(self.reading.ranking[0])]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return float(self.reading.probabilities[0])


class Turns:
    """Spreads the work on many pictures over turns of the event loop, so that other requests have theirs."""

    def __init__(self) -> None:
        self._began: float | None = None
        """When the first work of this turn began."""

    async def share(self) -> None:
        """Wait for a later turn if the work of this one has taken `TURN_S`."""
        while self._began is not None and time.perf_counter() - self._began > TURN_S:  # noqa: ASYNC110 - a turn is short
            await asyncio.sleep(0)
        if self._began is None:
            self._began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._began = None


class Engine:
    """The models and the decoders of pictures; as a context it closes in the end."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self._timeout_ms = settings.timeout_ms
        self._decoders = Decoders(settings)
        self._turns = Turns()
        self._closing = False

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """An engine with the models that ``settings`` name.

        Raises:
            StartError: they cannot be loaded.
        """
        return cls(load_models(settings), settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def hangs(self) -> bool:
        """Whether a model that is served has been given up."""
        return any(batcher.hangs for batcher in self.models.batchers)

    @property
    def stuck(self) -> bool:
        """Whether a model has been given up, be it one that is not served any more."""
        return self.hangs or any(batcher.hangs for batcher in self.models.leaving)

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return not self._closing and not self.hangs

    def find(self, name: str | None = None, version: int | None = None) -> Model:
        """The model that a request asks for.

        Raises:
            ModelNotFoundError: see `Models.find`.
        """
        model = self.models.find(name, version)
        record_model(model.name, model.version)
        return model

    def serves(self, model: Model) -> bool:
        """Whether ``model`` can answer."""
        return not self._closing and not model.batcher.hangs

    async def predict(
        self, model: Model, picture: Upload | bytes, rectified: FileFormat | None = None, timeout_ms: int | None = None
    ) -> Answer:
        """Answer for one picture file within ``timeout_ms``, by default that of the settings.

        ``rectified`` is the format of the rectified images, which are left out by default. The time that a request has
        waited in the queue of the server counts.

        Raises:
            RequestError: the picture cannot be used, its time is up, or the model failed.
        """
        started = time.perf_counter()
        held = held_s()
        deadline = started - held + (self._timeout_ms if timeout_ms is None else timeout_ms) / 1000
        upload = Upload(picture, None) if isinstance(picture, bytes) else picture
        await self._turns.share()
        opened = await self._decoders.read(upload, model.manifest.input, deadline)
        decoded = time.perf_counter()
        inference = await track_future(model.batcher.submit(opened.pixels, deadline, held))
        inferred = time.perf_counter()
        await self._turns.share()
        reading = finite_output(inference.value)
        files = await self._encode(reading, rectified) if rectified else None
        ended = time.perf_counter()
        decode_ms, encode_ms = (decoded - started) * 1000, (ended - inferred) * 1000
        timings = Timings(decode_ms, inference.queue_ms, inference.inference_ms, encode_ms)
        record_prediction(started, timings, inference.batch_size, ended)
        return Answer(model, reading, opened.width, opened.height, files, inference.batch_size, timings)

    async def infer(
        self, model: Model, pictures: Sequence[Upload] | NDArray[np.uint8], deadline: float
    ) -> list[ModelOutput]:
        """What ``model`` says of ``pictures``, all of which must be good: files, or ``(N, H, W, C)`` of its input.

        ``deadline`` is as `time.perf_counter` gives it.

        Raises:
            RequestError: a picture cannot be used, their time is up, or the model failed.
        """
        started = time.perf_counter()
        held = held_s()
        if isinstance(pictures, np.ndarray):
            pixels = list(pictures)
        else:
            pixels = [picture.pixels for picture in await self._read_all(pictures, model.manifest.input, deadline)]
        decode_ms = (time.perf_counter() - started) * 1000
        answers = [track_future(model.batcher.submit(picture, deadline, held)) for picture in pixels]
        # Exceptions are taken as results, since several may come and each must be looked at.
        inferences = await asyncio.gather(*answers, return_exceptions=True)
        readings = []
        try:
            for inference in inferences:
                if isinstance(inference, BaseException):
                    raise inference
                readings.append(finite_output(inference.value))
                timings = Timings(decode_ms, inference.queue_ms, inference.inference_ms, 0.0)
                record_prediction(started, timings, inference.batch_size, time.perf_counter())
        finally:
            del answers, inferences, inference  # an error leads back here: the circle would keep the pictures for long
        return readings

    async def close(self) -> None:
        """Answer everything that was accepted, and end the threads when what they do is done."""
        self._closing = True
        await asyncio.gather(*(batcher.close() for batcher in (*self.models.batchers, *self.models.leaving)))
        await self._decoders.close()

    async def _read_all(self, uploads: Sequence[Upload], model_input: ImageInput, deadline: float) -> list[Picture]:
        async def read(number: int, upload: Upload) -> Picture:
            await self._turns.share()
            try:
                return await self._decoders.read(upload, model_input, deadline)
            except RequestError as error:
                raise type(error)(f"picture {number}: {error}") from error

        pictures: list[Picture] = []
        numbered = list(enumerate(uploads, start=1))
        for start in range(0, len(uploads), PICTURES_AT_ONCE):
            pictures += await asyncio.gather(*starmap(read, numbered[start : start + PICTURES_AT_ONCE]))
        return pictures

    async def _encode(self, reading: ModelOutput, picture_format: FileFormat) -> list[bytes]:
        files = []
        for look in reading.looks:
            height, width, _ = look.rectified.shape
            if height * width <= IN_PLACE_PIXELS:
                files.append(encode(look.rectified, picture_format))
            else:
                files.append(await self._decoders.in_thread(partial(encode, look.rectified, picture_format)))
        return files


def finite_output(reading: ModelOutput) -> ModelOutput:
    """``reading``, whose numbers must be some.

    Raises:
        InferenceFailedError: they are not.
    """
    if not reading.is_finite:
        raise InferenceFailedError("the model gave values that are no numbers for this picture")
    return reading
