"""Picture files that are broken, cut short, absurd or none at all."""

import io
import struct
import zipfile
import zlib

from PIL import Image

from tests.service.pictures import DIGITS, drawing, encode, save

COLOUR = drawing(40, 32)
WHOLE: dict[str, bytes] = {
    "PNG": encode(DIGITS[0]),
    "PNG palette": save(Image.fromarray(COLOUR).quantize(16), "PNG"),
    "JPEG": encode(COLOUR, "JPEG"),
    "JPEG progressive": encode(COLOUR, "JPEG", progressive=True),
    "WebP lossy": encode(COLOUR, "WEBP"),
    "WebP lossless": encode(COLOUR, "WEBP", lossless=True),
    "WebP animated": encode(COLOUR, "WEBP", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
    "BMP": encode(COLOUR, "BMP"),
    "GIF": encode(COLOUR, "GIF"),
    "TIFF": encode(COLOUR, "TIFF"),
    "TIFF LZW": encode(COLOUR, "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": encode(COLOUR, "TIFF", compression="jpeg"),
}
"""Good pictures of every format."""


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    """A PNG file: its header and ``chunks``."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def rows(width: int, height: int) -> bytes:
    """Chunks with the black pixels of a grey PNG, to its end."""
    return chunk(b"IDAT", zlib.compress(bytes((width + 1) * height), 9)) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], following: int = 0, first: int = 8, pixels: bytes = bytes(64)) -> bytes:
    """A TIFF file with one directory of (tag, type, count, value), then ``pixels``; ``following`` is the next one."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, first) + directory + struct.pack("<I", following) + pixels


def grey_tiff(following: int = 0, **changes: int) -> bytes:
    """An 8 x 8 grey TIFF, with other numbers in its tags."""
    start = 8 + 2 + 9 * 12 + 4
    numbers = {"width": 8, "height": 8, "bits": 8, "compression": 1, "offset": start, "rows": 8, "bytes": 64} | changes
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "offset": 273, "rows": 278, "bytes": 279}
    entries = {tags[name]: number for name, number in numbers.items()} | {262: 1, 277: 1}
    return tiff(*((tag, 4, 1, entries[tag]) for tag in sorted(entries)), following=following)


def bmp(width: int, height: int, *, bits: int = 24, compression: int = 0, colours: int = 0) -> bytes:
    """A BMP file with 64 bytes of pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 64, 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + 64, 0, 0, 54) + info + bytes(64)


def patched(whole: bytes, position: int, content: bytes) -> bytes:
    """``whole`` with other bytes at ``position``."""
    return whole[:position] + content + whole[position + len(content) :]


def jpeg_size(width: int, height: int) -> bytes:
    """A JPEG file that claims another size."""
    whole = WHOLE["JPEG"]
    return patched(whole, whole.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def jpeg_exif(content: bytes) -> bytes:
    """A JPEG file whose EXIF segment holds ``content``."""
    segment = b"Exif\0\0" + content
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + WHOLE["JPEG"][2:]


def archive() -> bytes:
    """A zip file with a picture in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("digit.png", WHOLE["PNG"])
    return content.getvalue()


GIF = WHOLE["GIF"]
FRAME = GIF.index(b"\x2c" + bytes(4) + struct.pack("<HH", 40, 32))
"""Where the descriptor of its frame begins."""
WEBP = WHOLE["WebP lossy"]

DAMAGED: dict[str, bytes] = {
    **{f"{kind} cut in half": whole[: len(whole) // 2] for kind, whole in WHOLE.items()},
    **{f"{kind} cut after 12 bytes": whole[:12] for kind, whole in WHOLE.items() if " " not in kind},
    "PNG signature alone": WHOLE["PNG"][:8],
    "PNG with a bad checksum in its header": patched(WHOLE["PNG"], 30, b"\0"),
    "PNG with a bad checksum of its pixels": patched(WHOLE["PNG"], WHOLE["PNG"].index(b"IDAT") + 40, b"\0\1\2"),
    "PNG without pixels": png(8, 8, chunk(b"IEND", b"")),
    "PNG of pixels that are not compressed": png(8, 8, chunk(b"IDAT", b"not zlib"), chunk(b"IEND", b"")),
    "PNG of width zero": png(0, 8, rows(0, 8)),
    "PNG of height zero": png(8, 0, rows(8, 0)),
    "PNG of 7 bits": png(8, 8, rows(8, 8), depth=7),
    "PNG of an unknown colour type": png(8, 8, rows(8, 8), colour=5),
    "PNG with a chunk longer than the file": png(8, 8, b"\x7f\xff\xff\xffIDAT"),
    "JPEG without an end marker": WHOLE["JPEG"][:-2],
    "JPEG of a start marker alone": b"\xff\xd8\xff",
    "JPEG with its header only": WHOLE["JPEG"][: WHOLE["JPEG"].index(b"\xff\xda")],
    "JPEG of width zero": jpeg_size(0, 8),
    "GIF without frames": GIF[:13] + b";",
    "GIF of an empty screen and frame": patched(patched(GIF, 6, bytes(4)), FRAME + 5, bytes(4)),
    "BMP of width zero": bmp(0, 8),
    "BMP of 5 bits": bmp(4, 4, bits=5),
    "BMP of unknown compression": bmp(4, 4, compression=99),
    "BMP with pixels missing": bmp(40, 40),
    "TIFF whose directory lies outside": tiff(first=10**6),
    "TIFF of an empty directory": tiff(),
    "TIFF of width zero": grey_tiff(width=0),
    "TIFF of unknown compression": grey_tiff(compression=9999),
    "TIFF of 200 bits": grey_tiff(bits=200),
    "TIFF whose pixels lie outside": grey_tiff(offset=10**6),
    "TIFF with pixels missing": grey_tiff(height=800, rows=800),
    "TIFF with more entries than bytes": b"II*\0\x08\0\0\0\xff\xff" + bytes(60),
    "WebP with a wrong RIFF size": patched(WEBP, 4, b"\x05\0\0\0"),
    "WebP with a chunk longer than the file": patched(WEBP, 16, b"\xff\xff\xff\x7f"),
    "WebP without chunks": b"RIFF\x04\0\0\0WEBP",
}
"""Refused as bad pictures."""

HUGE: dict[str, bytes] = {
    "PNG": png(60_000, 60_000, rows(8, 8)),
    "PNG of the largest size": png(2**31 - 1, 2**31 - 1, rows(8, 8)),
    "JPEG": jpeg_size(65_500, 65_500),
    "GIF": patched(GIF, 6, b"\xff\xff\xff\xff"),
    "BMP": bmp(60_000, 60_000),
    "TIFF": grey_tiff(width=2**31 - 1, height=2**31 - 1),
    "WebP": patched(WHOLE["WebP animated"], 24, b"\xff\xf0\0" * 2),
}
"""Small files that claim billions of pixels."""

ODD: dict[str, bytes] = {
    "TIFF whose directories make a loop": grey_tiff(following=8),
    "GIF whose frame lies partly outside": patched(GIF, FRAME + 1, b"\x0a\0\x0a\0"),
    "JPEG with EXIF data that is garbage": jpeg_exif(b"garbage" * 30),
    "JPEG with EXIF data that is empty": jpeg_exif(b""),
    "JPEG with EXIF data that points outside": jpeg_exif(b"II*\0\xff\xff\xff\x7f"),
    "JPEG with an unknown orientation": jpeg_exif(
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0" + bytes(4)
    ),
    "PNG with EXIF data that is garbage": png(8, 8, chunk(b"eXIf", b"garbage"), rows(8, 8)),
    "PNG with a colour profile that is garbage": png(8, 8, chunk(b"iCCP", b"x\0\0garbage"), rows(8, 8)),
    "PNG with too few rows": png(8, 8, rows(8, 3)),
    "PNG with a palette of odd length": png(8, 8, chunk(b"PLTE", b"12345"), rows(8, 8), colour=3),
    "PNG with pixels beyond its palette": png(8, 8, chunk(b"PLTE", b"123"), rows(8, 8), colour=3),
    "PNG with a text that unpacks to 100 MB": png(
        8, 8, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20), 9)), rows(8, 8)
    ),
    "PNG with a bad checksum of its text": png(8, 8, patched(chunk(b"tEXt", b"a\0b"), 11, b"\xff\xff"), rows(8, 8)),
    "PNG with a bad checksum of its gamma": png(8, 8, patched(chunk(b"gAMA", bytes(4)), 12, b"\xff\xff"), rows(8, 8)),
    "PNG followed by other bytes": WHOLE["PNG"] + b"<?php",
}
"""Any viewer shows them, so they are answered."""

FOREIGN: dict[str, bytes] = {
    "text": b"seven",
    "HTML": b"<!doctype html><title>7</title>",
    "zip": archive(),
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "PPM written as text": b"P2 2 1 255 0 255",
    "ICO": save(Image.fromarray(DIGITS[0]), "ICO"),
    "JPEG 2000": save(Image.fromarray(DIGITS[0]), "JPEG2000"),
    "sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "zeros": bytes(1000),
    "one byte": b"\x89",
    "PNG after a byte order mark": b"\xef\xbb\xbf" + WHOLE["PNG"],
}
"""Not of a format that is taken."""
