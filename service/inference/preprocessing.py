"""Uploaded pictures: what `imaging` reads, with its errors as those of requests."""

from typing import NamedTuple

from export.artifact import ImageInput
from imaging.decoding import OpenedImage, open_image
from imaging.errors import DamagedImageError, ImageError, ImageTooLargeError, UnknownFormatError
from imaging.formats import FORMATS, MEDIA_TYPES
from imaging.preprocessing import Picture
from imaging.preprocessing import preprocess as preprocess_image
from service.errors import InvalidImageError, RequestError, TooLargeError, UnsupportedMediaTypeError


class Upload(NamedTuple):
    """A picture as it was sent."""

    data: bytes
    content_type: str | None
    """As declared by the client, without parameters; the bytes decide what it is."""


def open_picture(upload: Upload, max_pixels: int) -> OpenedImage:
    """Read the header of ``upload``, not yet its pixels.

    Raises:
        InvalidImageError: it is empty or damaged.
        UnsupportedMediaTypeError: it is of a kind that is not read.
        TooLargeError: it has more than ``max_pixels`` pixels.
    """
    try:
        return open_image(upload.data, max_pixels)
    except ImageError as error:
        raise request_error(error, upload.content_type) from error


def preprocess(opened: OpenedImage, model_input: ImageInput) -> Picture:
    """Decode an opened picture and bring it to what the model takes.

    Raises:
        InvalidImageError: the pixels are damaged or cut short.
        UnsupportedMediaTypeError: they are of a kind that has no agreed meaning.
    """
    try:
        return preprocess_image(opened, model_input)
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
