"""Pictures: from what a client sent to what a model takes, and from the rectified image to what a client gets."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from export.artifact import ImageInput
from service.errors import InvalidImageError, RequestError, TooLargeError, UnsupportedMediaTypeError
from service.imaging.fast_codecs import Plain, decode, encode_png, look

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; `open_picture` refuses above ours.

SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "WEBP": (b"RIFF",),
}
"""How files of each format begin; WebP is told from other RIFF files by its ninth to twelfth byte."""

FORMATS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
MEDIA_TYPES = {"image/jpg", "image/x-ms-bmp", *(f"image/{name.lower()}" for name in SIGNATURES)}
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""

JPEG_QUALITY = 90
WHITE_16_BIT = 65535

Format = Literal["png", "jpeg"]


class Upload(NamedTuple):
    """A picture as it was sent."""

    data: bytes
    content_type: str | None
    """As declared by the client, without parameters."""


class Picture(NamedTuple):
    """A picture as a model takes it."""

    pixels: NDArray[np.uint8]
    """``(H, W, C)`` of the model's input."""
    width: int
    height: int
    """Of the uploaded picture, upright, in its own pixels."""


class Opened(NamedTuple):
    """A picture whose header was read, and not yet its pixels."""

    upload: Upload
    width: int
    height: int
    """As stored, before its orientation is considered."""
    image: Plain | Image.Image


def open_picture(upload: Upload, max_pixels: int) -> Opened:
    """Read the header of ``upload``, not yet its pixels.

    Raises:
        InvalidImageError: it is empty or damaged.
        UnsupportedMediaTypeError: it is no picture of a known format.
        TooLargeError: it has more than ``max_pixels`` pixels.
    """
    image = look(upload.data) or open_with_pillow(upload)
    if image.width * image.height > max_pixels:
        raise TooLargeError(
            f"the picture has {image.width} x {image.height} pixels, at most {max_pixels} are taken; scale it down"
        )
    return Opened(upload, image.width, image.height, image)


def open_with_pillow(upload: Upload) -> Image.Image:
    """See `open_picture`."""
    data = upload.data
    if not data:
        raise InvalidImageError("the picture is empty; was the file read before it was sent?")
    picture_format = sniff(data)
    if picture_format is None:
        if upload.content_type in MEDIA_TYPES:
            raise InvalidImageError(f"the bytes sent as {upload.content_type} are not {FORMATS}; is the file whole?")
        raise UnsupportedMediaTypeError(f"this is not a picture of a format that is taken; send {FORMATS}")
    with reporting_damage(picture_format):
        return Image.open(io.BytesIO(data), formats=[picture_format])


def preprocess(opened: Opened, model_input: ImageInput) -> Picture:
    """Decode an opened picture and bring it to what the model takes: upright, on its background, resized.

    Raises:
        InvalidImageError: the pixels are damaged or cut short, or of a depth that has no agreed meaning.
    """
    image = opened.image
    if isinstance(image, Plain):
        pixels = decode(opened.upload.data, image)
        if pixels is not None:
            return preprocess_plain(pixels, model_input)
        image = open_with_pillow(opened.upload)  # which may know a way, and tells what is wrong
    return preprocess_any(image, model_input)


def preprocess_plain(pixels: NDArray[np.uint8], model_input: ImageInput) -> Picture:
    """``(H, W)`` grey or ``(H, W, 3)`` RGB as the model takes it."""
    height, width = pixels.shape[:2]
    shape = (model_input.height, model_input.width, model_input.channels)
    if (height, width) == shape[:2] and pixels.size == height * width * model_input.channels:
        return Picture(pixels.reshape(shape), width, height)
    fitted = resize(as_channels(Image.fromarray(pixels), model_input), model_input)
    return Picture(np.asarray(fitted).reshape(shape), width, height)


def preprocess_any(image: Image.Image, model_input: ImageInput) -> Picture:
    """See `preprocess`."""
    with reporting_damage(image.format):
        image.load()
        upright = apply_exif_orientation(image)
        if upright.has_transparency_data:
            # With colours already weighted by alpha, resizing first comes to the same and needs a third of the memory.
            weighted = resize(as_mode(as_mode(upright, "RGBA"), "RGBa"), model_input)
            fitted = as_channels(over_background(np.asarray(weighted), model_input), model_input)
        else:
            fitted = resize(as_channels(eight_bits(upright), model_input), model_input)
        pixels = np.asarray(fitted).reshape(model_input.height, model_input.width, model_input.channels)
    return Picture(pixels, upright.width, upright.height)


def encode(pixels: NDArray[np.uint8], picture_format: Format) -> bytes:
    """``(h, w, C)`` uint8 as a PNG (exact) or JPEG file."""
    if picture_format == "png":
        return encode_png(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()


def sniff(data: bytes) -> str | None:
    """Pillow's name of the format that ``data`` begins like, if it is one that is taken."""
    for name, beginnings in SIGNATURES.items():
        if data.startswith(beginnings) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    return None


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation says it is to be seen; EXIF data that cannot be read says nothing."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - Pillow raises whatever parsing garbage leads to
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def resize(image: Image.Image, model_input: ImageInput) -> Image.Image:
    """Stretched to the size of the model's input."""
    size = (model_input.width, model_input.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode``; not copied if it is in it already."""
    return image if image.mode == mode else image.convert(mode)


def as_channels(image: Image.Image, model_input: ImageInput) -> Image.Image:
    """Grey (ITU-R 601) or RGB, as the model takes it."""
    if model_input.channels == 1:
        return image if image.mode == "L" else as_mode(image, "RGB").convert("L")
    return as_mode(image, "RGB")


def over_background(weighted: NDArray[np.uint8], model_input: ImageInput) -> Image.Image:
    """``(H, W, 4)``, colours weighted by alpha and alpha, as an RGB picture on the model's background."""
    background = np.array(model_input.background * (3 // model_input.channels))
    seen = weighted[..., :3] + background * (1 - weighted[..., 3:] / 255)
    return Image.fromarray(np.rint(seen).clip(0, 255).astype(np.uint8))


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16-bit grey levels as one of 8 bits; others as they are.

    Raises:
        InvalidImageError: its levels have no agreed white.
    """
    if image.mode == "F":
        raise InvalidImageError("pictures of floating-point pixels have no agreed white; convert it to 8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    pixels: NDArray[np.integer[Any]] = np.asarray(image)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > WHITE_16_BIT:
        raise InvalidImageError("pictures of 32-bit pixels have no agreed white; convert it to 8 or 16 bits")
    levels = (pixels.astype(np.uint32) * 255 + WHITE_16_BIT // 2) // WHITE_16_BIT
    return Image.fromarray(levels.astype(np.uint8))


@contextmanager
def reporting_damage(picture_format: str | None) -> Iterator[None]:
    """Turn whatever a decoder raises into a `InvalidImageError`."""
    try:
        yield
    except RequestError:
        raise
    except UnidentifiedImageError as error:
        raise InvalidImageError(
            f"the header of the {picture_format} picture is damaged or cut short; send it again whole"
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidImageError(
            f"the {picture_format} picture is damaged or cut short ({reason}); send it again whole"
        ) from error
