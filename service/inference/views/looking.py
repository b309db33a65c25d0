"""Infers pictures together: several of a request, or one with its views and a second look."""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from imaging.preprocessing import Picture
from imaging.views import Floats, Pixels, make_views, view_maps
from service.errors import InvalidParameterError, RequestError
from service.inference.batcher import Inference
from service.inference.decoders import IN_PLACE_PIXELS, Decoders
from service.inference.outputs import ModelOutput, finite_output
from service.inference.registry import Model
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import Reliability, after_second_look, average, measure_reliability
from service.inference.views.second_look import combine, second_frame
from service.metrics.recorder import ModelMetrics
from service.request_context import queued_s, track_future


async def infer_views(
    model: Model, opened: Picture, views: ViewOptions, decoders: Decoders, counts: ModelMetrics, deadline: float
) -> tuple[Inference[ModelOutput], Reliability | None]:
    """Infer a picture and its views together, and look again where they say that the corners are not reliable.

    A second look needs time: half of what is left until the ``deadline`` must be more than the views took.

    Raises:
        InvalidParameterError: reliability is wanted of a model that has a frame for each object of a sequence.
        RequestError: see `infer_together`.
    """
    if views.reliability and model.manifest.shows_each:
        raise InvalidParameterError(
            f"reliability is that of one frame, and {model.name} has one for each object of a sequence; leave it out"
        )
    width, height = opened.shown.width, opened.shown.height
    maps = view_maps(views.needed, width / height)
    counts.viewed(views.needed)
    began = perf_counter()
    changed = await sample(opened.pixels, maps, decoders, deadline)
    found = await infer_together(model, [opened.pixels, *changed], deadline, has_views=True)
    output, *seen = [finite_output(each.value) for each in found]
    if views.averaged:
        output = average(model.manifest, output, seen[: views.averaged])
    reliability = None
    if views.reliability:
        shown = slice(views.reliability)
        reliability = measure_reliability(model.manifest, output, seen[shown], maps[shown], width, height)
        frame, now = second_frame(model.manifest, output, reliability), perf_counter()
        limit = now + (deadline - now) / 2
        if frame is not None and now + (now - began) < limit:
            second = await look_again(model, opened, frame, decoders, limit)
            if second is not None:
                counts.looked_again()
                output = combine(model.manifest, output, second, frame)
                reliability = after_second_look(model.manifest, output, reliability, width, height)
    return found[0]._replace(value=output), reliability


async def look_again(
    model: Model, opened: Picture, frame: Floats, decoders: Decoders, limit: float
) -> ModelOutput | None:
    """Infer a picture as seen through ``frame`` ``(2, 3)``; None if that fails, or takes until after ``limit``."""
    try:
        (pixels,) = await sample(opened.pixels, frame[None], decoders, limit)
        inference = await track_future(model.batcher.submit(pixels, limit, is_view=True))
        return finite_output(inference.value)
    except RequestError:  # the first look is an answer too
        return None


async def sample(pixels: Pixels, maps: Floats, decoders: Decoders, deadline: float) -> Pixels:
    """Make views of a picture, in a thread if they have many pixels; see `make_views`."""
    work = partial(make_views, pixels, maps)
    if pixels.shape[0] * pixels.shape[1] * len(maps) <= IN_PLACE_PIXELS:
        return work()
    return await decoders.before_deadline(decoders.in_thread(work), deadline)


async def infer_together(
    model: Model, pictures: Sequence[NDArray[np.uint8]], deadline: float, *, has_views: bool = False
) -> list[Inference[ModelOutput]]:
    """Infer ``pictures`` ``(H, W, C)`` in the same batches. With ``has_views``, all but the first are views of it.

    Raises:
        RequestError: the deadline has passed, or the model failed.
    """
    queued = queued_s()
    answers = [
        track_future(model.batcher.submit(picture, deadline, queued, is_view=has_views and number > 0))
        for number, picture in enumerate(pictures)
    ]
    # Exceptions are returned as results, so that each of several is retrieved.
    inferences = await asyncio.gather(*answers, return_exceptions=True)
    found: list[Inference[ModelOutput]] = []
    try:
        for inference in inferences:
            if isinstance(inference, BaseException):
                raise inference
            found.append(inference)
        return found
    finally:
        del answers, inferences, inference  # an error refers to this frame: the cycle would keep the pictures alive
