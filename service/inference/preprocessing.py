"""Uploaded pictures: what `imaging` reads, with its errors as those of requests."""

from typing import NamedTuple

from imaging.decoding import ExaminedImage, examine_image, open_examined
from imaging.errors import DamagedImageError, ImageError, ImageTooLargeError, UnknownFormatError
from imaging.formats.signatures import FORMATS, MEDIA_TYPES
from imaging.limits.limits import Limits
from imaging.preprocessing import InputSpec, Picture
from imaging.preprocessing import preprocess as preprocess_image
from service.errors import InvalidImageError, RequestError, TooLargeError, UnsupportedMediaTypeError


class Upload(NamedTuple):
    """A picture as it was sent."""

    data: bytes
    content_type: str | None
    """As declared by the client, without parameters; the bytes decide what it is."""


class Target(NamedTuple):
    """An `imaging.preprocessing.InputSpec` that is quickly sent to another process."""

    height: int
    width: int
    channels: int
    background: tuple[int, ...]


def examine_picture(upload: Upload, limits: Limits) -> ExaminedImage:
    """Tell the format of ``upload`` and the cost of decoding it.

    Raises:
        InvalidImageError: it is empty.
        UnsupportedMediaTypeError: it is of a kind that is not read.
        TooLargeError: it is beyond the ``limits``.
    """
    try:
        return examine_image(upload.data, limits)
    except ImageError as error:
        raise request_error(error, upload.content_type) from error


def preprocess(examined: ExaminedImage, target: InputSpec) -> Picture:
    """Decode an examined picture and bring it to what the model takes.

    Raises:
        InvalidImageError: it is damaged or cut short.
        UnsupportedMediaTypeError: it is of a kind that has no agreed meaning.
    """
    try:
        return preprocess_image(open_examined(examined), target)
    except ImageError as error:
        raise request_error(error) from error


def request_error(error: ImageError, content_type: str | None = None) -> RequestError:
    """``error`` as the answer to a request whose client declared ``content_type``."""
    if isinstance(error, DamagedImageError):
        return InvalidImageError(str(error))
    if isinstance(error, ImageTooLargeError):
        return TooLargeError(str(error))
    if isinstance(error, UnknownFormatError) and content_type in MEDIA_TYPES:
        return InvalidImageError(f"the bytes sent as {content_type} are not {FORMATS}; is the file whole?")
    return UnsupportedMediaTypeError(str(error))
