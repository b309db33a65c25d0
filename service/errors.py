"""Everything the service can answer but a prediction, and everything that can stop it from starting.

ServiceError                  base class
├── StartError                the service cannot start: one line, exit code 1
│   ├── SettingsError         an unknown or wrong setting
│   ├── ModelLoadError        an artifact cannot be loaded, or does not answer as it should
│   ├── DeviceError           the device asked for is not there
│   └── AddressError          the host and port cannot be listened on
└── RequestError              answered as {"error": {"code", "message"}} with the status below
    ├── BadPictureError       400 undecodable, truncated or empty
    ├── BadBodyError          400 the body around the picture cannot be parsed
    ├── BadRequestError       400 not HTTP
    ├── LoadFailedError       400 a model cannot be loaded while others are served
    ├── NoKeyError            401 no key, or none that is known
    ├── ForbiddenError        403 not with this key
    ├── UnknownModelError     404 no such model or version
    ├── TooSlowError          408 the request did not arrive in time
    ├── TooLargeError         413 too many bytes, pixels or pictures
    ├── NotAPictureError      415 another type of content
    ├── UnknownEncodingError  415 the body is compressed in a way that is not taken
    ├── BadOptionError        422 an option or field is unknown or wrong
    ├── QueueFullError        429 more is waiting than may
    ├── TooOftenError         429 more requests than the client may make
    ├── HeadTooLargeError     431 too many headers, or too long ones
    ├── ModelFailedError      500 the model raised or gave what is no answer
    ├── InternalError         500 a defect of the service
    ├── NotReadyError         503 shutting down, or a model that hangs
    └── TimeIsUpError         504 the answer was not ready in time
"""

from collections.abc import Mapping
from typing import ClassVar


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


class BadPictureError(RequestError):
    """The bytes are meant to be a picture but cannot be decoded."""

    status = 400
    code = "bad_picture"


class BadBodyError(RequestError):
    """The multipart or JSON body cannot be parsed."""

    status = 400
    code = "bad_body"


class BadRequestError(RequestError):
    """What arrived is not HTTP."""

    status = 400
    code = "bad_request"


class LoadFailedError(RequestError):
    """A model cannot be loaded; what was served before still is."""

    status = 400
    code = "load_failed"


class NoKeyError(RequestError):
    """A key is needed, and there is none or one that is not known."""

    status = 401
    code = "no_key"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="stn-serve"'}


class ForbiddenError(RequestError):
    """What the client wants is not allowed, or not with its key."""

    status = 403
    code = "forbidden"


class UnknownModelError(RequestError):
    """There is no model of that name and version."""

    status = 404
    code = "unknown_model"


class TooSlowError(RequestError):
    """The request did not arrive whole within the time that it may take."""

    status = 408
    code = "too_slow"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class TooLargeError(RequestError):
    """More bytes, pixels or pictures than the service takes."""

    status = 413
    code = "too_large"


class NotAPictureError(RequestError):
    """The content is of a type that is no picture."""

    status = 415
    code = "not_a_picture"


class UnknownEncodingError(RequestError):
    """The body is compressed in a way that the service does not take."""

    status = 415
    code = "unknown_encoding"


class BadOptionError(RequestError):
    """An option or field of the request is unknown or has a wrong value."""

    status = 422
    code = "bad_option"


class QueueFullError(RequestError):
    """As many pictures are waiting as may; try again a little later."""

    status = 429
    code = "queue_full"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class TooOftenError(RequestError):
    """The client has made as many requests as it may for now; `Retry-After` says when it may again."""

    status = 429
    code = "too_often"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # of this one alone


class HeadTooLargeError(RequestError):
    """The request has too many headers, or too long ones."""

    status = 431
    code = "head_too_large"
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class ModelFailedError(RequestError):
    """The model raised an error or gave something that is no answer."""

    status = 500
    code = "model_failed"


class InternalError(RequestError):
    """The service has a defect."""

    status = 500
    code = "internal"


class NotReadyError(RequestError):
    """The service is shutting down, or its model does not answer any more."""

    status = 503
    code = "not_ready"


class TimeIsUpError(RequestError):
    """The answer was not ready within the time that the service or the request allows."""

    status = 504
    code = "time_is_up"
