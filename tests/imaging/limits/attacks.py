"""Small files that would make much work or take much memory, and the parts that they are made of."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

BLOCK = bytes(2**20)
RUN = 32767
"""Blocks that one symbol of a progressive JPEG can leave as they are."""
SHORT, LONG, RATIONAL, BYTES = 3, 4, 5, 7
"""Types of values in a TIFF file."""
DEFLATE, RAW_TIFF, JPEG_TIFF = 8, 1, 7


def save(image: Image.Image, picture_format: str, **options: Any) -> bytes:
    """``image`` as a file."""
    content = io.BytesIO()
    image.save(content, picture_format, **options)
    return content.getvalue()


def zeros(size: int) -> bytes:
    """``size`` zero bytes, deflated to a thousandth."""
    deflate = zlib.compressobj(9)
    blocks = (deflate.compress(BLOCK[: min(len(BLOCK), size - start)]) for start in range(0, size, len(BLOCK)))
    return b"".join([*blocks, deflate.flush()])


# PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int = 8, colour: int = 0, besides: bytes = b"", interlaced: int = 0) -> bytes:
    """A black PNG with the chunks ``besides``."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zeros((1 + (width * depth * samples + 7) // 8) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + besides + pixels + chunk(b"IEND", b"")


# JPEG


def segment(marker: int, content: bytes) -> bytes:
    """One segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def frame(marker: int, width: int, height: int, components: int = 1, sampling: int = 0x11) -> bytes:
    """The head of a frame."""
    named = b"".join(bytes((name, sampling if name == 1 else 0x11, 0)) for name in range(1, components + 1))
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + named)


def scan(components: Sequence[int], first: int, last: int, bits: int, content: bytes) -> bytes:
    """One scan of the ``components``."""
    named = b"".join(bytes((name, 0)) for name in components)
    return segment(0xDA, bytes((len(components),)) + named + bytes((first, last, bits))) + content


def nothing_new(blocks: int) -> bytes:
    """The content of a scan that visits ``blocks`` and changes none."""
    bits = "0" + "1" * 14  # the symbol of 2**14 blocks or more, and how many more
    text = bits * -(-blocks // RUN)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")


def progressive(width: int, height: int, scans: int, marker: int = 0xC2) -> bytes:
    """A grey progressive JPEG with ``scans`` that refine nothing."""
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(0xC4, b"\x00" + b"\1" + bytes(15) + b"\x00") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    content = nothing_new(-(-width // 8) * -(-height // 8))
    refining = scan([1], 1, 63, 0x10, content)
    return (
        b"\xff\xd8"
        + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
        + frame(marker, width, height)
        + tables
        + scan([1], 0, 0, 0, bytes(64))
        + refining * scans
        + b"\xff\xd9"
    )


def several_scans(width: int, height: int, scans: int) -> bytes:
    """A baseline JPEG in colour whose components come in scans of their own, again and again."""
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(0xC4, b"\x00\1" + bytes(15) + b"\x00") + segment(0xC4, b"\x10\1" + bytes(15) + b"\x00")
    passes = b"".join(scan([1 + number % 3], 0, 63, 0, bytes(64)) for number in range(scans))
    return b"\xff\xd8" + frame(0xC0, width, height, 3) + tables + passes + b"\xff\xd9"


def with_segments(besides: bytes) -> bytes:
    """An ordinary small JPEG with ``besides`` after its first segment."""
    data = save(Image.new("L", (16, 16)), "JPEG")
    return data[:20] + besides + data[20:]


def exif(values: int) -> bytes:
    """EXIF data whose resolution has many values, in as many segments as it takes."""
    data = tiff_directory([(282, RATIONAL, [1] * 2 * values), (296, SHORT, [2])])[0]
    pieces = (data[start : start + 65_000] for start in range(0, len(data), 65_000))
    return b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces)


# TIFF

Entries = list[tuple[int, int, Sequence[int] | bytes]]


def tiff_directory(entries: Entries, pages: int = 1) -> tuple[bytes, int]:
    """A TIFF file of one directory and ``pages`` - 1 empty ones, and where its pixels may be added."""
    begin = 8 + 2 + 12 * len(entries) + 4
    table, values = b"", b""
    for tag, kind, content in sorted(entries, key=lambda entry: entry[0]):
        code = {SHORT: "H", LONG: "L", RATIONAL: "L"}.get(kind)
        packed = bytes(content) if code is None else struct.pack(f"<{len(content)}{code}", *content)
        count = len(content) // 2 if kind == RATIONAL else len(content)
        inline = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<L", begin + len(values))
        table += struct.pack("<HHL", tag, kind, count) + inline
        values += packed if len(packed) > 4 else b""
    more = b""
    for number in range(1, pages):
        place = begin + len(values) + len(more)
        more += struct.pack("<HL", 0, place + 6 if number < pages - 1 else 0)
    following = begin + len(values) if pages > 1 else 0
    head = b"II*\0" + struct.pack("<L", 8)
    body = head + struct.pack("<H", len(entries)) + table + struct.pack("<L", following) + values + more
    return body, len(body)


def tiff(
    size: tuple[int, int],
    content: bytes,
    tile: tuple[int, int] | None = None,
    compression: int = DEFLATE,
    samples: int = 1,
    segments: int = 1,
    besides: Entries | None = None,
    pages: int = 1,
) -> bytes:
    """A grey or RGB TIFF whose every strip or tile has the same ``content``."""

    def entries(place: int) -> Entries:
        offsets, counts = [place] * segments, [len(content)] * segments
        layout: Entries = [(273, LONG, offsets), (278, LONG, [size[1]]), (279, LONG, counts)]
        if tile is not None:
            layout = [(322, LONG, [tile[0]]), (323, LONG, [tile[1]]), (324, LONG, offsets), (325, LONG, counts)]
        return [
            (256, LONG, [size[0]]),
            (257, LONG, [size[1]]),
            (258, SHORT, [8] * samples),
            (259, SHORT, [compression]),
            (262, SHORT, [1 if samples == 1 else 2]),
            (277, SHORT, [samples]),
            *layout,
            *(besides or []),
        ]

    _, place = tiff_directory(entries(0), pages)
    return tiff_directory(entries(place), pages)[0] + content


# BMP, GIF, Netpbm, WebP


def bmp(width: int, height: int, content: bytes = b"\0\1", compression: int = 1, bits: int = 8) -> bytes:
    """A BMP file with a palette; compression 1 is RLE8, 2 is RLE4."""
    colours = 1 << bits
    palette = b"".join(bytes((level, 0, level, 0)) for level in range(colours))
    place = 54 + len(palette)
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, compression, len(content), 0, 0, colours, 0)
    return b"BM" + struct.pack("<LLL", place + len(content), 0, place) + header + palette + content


def gif(screen: tuple[int, int], size: tuple[int, int], left: int = 0, besides: bytes = b"") -> bytes:
    """A GIF whose frame of ``size`` starts ``left`` pixels from the left edge of its ``screen``."""
    frame_head = b"," + struct.pack("<4HB", left, 0, *size, 0)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6) + besides + frame_head + b"\2\2\x4c\1\0;"


def webp(width: int, height: int) -> bytes:
    """The beginning of an extended WebP file of a large canvas with one small frame."""
    return animated_webp(save(Image.new("RGB", (8, 8)), "WEBP", lossless=True), 8, width, height)


def animated_webp(file: bytes, side: int, width: int, height: int) -> bytes:
    """The beginning of an animation of ``width`` x ``height`` pixels with the still picture ``file`` of a square."""
    still = file[12:]
    frame_head = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4)
    animation = b"ANIM" + struct.pack("<L", 6) + bytes(6)
    animation += b"ANMF" + struct.pack("<L", len(frame_head) + len(still)) + frame_head + still
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<L", 10) + b"\2\0\0\0" + canvas + animation
    return b"RIFF" + struct.pack("<L", len(body)) + body


class Bits:
    """A stream of bits, of which the lowest of a number comes first."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def add(self, number: int, bits: int) -> None:
        self.text.append(f"{number:0{bits}b}"[::-1])

    def as_bytes(self) -> bytes:
        text = "".join(self.text)
        return int(text[::-1], 2).to_bytes(-(-len(text) // 8), "little")


def webp_of_many_codes(side: int) -> bytes:
    """A black lossless WebP, each 4 x 4 pixels of which have Huffman codes of their own."""
    bits = Bits()
    for number, width in ((0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 4)):
        bits.add(number, width)
    for flag, width in ((0, 1), (0, 1), (1, 1), (0, 3), (0, 1)):  # no transform, no cache, groups of 4 x 4, no cache
        bits.add(flag, width)
    for _ in range(2):  # the two bytes of the number of a group: 256 symbols of 8 bits
        bits.add(0, 1)
        bits.add(8, 4)
        for place in range(12):
            bits.add(place == 11, 3)
        for number, width in ((1, 1), (3, 3), (254, 8)):
            bits.add(number, width)
    single, groups = 0b0001, (side // 4) ** 2
    for _ in range(3):
        bits.add(single, 4)
    for group in range(groups):
        for level in (group & 255, group >> 8):
            bits.add(int(f"{level:08b}"[::-1], 2), 8)
    for _ in range(5 * groups):
        bits.add(single, 4)
    content = bits.as_bytes()
    content += bytes(len(content) % 2)
    body = b"WEBPVP8L" + struct.pack("<L", len(content)) + content
    return b"RIFF" + struct.pack("<L", len(body)) + body


# AVIF, HEIC


def declared(data: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC file that declares another size than its stream has."""
    size = struct.Struct(">4s4xLL")
    return re.sub(rb"ispe.{12}", size.pack(b"ispe", width, height), data, flags=re.DOTALL)


REFUSED: dict[str, Callable[[], bytes]] = {
    "PNG of 1 x 50,000,000": lambda: png(1, 50_000_000),
    "PNG of 50,000,000 x 1": lambda: png(50_000_000, 1, depth=1),
    "PNG of too many pixels, interlaced": lambda: png(10_000, 6_000, depth=1, interlaced=1),
    "PNG of 800,000 chunks": lambda: png(8, 8, besides=chunk(b"prVt", b"") * 800_000),
    "JPEG of 500 scans": lambda: progressive(7000, 7000, 500),
    "JPEG of 500 small scans": lambda: progressive(128, 128, 500),
    "JPEG of 90 large scans": lambda: progressive(7000, 7000, 90),
    "JPEG of 50 scans in arithmetic coding": lambda: progressive(7000, 7000, 50, marker=0xCA),
    "JPEG of 500 scans that is baseline": lambda: several_scans(4000, 4000, 500),
    "JPEG of 65,535 x 700": lambda: progressive(65_535, 700, 1),
    "JPEG with a second, larger frame": lambda: with_segments(frame(0xC2, 60_000, 60_000)),
    "JPEG with 9 MB between its segments": lambda: with_segments(b"a" * 9_000_000),
    "JPEG with 9 MB of fill bytes": lambda: with_segments(b"\xff" * 9_000_000),
    "JPEG of 100,000 segments": lambda: with_segments(segment(0xFE, b"") * 100_000),
    "JPEG of 100,000 tables": lambda: with_segments(segment(0xDB, (b"\0" + b"\1" * 64) * 1000) * 100),
    "TIFF with a tile of 46,000 x 46,000": lambda: tiff((16, 16), zeros(2**22), tile=(46_000, 46_000)),
    "TIFF with a tile that is wide": lambda: tiff((16, 16), zeros(2**22), tile=(2**31 - 16, 16)),
    "TIFF of 16 x 200,000": lambda: tiff((16, 200_000), zeros(16 * 200_000)),
    "TIFF of 1,000,000 strips": lambda: tiff((16, 16), b"a", compression=RAW_TIFF, segments=1_000_000),
    "TIFF of 5,000,000 tags' values": lambda: tiff((16, 16), zeros(256), besides=[(320, SHORT, [1] * 5_000_000)]),
    "TIFF of 20,000 pages": lambda: tiff((16, 16), zeros(256), pages=20_000),
    "TIFF with a JPEG of 500 scans": lambda: tiff((7000, 7000), progressive(7000, 7000, 500), compression=JPEG_TIFF),
    "TIFF of 600 tiles of 60 scans each": lambda: tiff(
        (6000, 6000), progressive(256, 256, 60), compression=JPEG_TIFF, tile=(256, 256), segments=600
    ),
    "BMP, RLE8, of 50,000 x 1,000": lambda: bmp(50_000, 1000, b"\1\1\0\0" * 1000 + b"\0\1"),
    "BMP, RLE8, of 9 MB": lambda: bmp(2000, 2000, b"\0\2\0\0" * 2_250_000),
    "GIF whose frame is larger than its screen": lambda: gif((8, 8), (60_000, 60_000)),
    "GIF whose frame is far to the right": lambda: gif((8, 8), (8, 8), left=60_000),
    "GIF with 4,000,000 comments": lambda: gif((8, 8), (8, 8), besides=b"!\xfe" + b"\1a" * 4_000_000 + b"\0"),
    "PGM with 9 MB of comments": lambda: b"P5\n" + b"#\n" * 4_500_000 + b"8 8 255\n" + bytes(64),
    "WebP with a canvas of 16,000 x 16,000": lambda: webp(16_000, 16_000),
}
"""By name: files that a decoder is never to see."""

LONG_WORK: dict[str, Callable[[], bytes]] = {
    "JPEG of 50 large scans": lambda: progressive(7000, 7000, 50),
    "PNG of 15,000 x 3,000 in 16 bits": lambda: png(15_000, 3000, 16, 6),
    "BMP, RLE8, of 4 MB": lambda: bmp(2000, 2000, b"\0\2\0\0" * 1_000_000),
    "JPEG with EXIF data of 300,000 values": lambda: with_segments(exif(300_000)),
}
"""By name: files that are within the limits, and make as much work as is allowed for."""


def all_files() -> Iterator[tuple[str, bytes]]:
    """Every attack, made when it is asked for."""
    for name, make in (REFUSED | LONG_WORK).items():
        yield name, make()
