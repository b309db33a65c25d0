"""Infers pictures together: several of a request, or one with its views."""

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imaging.preprocessing import Picture
from imaging.views import make_views, view_maps
from service.inference.batcher import Inference
from service.inference.decoding import IN_PLACE_PIXELS, Decoders
from service.inference.outputs import ModelOutput, finite_output
from service.inference.registry import Model
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import Reliability, average, measure_reliability
from service.request_context import queued_s, track_future


async def infer_views(
    model: Model, opened: Picture, views: ViewOptions, decoders: Decoders, deadline: float
) -> tuple[Inference[ModelOutput], Reliability | None]:
    """Infer a picture and its views together; return what they say of the picture.

    Raises:
        RequestError: see `infer_together`.
    """
    width, height = opened.shown.width, opened.shown.height
    maps = view_maps(views.needed, width / height)
    work = partial(make_views, opened.pixels, maps)
    if opened.pixels.shape[0] * opened.pixels.shape[1] * views.needed <= IN_PLACE_PIXELS:
        changed = work()
    else:
        changed = await decoders.before_deadline(decoders.in_thread(work), deadline)
    found = await infer_together(model, [opened.pixels, *changed], deadline, has_views=True)
    output, *seen = [finite_output(each.value) for each in found]
    if views.averaged:
        output = average(model.manifest, output, seen[: views.averaged])
    reliability = None
    if views.reliability:
        shown = slice(views.reliability)
        reliability = measure_reliability(model.manifest, output, seen[shown], maps[shown], width, height)
    return found[0]._replace(value=output), reliability


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
