"""The engine: decodes uploads, infers in batches and encodes rectified images. Every protocol uses it."""

import asyncio
import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain, starmap
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import ImageInput
from imaging.crops import Box, Crop, Shown
from imaging.encoding import FileFormat
from imaging.preprocessing import Picture
from service.errors import RequestError
from service.inference.decoders import IN_PLACE_PIXELS, Decoders
from service.inference.loading import has_spare_core
from service.inference.outputs import ModelOutput, finite_output, within_picture
from service.inference.preprocessing import Upload
from service.inference.rectified.image import RectifiedFile, encode_image, image_size, rectify
from service.inference.rectified.options import RectifiedOptions
from service.inference.registry import Model, Models, Seen
from service.inference.views.looking import infer_together, infer_views
from service.inference.views.options import NO_VIEWS, ViewOptions
from service.inference.views.reliability import Reliability
from service.request_context import Timings, gather_all, queued_s, record_model, record_prediction, track_future
from service.settings import Settings

PICTURES_AT_ONCE = 16
"""Pictures of one request that are decoded together. After an error, no further ones are started."""
TURN_S = 0.005
"""Longest time of pictures in one iteration of the event loop, besides the last picture."""


class Answer(NamedTuple):
    """The prediction for one picture."""

    model: Model
    output: ModelOutput
    width: int
    height: int
    """Size of the uploaded picture in pixels, upright."""
    rectified: list[RectifiedFile] | None
    """A file for each transformer, or for the main one only, if rectified images were requested."""
    batch_size: int
    timings: Timings
    crop: Crop | None = None
    """The part of the picture that the model was shown, if regions were requested."""
    turn: float = 0.0
    """Degrees by which that was turned back, see `imaging.crops.Shown`."""
    reliability: Reliability | None = None
    """Only if it was requested."""

    @property
    def placed(self) -> NDArray[np.float64] | None:
        """The map ``(3, 3)`` from what the model was shown to the picture; None if that was the picture as it is."""
        if self.crop is None and not self.turn:
            return None
        return Shown(self.crop or Crop(0, 0, self.width, self.height), self.turn).to_picture(self.width, self.height)

    @property
    def in_picture(self) -> ModelOutput:
        """The output, with thetas and regions of the whole picture."""
        placed = self.placed
        return self.output if placed is None else within_picture(self.output, self.model.manifest, placed)

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.model.manifest.label(int(self.output.ranking[0]))

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return float(self.output.probabilities[0])


class Turns:
    """Spreads the work on many pictures over turns of the event loop, so that other requests have theirs."""

    def __init__(self) -> None:
        self._worked_s = 0.0
        """Work since `_begin`, which is called after turns with much of it."""
        self._is_ending = False
        self.is_over = False
        """Whether further work has to wait for the next turn."""

    def record(self, seconds: float) -> None:
        """Count work, which was done in this turn or elsewhere; a turn is over after `TURN_S` of it."""
        self._worked_s += seconds
        if self._worked_s > TURN_S / 4 and not self._is_ending:
            self._is_ending = True
            asyncio.get_running_loop().call_soon(self._begin)
        self.is_over = self._worked_s > TURN_S

    async def wait(self) -> None:
        """Wait for a turn that is not over."""
        while self.is_over:  # noqa: ASYNC110 - a turn is short
            await asyncio.sleep(0)

    def _begin(self) -> None:
        self._worked_s = 0.0
        self._is_ending = self.is_over = False


class Engine:
    """Predicts with ``models``. Leaving the context closes the engine."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self._timeout_ms = settings.timeout_ms
        self._decoders = Decoders(settings, spare_core=has_spare_core(settings))
        self.turns = Turns()
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def hangs(self) -> bool:
        """Whether a served model hangs."""
        return any(batcher.hangs for batcher in self.models.batchers)

    @property
    def stuck(self) -> bool:
        """Whether a model hangs, retired models included."""
        return self.hangs or any(batcher.hangs for batcher in self.models.leaving)

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return not self._closing and not self.hangs

    def find(self, name: str | None = None, version: int | None = None) -> Model:
        """Return the requested model; see `Models.find`."""
        model = self.models.find(name, version)
        record_model(model.name, model.version)
        return model

    def route(self, name: str | None = None, version: int | None = None, *, same_tensors: bool = False) -> Model:
        """Return the model that answers the current request; see `Models.route`."""
        model = self.models.route(name, version, same_tensors=same_tensors)
        record_model(model.name, model.version)
        return model

    def serves(self, model: Model) -> bool:
        """Whether ``model`` can answer."""
        return not self._closing and not model.batcher.hangs

    async def predict(
        self,
        model: Model,
        picture: Upload | bytes,
        rectified: RectifiedOptions | FileFormat | None = None,
        timeout_ms: int | None = None,
        views: ViewOptions = NO_VIEWS,
        turn: float = 0.0,
        *,
        is_alone: bool = False,
    ) -> Answer:
        """Predict one picture file within ``timeout_ms`` (default: the setting), time in the admission queue included.

        ``rectified`` is the form of the rectified images, or only their format. By default there are none. ``views``
        are inferred besides the picture. ``turn`` are the degrees by which the thing in it is known to be turned
        clockwise. ``is_alone`` says that the caller has no other picture now, with which this one could share an
        inference.

        Raises:
            RequestError: the picture cannot be used, the deadline has passed, or the model failed.
        """
        started = time.perf_counter()
        deadline = started - queued_s() + (self._timeout_ms if timeout_ms is None else timeout_ms) / 1000
        upload = Upload(picture, None) if isinstance(picture, bytes) else picture
        options = RectifiedOptions(rectified) if isinstance(rectified, str) else rectified
        if self.turns.is_over:
            await self.turns.wait()
            started = time.perf_counter()  # waiting is no work
        if turn:
            return (await self._predict_parts(model, upload, (), turn, options, started, deadline, views))[0]
        if options is not None and options.needs_source:
            return await self._predict_source(model, upload, options, started, deadline, views, is_alone=is_alone)
        opened = self._decoders.read_at_once(upload, model.manifest.input)
        if opened is None:
            opened = await self._decoders.read_elsewhere(upload, model.manifest.input, deadline)
        given = options, started, self._decoded(started), deadline, views, upload
        return await self._infer_one(model, opened, *given, is_alone=is_alone)

    async def predict_regions(
        self,
        model: Model,
        picture: Upload | bytes,
        regions: Sequence[Box],
        rectified: RectifiedOptions | None = None,
        timeout_ms: int | None = None,
        views: ViewOptions = NO_VIEWS,
        turn: float = 0.0,
    ) -> list[Answer]:
        """Predict each of ``regions`` of one picture file, which is decoded once; see `predict`.

        Raises:
            InvalidParameterError: a region lies outside of the picture.
            RequestError: see `predict`.
        """
        started = time.perf_counter()
        deadline = started - queued_s() + (self._timeout_ms if timeout_ms is None else timeout_ms) / 1000
        upload = Upload(picture, None) if isinstance(picture, bytes) else picture
        await self.turns.wait()
        return await self._predict_parts(model, upload, regions, turn, rectified, started, deadline, views)

    async def _predict_parts(
        self,
        model: Model,
        upload: Upload,
        regions: Sequence[Box],
        turn: float,
        options: RectifiedOptions | None,
        started: float,
        deadline: float,
        views: ViewOptions,
    ) -> list[Answer]:
        """The prediction for each of ``regions`` of a picture, or for the whole of it, turned back by ``turn``."""
        pixels, spec = 0, model.manifest.input
        if options is not None and options.needs_source:
            if not regions and not turn:
                return [await self._predict_source(model, upload, options, started, deadline, views)]
            pixels = options.max_pixels * len(options.indices(model.manifest)) * max(1, len(regions))
        async with self._decoders.keep_regions(upload, spec, regions, turn, pixels, deadline) as parts:
            given = options, started, self._decoded(started) / len(parts), deadline, views, upload
            return await gather_all(self._infer_one(model, part, *given) for part in parts)

    async def _predict_source(
        self,
        model: Model,
        upload: Upload,
        options: RectifiedOptions,
        started: float,
        deadline: float,
        views: ViewOptions = NO_VIEWS,
        *,
        is_alone: bool = False,
    ) -> Answer:
        """The prediction for a picture whose rectified images are sampled from the whole of it."""
        pixels = options.max_pixels * len(options.indices(model.manifest))
        async with self._decoders.keep(upload, model.manifest.input, pixels, deadline) as opened:
            given = options, started, self._decoded(started), deadline, views, upload
            return await self._infer_one(model, opened, *given, is_alone=is_alone)

    def _decoded(self, started: float) -> float:
        """Count the decoding of a picture since ``started`` towards the turn, and return its seconds."""
        decode_s = time.perf_counter() - started
        self.turns.record(decode_s)
        return decode_s

    async def _infer_one(
        self,
        model: Model,
        opened: Picture,
        options: RectifiedOptions | None,
        started: float,
        decode_s: float,
        deadline: float,
        views: ViewOptions = NO_VIEWS,
        upload: Upload | None = None,
        *,
        is_alone: bool = False,
    ) -> Answer:
        """The prediction for a decoded picture, whose decoding began at ``started`` and took its ``decode_s``."""
        reliability = None
        if views.needed:
            counts = self.models.recorder.of_model((model.name, model.version))
            inference, reliability = await infer_views(model, opened, views, self._decoders, counts, deadline)
        else:
            inference = await track_future(model.batcher.submit(opened.pixels, deadline, queued_s(), is_alone=is_alone))
        inferred = time.perf_counter()
        if self.turns.is_over:
            await self.turns.wait()
            inferred = time.perf_counter()
        output = finite_output(inference.value)
        if self.models.observer is not None and not views.averaged:
            self.models.observer.observe(Seen(model, output, opened, upload, reliability))
        files = None if options is None else await self._rectify(model, output, opened, options, deadline)
        ended = time.perf_counter()
        self.turns.record(ended - inferred)
        timings = Timings(decode_s * 1000, inference.queue_ms, inference.inference_ms, (ended - inferred) * 1000)
        record_prediction(started, timings, inference.batch_size, ended)
        size, seen = (opened.width, opened.height), (opened.crop, opened.turn)
        return Answer(model, output, *size, files, inference.batch_size, timings, *seen, reliability)

    async def infer(
        self, model: Model, pictures: Sequence[Upload] | NDArray[np.uint8], deadline: float
    ) -> list[ModelOutput]:
        """Return the output of ``model`` for each of ``pictures``: files, or an array ``(N, H, W, C)`` of its input.

        One unusable picture fails all of them. ``deadline`` is a time of `time.perf_counter`.

        Raises:
            RequestError: a picture cannot be used, the deadline has passed, or the model failed.
        """
        started = time.perf_counter()
        uploads: Sequence[Upload | None] = [None] * len(pictures)
        if isinstance(pictures, np.ndarray):
            opened = [Picture(pixels, pixels.shape[1], pixels.shape[0]) for pixels in pictures]
        else:
            opened, uploads = await self._read_all(pictures, model.manifest.input, deadline), pictures
        decode_ms = (time.perf_counter() - started) * 1000
        outputs = []
        for inference in await infer_together(model, [picture.pixels for picture in opened], deadline):
            outputs.append(finite_output(inference.value))
            timings = Timings(decode_ms, inference.queue_ms, inference.inference_ms, 0.0)
            record_prediction(started, timings, inference.batch_size, time.perf_counter())
        if self.models.observer is not None:
            for picture, output, upload in zip(opened, outputs, uploads, strict=True):
                self.models.observer.observe(Seen(model, output, picture, upload))
        return outputs

    async def infer_parts(
        self,
        model: Model,
        pictures: Sequence[Upload] | NDArray[np.uint8],
        deadline: float,
        rectified: RectifiedOptions | None = None,
        views: ViewOptions = NO_VIEWS,
        regions: Sequence[Box] = (),
        turn: float = 0.0,
    ) -> list[Answer]:
        """Return an answer for each of ``regions`` of each picture, or for the whole of it; see `infer` and `predict`.

        Regions and ``turn`` are for files.
        """
        needs_source = rectified is not None and rectified.needs_source

        async def answer(number: int, picture: Upload | NDArray[np.uint8]) -> list[Answer]:
            await self.turns.wait()
            started = time.perf_counter()
            try:
                if not isinstance(picture, np.ndarray):
                    return await self._predict_parts(model, picture, regions, turn, rectified, started, deadline, views)
                opened = Picture(picture, picture.shape[1], picture.shape[0], picture if needs_source else None)
                return [await self._infer_one(model, opened, rectified, started, 0.0, deadline, views)]
            except RequestError as error:
                raise type(error)(f"picture {number}: {error}") from error

        results: list[Answer] = []
        numbered = list(enumerate(pictures, start=1))
        for start in range(0, len(numbered), PICTURES_AT_ONCE):
            found = await gather_all(starmap(answer, numbered[start : start + PICTURES_AT_ONCE]))
            results += chain.from_iterable(found)
        return results

    async def close(self) -> None:
        """Finish all accepted pictures. The threads end with their present work."""
        self._closing = True
        await asyncio.gather(*(batcher.close() for batcher in (*self.models.batchers, *self.models.leaving)))
        await self._decoders.close()

    async def _read_all(self, uploads: Sequence[Upload], model_input: ImageInput, deadline: float) -> list[Picture]:
        async def read(number: int, upload: Upload) -> Picture:
            await self.turns.wait()
            began = time.perf_counter()
            try:
                return await self._decoders.read(upload, model_input, deadline)
            except RequestError as error:
                raise type(error)(f"picture {number}: {error}") from error
            finally:
                self.turns.record(time.perf_counter() - began)

        pictures: list[Picture] = []
        numbered = list(enumerate(uploads, start=1))
        for start in range(0, len(uploads), PICTURES_AT_ONCE):
            pictures += await asyncio.gather(*starmap(read, numbered[start : start + PICTURES_AT_ONCE]))
        return pictures

    async def _rectify(
        self, model: Model, output: ModelOutput, opened: Picture, options: RectifiedOptions, deadline: float
    ) -> list[RectifiedFile]:
        """The rectified images, made in a thread if they are large."""
        manifest, source = model.manifest, opened.source
        files = []
        for index in options.indices(manifest):
            if source is None:
                pixels = output.transforms[index].rectified
                work, size = partial(encode_image, pixels, options.format), pixels.shape[0] * pixels.shape[1]
            else:
                shown = opened.shown
                work = partial(rectify, source, output, manifest, index, options, shown, opened.is_opaque)
                size = math.prod(image_size(output.transforms[index].theta, shown.width, shown.height, options))
                self.models.recorder.of_model((model.name, model.version)).rectified(size)
            if size <= IN_PLACE_PIXELS and (source is None or source.size <= IN_PLACE_PIXELS):
                files.append(work())
            else:
                files.append(await self._decoders.before_deadline(self._decoders.in_thread(work), deadline))
        return files
