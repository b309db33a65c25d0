"""All errors of the service: those that stop its start, those that end scoring, and those that answer a request.

ServiceError                          base class
├── StartError                        the service cannot start: one line, exit code 1
│   ├── SettingsError                 a setting is unknown or wrong
│   ├── ModelLoadError                an artifact cannot be loaded, or gives wrong outputs
│   ├── MirrorError                   models at a URL cannot be copied to this machine
│   ├── DeviceError                   the requested device is missing
│   └── AddressError                  the host and port cannot be used
├── CaptureError                      pictures of a model cannot be captured; logged
├── ScoreError                        scoring many pictures cannot begin or go on: one line, exit code 1
│   ├── InputError                    the input cannot be read, or has no pictures
│   └── OutputError                   the answers cannot be written where they should be
└── RequestError                      answered as {"error": {"code", "message"}} with a status
    ├── InvalidImageError         400 the picture is damaged, truncated or empty
    ├── InvalidBodyError          400 the body around the picture cannot be parsed
    ├── BadRequestError           400 not HTTP
    ├── LoadFailedError           400 a model cannot be loaded while others are served
    ├── UnauthorizedError         401 no key, or an unknown one
    ├── ForbiddenError            403 the key does not allow it
    ├── ModelNotFoundError        404 no such model or version
    ├── NotAcceptableError        406 the response cannot have any of the requested types
    ├── RequestTimeoutError       408 the request did not arrive in time
    ├── ConflictError             409 what was asked for does not fit the present state
    ├── TooLargeError             413 too many bytes, pixels or pictures
    ├── UnsupportedMediaTypeError 415 another type of content
    ├── UnsupportedEncodingError  415 another compression of the body
    ├── InvalidParameterError     422 an option or field is unknown or wrong
    ├── QueueFullError            429 too many pictures in flight
    ├── RateLimitedError          429 too many requests of the client
    ├── HeadTooLargeError         431 too many or too long headers
    ├── InferenceFailedError      500 the model failed
    ├── InternalError             500 a defect of the service
    ├── NotReadyError             503 shutting down, or the model hangs
    └── DeadlineExceededError     504 the prediction was not ready in time
"""

from collections.abc import Mapping
from typing import ClassVar

MAX_MESSAGE = 1000
"""Characters of a message in a response, which may quote content of the client."""


def shorten(text: str, limit: int) -> str:
    """Shorten ``text`` to ``limit`` characters by its middle, since the cure is at the end."""
    if len(text) <= limit:
        return text
    left_out = " ... "
    end = (limit - len(left_out)) // 3
    return text[: limit - len(left_out) - end] + left_out + text[len(text) - end :]


class ServiceError(Exception):
    """Base class. The message names the problem and its cure."""


class StartError(ServiceError):
    """The service cannot start."""


class SettingsError(StartError):
    """A setting is unknown or has a wrong value."""


class ModelLoadError(StartError):
    """A model cannot be loaded, or its warm-up gave wrong outputs."""


class MirrorError(StartError):
    """Models at a URL cannot be copied to this machine."""


class DeviceError(StartError):
    """The requested device cannot be used."""


class AddressError(StartError):
    """The address cannot be listened on."""


class CaptureError(ServiceError):
    """Pictures of a model cannot be captured."""


class ScoreError(ServiceError):
    """Scoring many pictures cannot begin or go on. What is written stays, and the next run goes on from there."""


class InputError(ScoreError):
    """The input cannot be read, or has no pictures."""


class OutputError(ScoreError):
    """The answers cannot be written, or the folder holds those of another run."""


class RequestError(ServiceError):
    """A request cannot be answered with a prediction."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str) -> None:
        super().__init__(shorten(message, MAX_MESSAGE))


class InvalidImageError(RequestError):
    """The picture cannot be decoded."""

    status = 400
    code = "invalid_image"


class InvalidBodyError(RequestError):
    """The multipart or JSON body cannot be parsed."""

    status = 400
    code = "invalid_body"


class BadRequestError(RequestError):
    """The request is not valid HTTP."""

    status = 400
    code = "bad_request"


class LoadFailedError(RequestError):
    """A model cannot be loaded. The versions that were served before still are."""

    status = 400
    code = "load_failed"


class UnauthorizedError(RequestError):
    """A key is required, and the request has none or an unknown one."""

    status = 401
    code = "unauthorized"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="stn-serve"'}


class ForbiddenError(RequestError):
    """The request is not allowed, or not with this key."""

    status = 403
    code = "forbidden"


class ModelNotFoundError(RequestError):
    """There is no model of that name and version."""

    status = 404
    code = "model_not_found"


class NotAcceptableError(RequestError):
    """The response cannot have any of the types that the header Accept lists."""

    status = 406
    code = "not_acceptable"


class RequestTimeoutError(RequestError):
    """The request did not arrive completely in time."""

    status = 408
    code = "request_timeout"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class ConflictError(RequestError):
    """What was asked for does not fit the present state, which may have changed meanwhile."""

    status = 409
    code = "conflict"


class TooLargeError(RequestError):
    """The request has too many bytes, pixels or pictures."""

    status = 413
    code = "too_large"


class UnsupportedMediaTypeError(RequestError):
    """The content is of a type that is not supported."""

    status = 415
    code = "unsupported_media_type"


class UnsupportedEncodingError(RequestError):
    """The compression of the body is not supported."""

    status = 415
    code = "unsupported_encoding"


class InvalidParameterError(RequestError):
    """An option or field of the request is unknown or has a wrong value."""

    status = 422
    code = "invalid_parameter"


class QueueFullError(RequestError):
    """Too many pictures are in flight; `Retry-After` is the wait in seconds."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # differs by instance


class RateLimitedError(RequestError):
    """The client has sent too many requests; `Retry-After` is the wait in seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # differs by instance


class HeadTooLargeError(RequestError):
    """The request has too many or too long headers."""

    status = 431
    code = "head_too_large"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class InferenceFailedError(RequestError):
    """The model raised an error or returned values that are not finite."""

    status = 500
    code = "inference_failed"


class InternalError(RequestError):
    """The service has a defect. Its log has the traceback."""

    status = 500
    code = "internal"

    def __init__(self) -> None:
        super().__init__("the service has a defect; its log has the traceback")


class NotReadyError(RequestError):
    """The service is shutting down, or its model hangs."""

    status = 503
    code = "not_ready"


class DeadlineExceededError(RequestError):
    """The prediction was not ready within the time that the service or the request allows."""

    status = 504
    code = "deadline_exceeded"


STOPPED = NotReadyError("the service has stopped; send the request to another instance")
