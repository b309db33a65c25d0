"""Builds the requests and reads the responses of both clients."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.client.errors import AnswerError, BusyError, FileError, RefusedError
from service.schemas import BatchPrediction, ErrorBody, ModelList, Prediction, Status

AnswerType = TypeVar("AnswerType", bound=BaseModel)
Picture = bytes | str | os.PathLike[str]
"""The content of a picture file, or its path."""
BUSY = (429, 503)


class Options(TypedDict, total=False):
    """Options of a prediction. The service has defaults for all."""

    model: str
    version: int
    top_k: int
    rectified: Literal["png", "jpeg", "none"]
    timeout_ms: int
    """Milliseconds after which the service answers with 504."""


@dataclass(frozen=True)
class Call(Generic[AnswerType]):
    """A request and the type of its response."""

    method: str
    path: str
    answer: type[AnswerType]
    request: dict[str, Any] = field(default_factory=dict)
    """Further arguments for httpx."""


def predict(picture: Picture, options: Options) -> Call[Prediction]:
    """Send one picture as the body.

    Raises:
        FileError: the file cannot be read.
    """
    request = {"content": read(picture), "headers": {"Content-Type": "application/octet-stream"}}
    return Call("POST", "/predict", Prediction, with_options(request, options))


def predict_batch(pictures: Iterable[Picture], options: Options) -> Call[BatchPrediction]:
    """Send several pictures as parts of a form.

    Raises:
        FileError: a file cannot be read.
    """
    request = {"files": [("images", (f"{index}", read(picture))) for index, picture in enumerate(pictures)]}
    return Call("POST", "/predict/batch", BatchPrediction, with_options(request, options))


def models() -> Call[ModelList]:
    """Request the list of models."""
    return Call("GET", "/models", ModelList)


def ready() -> Call[Status]:
    """Request whether the service is ready."""
    return Call("GET", "/health/ready", Status)


def with_options(request: dict[str, Any], options: Options) -> dict[str, Any]:
    """Add the options to ``request``, as query parameters and a header."""
    params = dict(options)
    timeout = params.pop("timeout_ms", None)
    headers = request.get("headers", {}) | ({} if timeout is None else {"X-Timeout-Ms": str(timeout)})
    return request | {"params": params, "headers": headers}


def read(picture: Picture) -> bytes:
    """Read a picture file.

    Raises:
        FileError: the file cannot be read.
    """
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {os.fspath(picture)}: {error.strerror or error}") from error


def read_answer(call: Call[AnswerType], response: httpx.Response) -> AnswerType:
    """Read the response to ``call``.

    Raises:
        BusyError: the service answered with 429 or 503.
        RefusedError: the service answered with another error.
        AnswerError: the response is not one of this service.
    """
    try:
        if response.is_success:
            return call.answer.model_validate_json(response.content)
        error = ErrorBody.model_validate_json(response.content).error
    except ValidationError:
        origin = f"{response.status_code} {response.reason_phrase} from {response.request.url}"
        raise AnswerError(f"{origin} is not a response of stn-serve; check the URL and the proxies") from None
    kind = BusyError if response.status_code in BUSY else RefusedError
    raise kind(response.status_code, error.code, error.message)
