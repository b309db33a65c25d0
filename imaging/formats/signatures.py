"""Formats of files, told from their first bytes alone: neither names nor declared types count."""

import re

from imaging.errors import DamagedImageError, UnknownFormatError, UnsupportedImageError

SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "WEBP": (b"RIFF",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}
"""The first bytes of files of each format; WebP is told from other RIFF files by its ninth to twelfth byte."""
NETPBM = re.compile(rb"P[456][\t\n\r ]")
"""The first bytes of binary Netpbm files."""
FORMATS = "PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
CURE = f"send {FORMATS}"
MEDIA_TYPES = {
    "image/jpg",
    "image/x-ms-bmp",
    "image/x-portable-anymap",
    "image/avif",
    "image/heic",
    "image/heif",
    *(f"image/{name.lower()}" for name in SIGNATURES),
}
"""Names that clients give to the formats that are read."""
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Extensions of the names of such files."""

BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
"""Formats of files in the container of ISO/IEC 14496-12, by brand; those that come first decide."""
FOREIGN_BRANDS = {
    b"crx ": "a raw photograph (CR3)",
    b"jxl ": "a JPEG XL picture",
    b"jp2 ": "a JPEG 2000 picture",
    b"M4A ": "a sound",
}
FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"II\xbc", "a JPEG XR picture"),
    (b"IIU\0", "a raw photograph (RW2)"),
    (b"IIRO", "a raw photograph (ORF)"),
    (b"IIRS", "a raw photograph (ORF)"),
    (b"FUJIFILMCCD-RAW", "a raw photograph (RAF)"),
    (b"FOVb", "a raw photograph (X3F)"),
    (b"\0MRM", "a raw photograph (MRW)"),
    (b"8BPS", "a Photoshop document"),
    (b"8BPB", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\0\0\2\0", "a cursor (CUR)"),
    (b"icns", "an icon (ICNS)"),
    (b"P1", "a Netpbm picture written as text"),
    (b"P2", "a Netpbm picture written as text"),
    (b"P3", "a Netpbm picture written as text"),
    (b"P7\n", "a PAM picture"),
    (b"PF\n", "a picture of floating-point pixels (PFM)"),
    (b"Pf\n", "a picture of floating-point pixels (PFM)"),
    (b"v/1\1", "a picture of floating-point pixels (OpenEXR)"),
    (b"#?RADIANCE", "a picture of floating-point pixels (HDR)"),
    (b"#?RGBE", "a picture of floating-point pixels (HDR)"),
    (b"SIMPLE  =", "a FITS image"),
    (b"qoif", "a QOI picture"),
    (b"FLIF", "a FLIF picture"),
    (b"BPG\xfb", "a BPG picture"),
    (b"DDS ", "a texture (DDS)"),
    (b"\xabKTX", "a texture (KTX)"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"/* XPM */", "an XPM picture"),
    (b"\x8aMNG", "an animation (MNG)"),
    (b"\x8bJNG", "a JNG picture"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"FLV\1", "a video (FLV)"),
    (b"OggS", "a sound or video (Ogg)"),
    (b"\0\0\1\xba", "a video (MPEG)"),
    (b"\0\0\1\xb3", "a video (MPEG)"),
    (b"0&\xb2u", "a video (Windows Media)"),
    (b"ID3", "a sound (MP3)"),
    (b"fLaC", "a sound (FLAC)"),
    (b"PK\3\4", "a zip archive or an office document"),
    (b"PK\5\6", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"{\\rtf", "a text document"),
)
"""The first bytes of files that are often sent and are not read, and a name for each."""
RIFF = {b"AVI ": "a video (AVI)", b"WAVE": "a sound (WAV)", b"ACON": "an animated cursor"}
SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
HTML = re.compile(rb"<(!doctype html|html|head|body)\b", re.IGNORECASE)
BASE64 = (b"iVBORw0KGgo", b"/9j/", b"R0lGODlh", b"R0lGODdh", b"UklGR", b"data:image/")
"""The first characters of pictures that were encoded for JSON or a web page."""
BEGINNING = 1024
"""Bytes in which the first element of an XML document is looked for."""
DICOM = 128
"""Position of the signature of DICOM files."""


def sniff(data: bytes) -> str | None:
    """The format that ``data`` begins like, by Pillow's name, if it is one that is read."""
    for name, beginnings in SIGNATURES.items():
        if data.startswith(beginnings) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    if data[4:8] == b"ftyp":
        return next((BRANDS[brand] for brand in brands(data) if brand in BRANDS), None)
    return "PPM" if NETPBM.match(data) else None


def brands(data: bytes) -> list[bytes]:
    """The brands of a file in the container of ISO/IEC 14496-12; what only says that it is a picture comes last."""
    end = min(int.from_bytes(data[:4]), 256)
    found = [data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))]
    return sorted(found, key=lambda brand: brand in (b"mif1", b"msf1"))


def identify(data: bytes) -> str:
    """The format of ``data``, as `sniff` tells it.

    Raises:
        DamagedImageError: ``data`` is empty.
        UnsupportedImageError: it is of another format; the message names it.
        UnknownFormatError: it is of no format that is known.
    """
    if not data:
        raise DamagedImageError("the picture is empty", "was the file read before it was sent?")
    found = sniff(data)
    if found is None:
        kind = describe_foreign(data)
        if kind is None:
            raise UnknownFormatError("this is not a picture of a format that is taken", CURE)
        raise UnsupportedImageError(f"this is {kind}, which is not taken", CURE)
    return found


def describe_foreign(data: bytes) -> str | None:
    """A name for a file that is not read, if its first bytes tell one."""
    for beginning, kind in FOREIGN:
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF":
        return RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return FOREIGN_BRANDS.get(data[8:12], "a video (MP4 or QuickTime)")
    if data[4:8] in (b"moov", b"mdat", b"wide"):
        return "a video (QuickTime)"
    if data[DICOM : DICOM + 4] == b"DICM":
        return "a DICOM file"
    beginning = data[:BEGINNING]
    if SVG.search(beginning):
        return "a drawing (SVG)"
    if HTML.search(beginning):
        return "a web page (HTML)"
    if data.startswith(BASE64):
        return "a picture in base64, which must be decoded before it is sent so"
    return None
