"""The way from the bytes of a file to upright pixels, the same for training and the service."""

from collections.abc import Callable
from functools import partial

from PIL import Image

from imaging.bmp import open_bmp
from imaging.errors import ImageTooLargeError
from imaging.fast_codecs import PlainImage, decode_plain, open_plain
from imaging.formats import identify
from imaging.jpeg import open_jpeg
from imaging.pillow_formats import open_avif, open_gif, open_heif, open_netpbm, open_with_pillow
from imaging.png import open_png
from imaging.stored import StoredImage, reporting_damage
from imaging.tiff import open_tiff

OPENERS: dict[str, Callable[[bytes], StoredImage]] = {
    "PNG": open_png,
    "JPEG": open_jpeg,
    "TIFF": open_tiff,
    "BMP": open_bmp,
    "GIF": open_gif,
    "WEBP": partial(open_with_pillow, picture_format="WEBP"),
    "AVIF": open_avif,
    "HEIF": open_heif,
    "PPM": open_netpbm,
}
"""What reads the header of a file of each format."""

OpenedImage = PlainImage | StoredImage


def open_image(data: bytes, max_pixels: int) -> OpenedImage:
    """Tell the format of ``data`` and read its header, not yet its pixels.

    Raises:
        DamagedImageError: it is empty, or its header is damaged.
        UnsupportedImageError: it is of a kind that is not read.
        ImageTooLargeError: it has more than ``max_pixels`` pixels.
    """
    opened = open_plain(data) or open_stored(data)
    check_cost(opened, max_pixels)
    return opened


def open_stored(data: bytes) -> StoredImage:
    """Read the header of a picture of any format, by the general way."""
    picture_format = identify(data)
    with reporting_damage(picture_format):
        return OPENERS[picture_format](data)


def check_cost(opened: OpenedImage, max_pixels: int) -> None:
    """Refuse what would cost too much to decode.

    Raises:
        ImageTooLargeError: it has more than ``max_pixels`` pixels.
    """
    if opened.width * opened.height > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {opened.width} x {opened.height} pixels, at most {max_pixels} are taken", "scale it down"
        )


def decode(opened: OpenedImage) -> Image.Image:
    """The upright picture in mode L, RGB, RGBA or RGBa.

    Raises:
        DamagedImageError: the pixels are damaged or cut short.
        UnsupportedImageError: they are of a kind that has no agreed meaning.
    """
    if isinstance(opened, PlainImage):
        pixels = decode_plain(opened)
        if pixels is not None:
            return Image.fromarray(pixels)
        opened = open_stored(opened.data)  # which may know a way, and tells what is wrong
    with reporting_damage(opened.format):
        return opened.load()
