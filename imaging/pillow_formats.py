"""Formats that Pillow, or a plugin for it, reads nearly as browsers do: WebP, BMP, GIF, AVIF, HEIC, binary Netpbm."""

import io
import struct

import numpy as np
from PIL import Image, features

from imaging.errors import UnsupportedImageError
from imaging.modes import WHITE_16_BIT, eight_bits, simplify
from imaging.orientation import apply_orientation, read_orientation, upright_size
from imaging.stored import StoredImage

try:
    import pillow_heif
except ImportError:
    pillow_heif = None  # type: ignore[assignment]  # an extra

GREY = {"1", "L", "LA", "I", "I;16", "I;16B"}
"""Pillow's modes without colour."""
BMP_HEADER = struct.Struct("<I10xHI12xI")
"""Size of the header; bits of a pixel, compression; colours of the palette."""
BMP_HEADER_START, BMP_COLOURS_START, BMP_ALPHA_START = 14, 46, 66
BMP_MODERN, BMP_WITH_ALPHA, OS2 = 40, 56, 64
"""Sizes of headers: at least what Windows writes, at least with a mask for alpha, that of OS/2."""
BITFIELDS = 3
BMP_COMPRESSIONS = {4: "holds a JPEG", 5: "holds a PNG", 6: "has masks with alpha"}
BMP_CURE = "save it as a BMP of 24 bits, or as PNG"

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; `decoding.check_cost` refuses above ours.


def open_with_pillow(data: bytes, picture_format: str) -> StoredImage:
    """Read the header of a file of ``picture_format``, Pillow's name."""
    image = Image.open(io.BytesIO(data), formats=[picture_format])
    orientation = read_orientation(image.info.get("exif"))

    def load() -> Image.Image:
        image.load()
        return apply_orientation(simplify(image), orientation)

    return StoredImage(picture_format, *upright_size(*image.size, orientation), image.mode not in GREY, load)


def open_bmp(data: bytes) -> StoredImage:
    """Read the header of a BMP file; as in browsers, one whose alpha is zero everywhere is opaque."""
    try:
        opened = open_with_pillow(with_whole_palette(data), "BMP")
    except OSError as error:
        if "bitfields" not in str(error):
            raise
        raise UnsupportedImageError("this is a BMP of unusual bit masks, which is not taken", BMP_CURE) from error

    def load() -> Image.Image:
        image = opened.load()
        return image.convert("RGB") if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0) else image

    return opened._replace(load=load)


def with_whole_palette(data: bytes) -> bytes:
    """A BMP file that Pillow reads right: it takes each palette of black and white for one of pixels of one bit.

    Raises:
        UnsupportedImageError: Pillow would not read it right, or not at all.
    """
    if len(data) < BMP_HEADER_START + BMP_HEADER.size:
        return data
    size, bits, compression, colours = BMP_HEADER.unpack_from(data, BMP_HEADER_START)
    if size < BMP_MODERN:
        return data
    if compression in BMP_COMPRESSIONS or (size == OS2 and compression >= BITFIELDS):
        kind = "is compressed as OS/2 does" if size == OS2 else BMP_COMPRESSIONS[compression]
        raise UnsupportedImageError(f"this is a BMP that {kind}, which is not taken", BMP_CURE)
    if bits == 2:
        raise UnsupportedImageError("this is a BMP of 2 bits, which is not taken", BMP_CURE)
    if bits == 16 and compression == BITFIELDS and size >= BMP_WITH_ALPHA and any(data[BMP_ALPHA_START:][:4]):
        raise UnsupportedImageError("this is a BMP of 16 bits with alpha, which is not taken", BMP_CURE)
    if bits in (4, 8) and colours == 2:
        return data[:BMP_COLOURS_START] + bytes(4) + data[BMP_COLOURS_START + 4 :]
    return data


def open_gif(data: bytes) -> StoredImage:
    """Read the header of a GIF file; as in browsers, all that its first frame does not cover is transparent."""
    image = Image.open(io.BytesIO(data), formats=["GIF"])
    frame = image.tile[0].extents

    def load() -> Image.Image:
        image.load()
        picture = simplify(image)
        if frame is None or frame == (0, 0, *image.size):
            return picture
        screen = Image.new("RGBA", image.size)
        screen.paste(picture.crop(frame), frame)
        return screen

    return StoredImage("GIF", *image.size, image.mode not in GREY, load)


def open_avif(data: bytes) -> StoredImage:
    """Read the header of an AVIF file."""
    if not features.check("avif"):
        raise UnsupportedImageError(
            "this is an AVIF picture, which the Pillow installed here does not read", "send JPEG"
        )
    return open_with_pillow(data, "AVIF")


def open_heif(data: bytes) -> StoredImage:
    """Read the header of a HEIC or HEIF file; its container says how it is turned, and its EXIF data do not count."""
    if pillow_heif is None:
        raise UnsupportedImageError(
            "this is a HEIC picture, for which stn-serve[heif] is not installed here", "install it, or send JPEG"
        )
    try:
        file = pillow_heif.open_heif(data)
    except SyntaxError as error:
        raise UnsupportedImageError(f"this is a HEIF picture that is not read ({error})", "send JPEG") from error
    width, height = file.size

    def load() -> Image.Image:
        return simplify(file.to_pillow())

    return StoredImage("HEIF", width, height, file.mode not in GREY, load)


def open_netpbm(data: bytes) -> StoredImage:
    """Read the header of a binary Netpbm file whose levels go up to 255, or 65535 where it is grey."""
    image = Image.open(io.BytesIO(data), formats=["PPM"])
    if any(tile.codec_name != "raw" for tile in image.tile):
        raise UnsupportedImageError(
            "this is a Netpbm picture whose levels do not go up to 255, which is not taken", "save it as PNG"
        )

    def load() -> Image.Image:
        image.load()
        return Image.fromarray(eight_bits(np.asarray(image), WHITE_16_BIT)) if image.mode == "I" else simplify(image)

    return StoredImage("PPM", *image.size, image.mode not in GREY, load)
