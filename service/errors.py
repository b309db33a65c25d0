"""Everything the service can answer but a prediction, and everything that can stop it from starting.

ServiceError                  base class
├── StartError                the service cannot start: one line, exit code 1
│   ├── SettingsError         an unknown or wrong setting
│   ├── ModelLoadError        an artifact cannot be loaded, or does not answer as it should
│   ├── DeviceError           the device asked for is not there
│   └── AddressError          the host and port cannot be listened on
└── RequestError              answered as {"error": {"code", "message"}} with the status below
    ├── InvalidImageError       400 undecodable, truncated or empty
    ├── InvalidBodyError          400 the body around the picture cannot be parsed
    ├── BadRequestError       400 not HTTP
    ├── LoadFailedError       400 a model cannot be loaded while others are served
    ├── UnauthorizedError            401 no key, or none that is known
    ├── ForbiddenError        403 not with this key
    ├── ModelNotFoundError     404 no such model or version
    ├── RequestTimeoutError          408 the request did not arrive in time
    ├── TooLargeError         413 too many bytes, pixels or pictures
    ├── UnsupportedMediaTypeError      415 another type of content
    ├── UnsupportedEncodingError  415 the body is compressed in a way that is not taken
    ├── InvalidParameterError        422 an option or field is unknown or wrong
    ├── QueueFullError        429 more is waiting than may
    ├── RateLimitedError         429 more requests than the client may make
    ├── HeadTooLargeError     431 too many headers, or too long ones
    ├── InferenceFailedError      500 the model raised or gave what is no answer
    ├── InternalError         500 a defect of the service
    ├── NotReadyError         503 shutting down, or a model that hangs
    └── DeadlineExceededError         504 the answer was not ready in time
"""

from collections.abc import Mapping
from typing import ClassVar

MAX_MESSAGE = 1000
"""Characters of a message that is answered: what a client sent is not repeated at length."""


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters: its middle is left out, since the cure stands at the end."""
    if len(text) <= limit:
        return text
    left_out = " ... "
    end = (limit - len(left_out)) // 3
    return text[: limit - len(left_out) - end] + left_out + text[len(text) - end :]


class ServiceError(Exception):
    """Base class; the message says what is wrong and what to do about it."""


class StartError(ServiceError):
    """The service cannot start."""


class SettingsError(StartError):
    """A setting is unknown or has a wrong value."""


class ModelLoadError(StartError):
    """A model cannot be loaded, or its warm-up did not give what it should."""


class DeviceError(StartError):
    """The device asked for cannot be used."""


class AddressError(StartError):
    """The address cannot be listened on."""


class RequestError(ServiceError):
    """A request cannot be answered with a prediction."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str) -> None:
        super().__init__(shorten(message, MAX_MESSAGE))


class InvalidImageError(RequestError):
    """The bytes are meant to be a picture but cannot be decoded."""

    status = 400
    code = "invalid_image"


class InvalidBodyError(RequestError):
    """The multipart or JSON body cannot be parsed."""

    status = 400
    code = "invalid_body"


class BadRequestError(RequestError):
    """What arrived is not HTTP."""

    status = 400
    code = "bad_request"


class LoadFailedError(RequestError):
    """A model cannot be loaded; what was served before still is."""

    status = 400
    code = "load_failed"


class UnauthorizedError(RequestError):
    """A key is needed, and there is none or one that is not known."""

    status = 401
    code = "unauthorized"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="stn-serve"'}


class ForbiddenError(RequestError):
    """What the client wants is not allowed, or not with its key."""

    status = 403
    code = "forbidden"


class ModelNotFoundError(RequestError):
    """There is no model of that name and version."""

    status = 404
    code = "model_not_found"


class RequestTimeoutError(RequestError):
    """The request did not arrive whole within the time that it may take."""

    status = 408
    code = "request_timeout"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class TooLargeError(RequestError):
    """More bytes, pixels or pictures than the service takes."""

    status = 413
    code = "too_large"


class UnsupportedMediaTypeError(RequestError):
    """The content is of a type that is no picture."""

    status = 415
    code = "unsupported_media_type"


class UnsupportedEncodingError(RequestError):
    """The body is compressed in a way that the service does not take."""

    status = 415
    code = "unsupported_encoding"


class InvalidParameterError(RequestError):
    """An option or field of the request is unknown or has a wrong value."""

    status = 422
    code = "invalid_parameter"


class QueueFullError(RequestError):
    """As many pictures are waiting as may; `Retry-After` says when there will be room again."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # of this one alone


class RateLimitedError(RequestError):
    """The client has made as many requests as it may for now; `Retry-After` says when it may again."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # of this one alone


class HeadTooLargeError(RequestError):
    """The request has too many headers, or too long ones."""

    status = 431
    code = "head_too_large"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class InferenceFailedError(RequestError):
    """The model raised an error or gave something that is no answer."""

    status = 500
    code = "inference_failed"


class InternalError(RequestError):
    """The service has a defect."""

    status = 500
    code = "internal"


class NotReadyError(RequestError):
    """The service is shutting down, or its model does not answer any more."""

    status = 503
    code = "not_ready"


class DeadlineExceededError(RequestError):
    """The answer was not ready within the time that the service or the request allows."""

    status = 504
    code = "deadline_exceeded"


STOPPED = NotReadyError("the service has stopped; send the request to another instance")
