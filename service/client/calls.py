"""Builds the requests and reads the responses of both clients."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx
from pydantic import BaseModel

from service.client.errors import AnswerError, BusyError, FileError, RefusedError
from service.client.rectified import Format, RectifiedPicture, read_rectified
from service.schemas.answers import BatchPrediction, ErrorBody, Prediction, RegionPredictions
from service.schemas.models import ModelList, Status
from service.schemas.options import Padding

AnswerType = TypeVar("AnswerType")
SchemaType = TypeVar("SchemaType", bound=BaseModel)
Picture = bytes | str | os.PathLike[str]
"""The content of a picture file, or its path."""
Region = Sequence[float]
"""Left, top, right and bottom in pixels of the picture, upright."""
BUSY = (429, 503)


class CommonOptions(TypedDict, total=False):
    """Options of all requests with pictures."""

    model: str
    version: int
    rectified_size: str
    """``model``, ``source``, or height x width like ``600x800``."""
    padding: Padding
    margin: float
    reliability: int
    """Views of the picture, 4 to 16, from which the reliability of the answer is told."""
    views: int
    """Views of the picture, 4 to 16, over which the probabilities are averaged."""
    angle_hint: float
    """Degrees, clockwise, by which the thing in the picture is known to be turned, roughly."""
    timeout_ms: int
    """Milliseconds after which the service answers with 504."""


class RectifyOptions(CommonOptions, total=False):
    """Options of a rectified picture. The service has defaults for all."""

    rectified: Format
    """By default the format of the uploaded picture, or PNG."""
    region: Region
    """The only part of the picture that the model is shown."""


class Options(CommonOptions, total=False):
    """Options of a prediction. The service has defaults for all."""

    top_k: int
    rectified: Literal["png", "jpeg", "webp", "none"]
    points: int


class StreamOptions(Options, total=False):
    """Options of a stream, which hold for each of its frames."""

    regions: Sequence[Region]
    """The only parts of each frame that the model is shown, which are answered one by one."""


@dataclass(frozen=True)
class Call(Generic[AnswerType]):
    """A request, and how its response is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], AnswerType]
    """Raises ValueError for what is no response of this service."""
    request: dict[str, Any] = field(default_factory=dict)
    """Further arguments for httpx."""


def predict(picture: Picture, options: Options) -> Call[Prediction]:
    """Send one picture as the body.

    Raises:
        FileError: the file cannot be read.
    """
    return Call("POST", "/predict", as_schema(Prediction), with_options(body_of(picture), options))


def predict_regions(picture: Picture, regions: Iterable[Region], options: Options) -> Call[RegionPredictions]:
    """Send one picture as the body, to be answered for each of its regions.

    Raises:
        FileError: the file cannot be read.
    """
    request = with_options(body_of(picture), options)
    params = request["params"] | {"region": [as_text(region) for region in regions] or ""}
    return Call("POST", "/predict", as_schema(RegionPredictions), request | {"params": params})


def rectify(picture: Picture, options: RectifyOptions) -> Call[RectifiedPicture]:
    """Send one picture as the body, to be answered with a picture.

    Raises:
        FileError: the file cannot be read.
    """
    request = with_options(body_of(picture), options)
    headers = request["headers"] | {"Accept": "image/*"}
    region = {"region": as_text(options["region"])} if "region" in options else {}
    params = request["params"] | region
    return Call("POST", "/rectify", read_rectified, request | {"headers": headers, "params": params})


def predict_batch(pictures: Iterable[Picture], options: Options) -> Call[BatchPrediction]:
    """Send several pictures as parts of a form.

    Raises:
        FileError: a file cannot be read.
    """
    request = {"files": [("images", (f"{index}", read(picture))) for index, picture in enumerate(pictures)]}
    return Call("POST", "/predict/batch", as_schema(BatchPrediction), with_options(request, options))


def models() -> Call[ModelList]:
    """Request the list of models."""
    return Call("GET", "/models", as_schema(ModelList))


def ready() -> Call[Status]:
    """Request whether the service is ready."""
    return Call("GET", "/health/ready", as_schema(Status))


def as_schema(schema: type[SchemaType]) -> Callable[[httpx.Response], SchemaType]:
    """Read JSON of a ``schema``."""
    return lambda response: schema.model_validate_json(response.content)


def body_of(picture: Picture) -> dict[str, Any]:
    """The arguments of a request whose body is a picture file."""
    return {"content": read(picture), "headers": {"Content-Type": "application/octet-stream"}}


def as_text(region: Region) -> str:
    """A region as the service takes it; it refuses what is none."""
    return ",".join(str(float(side)) for side in region)


def with_options(request: dict[str, Any], options: CommonOptions) -> dict[str, Any]:
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
            return call.read(response)
        error = ErrorBody.model_validate_json(response.content).error
    except ValueError:
        origin = f"{response.status_code} {response.reason_phrase} from {response.request.url}"
        raise AnswerError(f"{origin} is not a response of stn-serve; check the URL and the proxies") from None
    kind = BusyError if response.status_code in BUSY else RefusedError
    raise kind(response.status_code, error.code, error.message)
