"""Answers as JSON in the form of `service.schemas`, which the tests hold them to.

Written by hand, as plain dictionaries: validating what we made ourselves costs more than making it.
"""

import base64
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from imaging.fast_codecs import FileFormat
from service.errors import RequestError
from service.inference.engine import Answer
from service.inference.geometry import corners
from service.inference.sampling_grid import sample_points
from service.schemas import ErrorBody, ErrorDetail

OPEN_INFERENCE = "/v2"

JSON = (b"content-type", b"application/json")
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
CLOSE = b"connection: close\r\n"

Json = dict[str, Any]
Header = tuple[bytes, bytes]


class RawResponse(NamedTuple):
    """What is answered to a request."""

    content: bytes
    headers: tuple[Header, ...] = (JSON,)
    """Of its own, besides the length and those that every answer has."""
    status: int = 200
    error: str | None = None
    """Code of the error, if it is one."""


def describe_answer(answer: Answer, top_k: int, rectified: FileFormat | None, total_ms: float) -> Json:
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


def describe_transform(answer: Answer, index: int, rectified: FileFormat | None) -> Json:
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


def error_response(error: RequestError, path: str) -> RawResponse:
    """What is answered to a request of ``path`` that ends in ``error``."""
    headers = ((name.encode(), value.encode()) for name, value in error.headers.items())
    return RawResponse(to_bytes(describe_error(error, path)), (JSON, *headers), error.status, error.code)


def to_http(reply: RawResponse, request_id: str, common: Iterable[Header], *, last: bool = False) -> bytes:
    """``reply`` as it goes over the wire, where the application has no part in it.

    ``common`` headers are the server's; ``last`` says that the connection ends with it.
    """
    headers = b"".join([b"%s: %s\r\n" % header for header in (*common, *reply.headers)])
    return b"%scontent-length: %d\r\nx-request-id: %s\r\nx-content-type-options: nosniff\r\n%s%s\r\n%s" % (
        STATUS_LINES[reply.status],
        len(reply.content),
        request_id.encode(),
        headers,
        CLOSE if last else b"",
        reply.content,
    )
