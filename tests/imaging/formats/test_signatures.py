"""The bytes of a file decide what it is."""

import io

import pytest
from PIL import Image

from imaging.decoding import open_image
from imaging.errors import DamagedImageError, UnknownFormatError, UnsupportedImageError
from imaging.formats.signatures import identify, sniff


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    content = brand + bytes(4) + b"".join(compatible)
    return (8 + len(content)).to_bytes(4) + b"ftyp" + content + bytes(100)


FOREIGN: dict[str, tuple[bytes, str]] = {
    "JPEG XL": (b"\xff\x0a" + bytes(20), "JPEG XL"),
    "JPEG XL in its container": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG 2000 without a container": (b"\xff\x4f\xff\x51", "JPEG 2000"),
    "SVG": (b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "HTML": (b"<!DOCTYPE html><html>", "web page"),
    "PDF": (b"%PDF-1.7", "PDF"),
    "PSD": (b"8BPS\0\1", "Photoshop"),
    "ICO": (b"\0\0\1\0\1\0", "icon"),
    "CR3": (ftyp(b"crx ", b"isom"), "raw photograph"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "raw photograph"),
    "MP4": (ftyp(b"isom", b"mp42"), "video"),
    "QuickTime": (ftyp(b"qt  "), "video"),
    "WebM": (b"\x1aE\xdf\xa3", "video"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", "video"),
    "WAV": (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
    "DICOM": (bytes(128) + b"DICM", "DICOM"),
    "OpenEXR": (b"v/1\1", "floating-point"),
    "zip": (b"PK\3\4", "zip archive"),
    "base64": (b"iVBORw0KGgoAAAANSUhEUg", "base64"),
    "a data URL": (b"data:image/png;base64,iVBORw0KGgo", "base64"),
    "NumPy": (b"\x93NUMPY\1\0", "NumPy"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_named_with_what_to_send_instead(kind: str) -> None:
    data, name = FOREIGN[kind]
    with pytest.raises(UnsupportedImageError, match=f"this is .*{name}.*send PNG, JPEG") as caught:
        open_image(data, 100)
    assert not isinstance(caught.value, UnknownFormatError)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_pictures_are_known_by_their_first_bytes(picture_format: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, picture_format)
    assert sniff(content.getvalue()) == picture_format


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ftyp(b"heic", b"mif1"), "HEIF"),
        (ftyp(b"mif1", b"heic"), "HEIF"),
        (ftyp(b"mif1", b"avif"), "AVIF"),
        (ftyp(b"avif", b"mif1", b"miaf"), "AVIF"),
        (ftyp(b"avis", b"avif"), "AVIF"),
        (ftyp(b"mif1"), "HEIF"),
    ],
)
def test_pictures_of_phones_are_told_by_their_brands(data: bytes, expected: str) -> None:
    assert sniff(data) == expected


def test_what_is_nothing_known_is_told_from_what_is_empty() -> None:
    with pytest.raises(UnknownFormatError, match="send PNG"):
        identify(b"seven")
    with pytest.raises(DamagedImageError, match="empty"):
        identify(b"")
