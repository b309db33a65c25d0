"""Preprocesses uploads with `imaging`, whose errors become errors of requests."""

from collections.abc import Sequence
from typing import NamedTuple

from imaging.crops import Box
from imaging.decoding import ExaminedImage, examine_image, open_examined
from imaging.errors import (
    DamagedImageError,
    ImageError,
    ImageTooLargeError,
    RegionOutsideError,
    UnknownFormatError,
)
from imaging.formats.signatures import FORMATS, MEDIA_TYPES
from imaging.limits.limits import Limits
from imaging.preprocessing import InputSpec, Picture, preprocess_crops
from imaging.preprocessing import preprocess as preprocess_image
from service.errors import (
    InvalidImageError,
    InvalidParameterError,
    RequestError,
    TooLargeError,
    UnsupportedMediaTypeError,
)


class Upload(NamedTuple):
    """A picture file as it was sent."""

    data: bytes
    content_type: str | None
    """The type that the client declared, without parameters. The content decides about the format."""


class Target(NamedTuple):
    """An `imaging.preprocessing.InputSpec` that is cheap to send to another process."""

    height: int
    width: int
    channels: int
    background: tuple[int, ...]


def examine_picture(upload: Upload, limits: Limits) -> ExaminedImage:
    """Determine the format of ``upload`` and the cost of decoding it.

    Raises:
        InvalidImageError: the file is empty.
        UnsupportedMediaTypeError: the format is not supported.
        TooLargeError: the picture exceeds the ``limits``.
    """
    try:
        return examine_image(upload.data, limits)
    except ImageError as error:
        raise request_error(error, upload.content_type) from error


def preprocess(examined: ExaminedImage, target: InputSpec, keep: bool = False) -> Picture:
    """Decode an examined picture and convert it to the input of a model; ``keep`` keeps the whole picture too.

    Raises:
        InvalidImageError: the file is damaged or truncated.
        UnsupportedMediaTypeError: the pixel format is not supported.
    """
    try:
        return preprocess_image(open_examined(examined), target, keep)
    except ImageError as error:
        raise request_error(error) from error


def preprocess_regions(
    examined: ExaminedImage, target: InputSpec, keep: bool, regions: Sequence[Box], max_pixels: int, turn: float
) -> list[Picture]:
    """Decode an examined picture once and convert each of its ``regions``, which have ``max_pixels`` together at most.

    Without regions, the whole picture is converted. All are turned back by ``turn`` degrees.

    Raises:
        InvalidParameterError: a region lies outside of the picture.
        TooLargeError: the regions have more pixels.
        RequestError: see `preprocess`.
    """
    try:
        return preprocess_crops(open_examined(examined), target, regions, max_pixels, keep, turn)
    except ImageError as error:
        raise request_error(error) from error


def request_error(error: ImageError, content_type: str | None = None) -> RequestError:
    """Convert ``error`` to the error of a request whose client declared ``content_type``."""
    if isinstance(error, DamagedImageError):
        return InvalidImageError(str(error))
    if isinstance(error, ImageTooLargeError):
        return TooLargeError(str(error))
    if isinstance(error, RegionOutsideError):
        return InvalidParameterError(str(error))
    if isinstance(error, UnknownFormatError) and content_type in MEDIA_TYPES:
        return InvalidImageError(f"the bytes sent as {content_type} are not {FORMATS}; is the file complete?")
    return UnsupportedMediaTypeError(str(error))
