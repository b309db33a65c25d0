"""What is sent for each question, and how its answer is read; the same for both clients."""

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
    """What may be asked of a prediction; the service chooses what is left out."""

    model: str
    version: int
    top_k: int
    rectified: Literal["png", "jpeg", "none"]
    timeout_ms: int
    """After this time the service gives up, with 504."""


@dataclass(frozen=True)
class Call(Generic[AnswerType]):
    """A request, and the type of its answer."""

    method: str
    path: str
    answer: type[AnswerType]
    request: dict[str, Any] = field(default_factory=dict)
    """More arguments for httpx."""


def predict(picture: Picture, options: Options) -> Call[Prediction]:
    """One picture, as the body itself.

    Raises:
        FileError: the file cannot be read.
    """
    request = {"content": read(picture), "headers": {"Content-Type": "application/octet-stream"}}
    return Call("POST", "/predict", Prediction, with_options(request, options))


def predict_batch(pictures: Iterable[Picture], options: Options) -> Call[BatchPrediction]:
    """Several pictures, as parts of a form.

    Raises:
        FileError: a file cannot be read.
    """
    request = {"files": [("images", (f"{index}", read(picture))) for index, picture in enumerate(pictures)]}
    return Call("POST", "/predict/batch", BatchPrediction, with_options(request, options))


def models() -> Call[ModelList]:
    """What is served."""
    return Call("GET", "/models", ModelList)


def ready() -> Call[Status]:
    """Whether the service is ready."""
    return Call("GET", "/health/ready", Status)


def with_options(request: dict[str, Any], options: Options) -> dict[str, Any]:
    """``request`` with the options where they belong: one is a header."""
    params = dict(options)
    timeout = params.pop("timeout_ms", None)
    headers = request.get("headers", {}) | ({} if timeout is None else {"X-Timeout-Ms": str(timeout)})
    return request | {"params": params, "headers": headers}


def read(picture: Picture) -> bytes:
    """The content of a picture file.

    Raises:
        FileError: it cannot be read.
    """
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {os.fspath(picture)}: {error.strerror or error}") from error


def understand(call: Call[AnswerType], response: httpx.Response) -> AnswerType:
    """The answer to ``call``.

    Raises:
        BusyError: 429 or 503.
        RefusedError: another error of the service.
        AnswerError: not an answer of this service.
    """
    try:
        if response.is_success:
            return call.answer.model_validate_json(response.content)
        error = ErrorBody.model_validate_json(response.content).error
    except ValidationError:
        what = f"{response.status_code} {response.reason_phrase} from {response.request.url}"
        raise AnswerError(f"{what} is no answer of stn-serve; check the URL and what stands in between") from None
    kind = BusyError if response.status_code in BUSY else RefusedError
    raise kind(response.status_code, error.code, error.message)
