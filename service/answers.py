"""Answers as JSON in the form of `service.schemas`, which the tests hold them to.

Written by hand, as plain dictionaries: validating what we made ourselves costs more than making it.
"""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

from service.engine import Answer
from service.errors import RequestError
from service.geometry import corners
from service.grids import sample_points
from service.images import Format
from service.schemas import ErrorBody, ErrorDetail

OPEN_INFERENCE = "/v2"

Json = dict[str, Any]


def describe_answer(answer: Answer, top_k: int, rectified: Format | None, total_ms: float) -> Json:
    """A `service.schemas.Prediction`."""
    model, reading, times = answer.model, answer.reading, answer.timings
    classes = model.manifest.classes
    ranking, probabilities = reading.ranking[:top_k].tolist(), reading.probabilities[:top_k].tolist()
    transforms = [describe_transform(answer, index, rectified) for index in range(len(reading.looks))]
    main = transforms[answer.model.manifest.main]
    return {
        "model": {"name": model.name, "version": model.version},
        "predictions": [
            {"label": classes[index], "index": index, "probability": probability}
            for index, probability in zip(ranking, probabilities, strict=True)
        ],
        "theta": main["theta"],
        "corners": main["corners"],
        "rectified": main["rectified"],
        **({"transforms": transforms} if len(transforms) > 1 else {}),
        "batch_size": answer.batch_size,
        "timings_ms": {
            "decode": round(times.decode, 3),
            "queue": round(times.queue, 3),
            "inference": round(times.inference, 3),
            "encode": round(times.encode, 3),
            "total": round(total_ms, 3),
        },
    }


def describe_transform(answer: Answer, index: int, rectified: Format | None) -> Json:
    """A `service.schemas.TransformResult`."""
    look = answer.reading.looks[index]
    transform = answer.model.manifest.transforms[index]
    file = None
    if answer.rectified:
        height, width, _ = look.rectified.shape
        data = base64.b64encode(answer.rectified[index]).decode()
        file = {"format": rectified, "width": width, "height": height, "data": data}
    return {
        "name": transform.name,
        "kind": transform.kind,
        "theta": look.theta,
        "parameters": look.parameters,
        "corners": corners(look.region, answer.width, answer.height),
        "rectified": file,
    }


def add_points(description: Json, answer: Answer, side: int) -> None:
    """Where ``side`` x ``side`` points of each rectified image lie in the picture, to what `describe_answer` said."""
    manifest, size = answer.model.manifest, (answer.width, answer.height)
    indices = range(len(manifest.transforms))
    points = [(sample_points(answer.reading, manifest, index, side) * size).tolist() for index in indices]
    description["points"] = points[manifest.main]
    for transform, found in zip(description.get("transforms", ()), points, strict=False):
        transform["points"] = found


def describe_error(error: RequestError, path: str) -> Json:
    """A `service.schemas.ErrorBody`; to requests of paths under /v2 in the form of the Open Inference Protocol."""
    return describe_problem(error.code, str(error), path)


def describe_problem(code: str, message: str, path: str) -> Json:
    """See `describe_error`."""
    if path == OPEN_INFERENCE or path.startswith(f"{OPEN_INFERENCE}/"):
        return {"error": message}
    return ErrorBody(error=ErrorDetail(code=code, message=message)).model_dump()


def to_bytes(description: Json) -> bytes:
    """The JSON of a description."""
    return orjson.dumps(description)


def to_http(error: RequestError, content: bytes, request_id: str, headers: Mapping[str, str]) -> bytes:
    """``error`` as it goes over the wire, of requests that the application never sees; ``content`` describes it."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        f"x-request-id: {request_id}\r\nx-content-type-options: nosniff\r\n{more}\r\n"
    )
    return head.encode() + content
