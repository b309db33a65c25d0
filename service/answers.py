"""Answers as JSON in the form of `service.schemas`, which the tests hold them to.

Written by hand, as plain dictionaries: validating what we made ourselves costs more than making it.
"""

import base64
from typing import Any

import orjson

from service.engine import Answer
from service.errors import RequestError
from service.geometry import corners
from service.images import Format
from service.schemas import ErrorBody, ErrorDetail

Json = dict[str, Any]


def describe_answer(answer: Answer, top_k: int, rectified: Format | None, total_ms: float) -> Json:
    """A `service.schemas.Prediction`."""
    model, reading = answer.model, answer.reading
    classes = model.manifest.classes
    transforms = [describe_transform(answer, index, rectified) for index in range(len(reading.looks))]
    first = transforms[0]
    description = {
        "model": {"name": model.name, "version": model.version},
        "predictions": [
            {"label": classes[index], "index": index, "probability": probability}
            for index, probability in zip(
                reading.ranking[:top_k].tolist(), reading.probabilities[:top_k].tolist(), strict=True
            )
        ],
        "theta": first["theta"],
        "corners": first["corners"],
        "rectified": first["rectified"],
    }
    if len(transforms) > 1:
        description["transforms"] = transforms
    timings = {name: round(value, 3) for name, value in answer.timings._asdict().items()}
    return description | {
        "batch_size": answer.batch_size,
        "timings_ms": timings | {"total": round(total_ms, 3)},
    }


def describe_transform(answer: Answer, index: int, rectified: Format | None) -> Json:
    """A `service.schemas.TransformResult`."""
    look = answer.reading.looks[index]
    transform = answer.model.manifest.transforms[index]
    height, width, _ = look.rectified.shape
    return {
        "name": transform.name,
        "kind": transform.kind,
        "theta": look.theta,
        "parameters": look.parameters,
        "corners": corners(look.region, answer.width, answer.height),
        "rectified": {
            "format": rectified,
            "width": width,
            "height": height,
            "data": base64.b64encode(answer.rectified[index]).decode(),
        }
        if answer.rectified
        else None,
    }


def describe_error(error: RequestError) -> Json:
    """A `service.schemas.ErrorBody`."""
    return ErrorBody(error=ErrorDetail(code=error.code, message=str(error))).model_dump()


def to_bytes(description: Json) -> bytes:
    """The JSON of a description."""
    return orjson.dumps(description)
