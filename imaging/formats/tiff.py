"""TIFF: the kinds of which Pillow gives the right pixels are read, all others are named and refused.

TIFF can hold nearly anything, and a decoder that knows less than a file says gives a wrong picture without an error. So
the first directory is looked at beforehand, and only what is known to come out right goes on.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag

from imaging.errors import UnsupportedImageError
from imaging.formats.stored_image import StoredImage
from imaging.formats.tiff_directory import Tags
from imaging.modes import eight_bits, simplify

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
PHOTOMETRICS = {4: "a mask", 8: "L*a*b* colours", 9: "L*a*b* colours", 10: "L*a*b* colours", 32844: "LogL levels"} | {
    32845: "LogLuv colours"
}
RAW_PHOTOGRAPH = {32803, 34892}
"""Photometric interpretations of what a sensor saw."""
RAW, JPEG = 1, 7
FAX = {2, 3, 4}
COMPRESSIONS = {RAW, JPEG, 5, 8, 32773, 32946, 34925, 50000} | FAX
"""Compressions that are read: those above, LZW, deflate, PackBits, LZMA and Zstandard."""
OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32771: "word-aligned fax",
    32809: "ThunderScan",
    32908: "PixarFilm",
    32909: "PixarLog",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGILog",
    34677: "SGILog",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
UNSIGNED = 1
SAMPLE_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
UNASSOCIATED = 2
LUMA = (0.299, 0.587, 0.114)
"""The coefficients of YCbCr that decoders expect (ITU-R 601)."""
FULL_RANGE = (0, 255, 128, 255, 128, 255)
DEEPEST = 64
"""Bits that a sample can have; more is damage."""
CURE = "save it as a TIFF of 8-bit grey or RGB, or as PNG"


class Kind(NamedTuple):
    """The storage of the first picture of a TIFF file."""

    little_endian: bool
    photometric: int
    bits: int
    samples: int
    extra: tuple[int, ...]
    """Meaning of the samples after the colours."""
    compression: int
    planar: bool
    reversed: bool
    """The lowest bit of each byte comes first."""

    @property
    def raw_planes(self) -> bool:
        """True for planes that are not compressed, which Pillow takes for planes of 8-bit levels."""
        return self.planar and self.compression == RAW


def open_tiff(data: bytes) -> StoredImage:
    """Read the header of a TIFF file."""
    if data.startswith(b"MM\0+"):
        raise refusal("64-bit offsets (BigTIFF) in big-endian order")
    tags = Tags(data)
    kind = read_kind(tags)
    if kind.bits <= DEEPEST and not is_read(kind):
        raise refusal(describe(kind))
    image = Image.open(io.BytesIO(data), formats=["TIFF"])
    image.info.pop("xmp", None)  # or Pillow would look for an orientation there
    palette = small_palette(tags) if kind.photometric == PALETTE else None

    def load() -> Image.Image:
        image.load()  # which turns it upright
        if palette is not None:
            image.putpalette(palette)
        if not image.mode.startswith("I;16"):
            return simplify(image)
        levels = eight_bits(np.asarray(image), 2**kind.bits - 1)
        return Image.fromarray(255 - levels if kind.photometric == WHITE_IS_ZERO else levels)

    coloured = kind.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    return StoredImage("TIFF", *image.size, coloured, load)


def read_kind(tags: Tags) -> Kind:
    """Read how the first picture is stored.

    Raises:
        UnsupportedImageError: its tags alone say that it is not read.
    """
    photometric = tags.value(Tag.PhotometricInterpretation, WHITE_IS_ZERO)
    thumbnail = tags.value(Tag.NewSubfileType, 0) & 1 and Tag.SubIFDs in tags
    if Tag.DNGVersion in tags or photometric in RAW_PHOTOGRAPH or thumbnail:
        raise UnsupportedImageError("this is a raw photograph (DNG or the like), which is not taken", "send it as JPEG")
    compression = tags.value(Tag.Compression, RAW)
    if compression in OTHER_COMPRESSIONS:
        raise refusal(f"pixels compressed as {OTHER_COMPRESSIONS[compression]}")
    formats = set(tags.values(Tag.SampleFormat, (UNSIGNED,)))
    if formats != {UNSIGNED}:
        raise refusal(SAMPLE_FORMATS.get(int(max(formats)), "an undefined sample format"))
    depths = tags.values(Tag.BitsPerSample, (1,))
    if len(set(depths)) > 1:
        raise refusal("samples of different depths")
    if photometric == CMYK and tags.value(Tag.InkSet, 1) != 1:
        raise refusal("inks other than CMYK")
    if photometric == YCBCR and compression != JPEG:
        check_ycbcr(tags)
    return Kind(
        little_endian=tags.little_endian,
        photometric=photometric,
        bits=int(depths[0]),
        samples=tags.value(Tag.SamplesPerPixel, 3 if compression == JPEG and photometric in (RGB, YCBCR) else 1),
        extra=tuple(int(meaning) for meaning in tags.values(Tag.ExtraSamples, ())),
        compression=compression,
        planar=tags.value(Tag.PlanarConfiguration, 1) == 2,
        reversed=tags.value(Tag.FillOrder, 1) == 2,
    )


def check_ycbcr(tags: Tags) -> None:
    """Refuse what only a decoder would read that knows more of YCbCr than the common case."""
    if tuple(tags.values(Tag.YCbCrSubSampling, (2, 2))) != (1, 1):
        raise refusal("subsampled YCbCr colours that are not compressed as JPEG")
    luma = tags.values(Tag.YCbCrCoefficients, LUMA)
    if len(luma) != len(LUMA) or not np.allclose(luma, LUMA, atol=1e-3):
        raise refusal("YCbCr colours with other coefficients than those of ITU-R 601")
    if not np.allclose(tags.values(Tag.ReferenceBlackWhite, FULL_RANGE)[:6], FULL_RANGE, atol=0.5):
        raise refusal("YCbCr colours of limited range")


def is_read(kind: Kind) -> bool:
    """Whether Pillow gives the right pixels, with the help of `open_tiff`; a test tries each."""
    if kind.compression not in COMPRESSIONS:
        return True  # there is no such compression: Pillow tells the damage
    colours = kind.samples - len(kind.extra)
    if kind.compression in FAX and (kind.bits, kind.samples) != (1, 1):
        return False
    if kind.compression == JPEG and (kind.bits != 8 or kind.extra or kind.photometric == CMYK):
        return False
    match kind.photometric:
        case 0 | 1 if colours == 1 and not kind.extra:
            return is_read_grey(kind)
        case 1 if colours == 1 and len(kind.extra) == 1:
            return kind.bits == 8 and not kind.planar and not kind.reversed
        case 2 if colours == 3 or (kind.samples == 4 and not kind.extra):
            return is_read_rgb(kind)
        case 3 if kind.samples == 1:
            return is_read_palette(kind)
        case 5 if kind.samples == 4 and not kind.extra:
            return kind.bits in (8, 16) and not kind.reversed and not (kind.raw_planes and kind.bits == 16)
        case 6 if kind.samples == 3 and not kind.extra:
            return kind.bits == 8 and not kind.reversed and not kind.raw_planes
        case _:
            return False


def is_read_grey(kind: Kind) -> bool:
    """See `is_read`."""
    inverted = kind.photometric == WHITE_IS_ZERO
    if kind.raw_planes and (inverted or kind.bits != 8 or kind.reversed):
        return False
    if kind.bits in (1, 2, 4, 8):
        return not (kind.bits == 8 and inverted and kind.reversed and kind.compression == RAW)
    if kind.bits == 16:
        return (kind.little_endian and not (inverted and kind.reversed)) or (not inverted and not kind.reversed)
    return kind.bits == 12 and kind.little_endian and not inverted and not kind.reversed


def is_read_rgb(kind: Kind) -> bool:
    """See `is_read`."""
    if kind.bits not in (8, 16) or any(meaning != 0 for meaning in kind.extra[1:]) or len(kind.extra) > 3:
        return False
    if kind.bits == 16 and len(kind.extra) > 1:
        return False
    if kind.reversed:
        return kind.bits == 8 and not kind.extra and kind.samples == 3 and not kind.raw_planes
    return not kind.raw_planes or (kind.bits == 8 and kind.extra in ((), (UNASSOCIATED,)))


def is_read_palette(kind: Kind) -> bool:
    """See `is_read`."""
    if kind.raw_planes and (kind.bits < 8 or kind.reversed):
        return False
    return kind.bits == 8 or (kind.bits in (1, 2, 4) and not (kind.reversed and kind.compression == RAW))


def describe(kind: Kind) -> str:
    """Name the kind of a picture for the message that refuses it."""
    colours = {WHITE_IS_ZERO: "grey (WhiteIsZero)", BLACK_IS_ZERO: "grey", RGB: "RGB", PALETTE: "palette"} | {
        CMYK: "CMYK",
        YCBCR: "YCbCr",
    }
    name = (colours | PHOTOMETRICS).get(kind.photometric, f"photometric interpretation {kind.photometric}")
    details = [f"{kind.samples} x {kind.bits} bits"]
    details += ["in planes"] * kind.planar + ["in big-endian order"] * (not kind.little_endian and kind.bits > 8)
    details += ["with reversed bits"] * kind.reversed + ["compressed as JPEG"] * (kind.compression == JPEG)
    return f"{name} of {', '.join(details)}"


def refusal(what: str) -> UnsupportedImageError:
    """The error for a whole file of a kind that is not read."""
    return UnsupportedImageError(f"this is a TIFF of {what}, which is not taken", CURE)


def small_palette(tags: Tags) -> bytes | None:
    """The palette of a file that has levels of 8 bits where levels of 16 belong; None if it has the latter."""
    levels = np.array(tags.values(Tag.ColorMap, ()), np.int64)
    if not levels.size or levels.max() > 255 or levels.size % 3:
        return None
    return levels.reshape(3, -1).T.astype(np.uint8).tobytes()
