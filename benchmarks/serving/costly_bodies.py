"""Bodies that are made to cost much; `benchmarks.serving.costs` sends them."""

import gzip
import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

INFER = "/v2/models/digits/infer"
BODY = 10 * 2**20
"""Bytes of the largest body of /predict and of the largest JSON."""
BATCH = 64 * 2**20
BOUNDARY = b"frontier"
FORM = {"content-type": "multipart/form-data; boundary=frontier"}
JSON = {"content-type": "application/json"}
GZIP = {"content-encoding": "gzip"}

Headers = dict[str, str]


class Input(NamedTuple):
    """A kind of request that is cheap to make."""

    make: Callable[[], bytes]
    """Gives the body."""
    path: str = "/predict"
    headers: Headers = {"content-type": "application/octet-stream"}  # noqa: RUF012 - it is never changed


def fill(head: bytes, piece: bytes, tail: bytes = b"", size: int = BODY) -> bytes:
    """``piece`` between ``head`` and ``tail``, as often as ``size`` bytes hold it."""
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def part(headers: bytes, content: bytes) -> bytes:
    """A part of a form."""
    return b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def picture() -> bytes:
    """A small picture as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((42, 42), np.uint8)).save(content, "PNG")
    return content.getvalue()


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"'
FILES = FILE.replace(b'"image"', b'"images"')
TEXT = b'Content-Disposition: form-data; name="top_k"'
CLOSING = b"--" + BOUNDARY + b"--\r\n"
INPUT = b'{"name":"image","shape":[1],"datatype":"UINT8"'


def empty_blocks() -> bytes:
    """A deflate stream that inflates to nothing: stored blocks without any text."""
    return b"\x78\x9c" + b"\0\0\0\xff\xff" * (BODY // 5 - 10)


def tables() -> bytes:
    """A deflate stream of blocks that are hardly more than the tables of their codes."""
    compressor = zlib.compressobj(9)
    text = bytes(range(256)) + bytes(64)
    blocks = b"".join(
        compressor.compress(text[n:] + text[:n]) + compressor.flush(zlib.Z_FULL_FLUSH) for n in range(256)
    )
    return fill(blocks, blocks[2:])


def json_attack(path: str, head: bytes, piece: bytes, tail: bytes) -> dict[str, Input]:
    """An attack by JSON, plain and, where that is taken, compressed."""

    def content() -> bytes:
        return fill(head, piece, tail)

    headers = JSON if path == "/predict" else {}
    plain = {"": Input(content, path, headers)}
    if path != INFER:
        return plain
    return plain | {", gzip": Input(lambda: gzip.compress(content(), 9), path, GZIP)}


PIECES: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "lists": ("/predict", b"[", b"[],", b"[]]"),
    "a text of escapes": ("/predict", b'{"image":"', b"\\n", b'"}'),
    "a text of white space": ("/predict", b'{"image":"', b"aa ", b'"}'),
    "the largest base64": ("/predict", b'{"image":"', b"AAAA", b'"}'),
    "a number": ("/predict", b'{"image":', b"9", b"}"),
    "the same key": ("/predict", b"{", b'"image":"",', b'"image":""}'),
    "inputs of nothing": (INFER, b'{"inputs":[', b"{},", b"{}]}"),
    "inputs": (INFER, b'{"inputs":[', INPUT + b"},", INPUT + b"}]}"),
    "outputs": (INFER, b'{"inputs":[' + INPUT + b'}],"outputs":[', b'{"name":"a"},', b'{"name":"a"}]}'),
    "parameters": (INFER, b'{"inputs":[],"parameters":{', b'"aaaaaaa":1,', b'"a":1}}'),
    "shape": (INFER, b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[', b'"a",', b'"a"]}]}'),
    "data of lists": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"[],", b"[]]}]}"),
    "data of numbers": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"0,", b"0]}]}"),
    "data of one number": (INFER, b'{"inputs":[' + INPUT + b',"data":[', b"9", b"]}]}"),
    "data of depth": (INFER, b'{"inputs":[' + INPUT + b',"data":', b"[", b""),
    "data of texts": (INFER, b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[', b'"",', b'""]}]}'),
    "a field that is not known": (INFER, b'{"inputs":[],"x":[', b"{},", b"{}]}"),
    "a key": (INFER, b'{"', b"x", b'":1}'),
}

BODIES: dict[str, Input] = {
    f"JSON of {name}{form}": attack for name, pieces in PIECES.items() for form, attack in json_attack(*pieces).items()
} | {
    "gzip of zeros": Input(lambda: gzip.compress(bytes(2**30), 9), INFER, GZIP),
    "deflate of empty blocks": Input(empty_blocks, INFER, {"content-encoding": "deflate"}),
    "deflate of tables": Input(tables, INFER, {"content-encoding": "deflate"}),
    "gzip of noise, 64 MiB": Input(
        lambda: gzip.compress(np.random.default_rng(0).bytes(BATCH - 2**20), 1),
        INFER,
        GZIP | {"inference-header-content-length": "2"},
    ),
    "form with a charset": Input(
        lambda: part(TEXT, b"a" * 1_300_000 + b"-" + b"A" * 9) + part(FILE, picture()) + CLOSING,
        "/predict",
        {"content-type": "multipart/form-data; boundary=frontier; charset=punycode"},
    ),
    "form of heads": Input(lambda: part(FILE + b"\r\nX: " + b";a=" * 2600, b"") * 16 + CLOSING, "/predict", FORM),
    "form of parts": Input(lambda: part(FILE, b"") * 90_000 + CLOSING, "/predict", FORM),
    "form of boundaries": Input(lambda: part(FILE, b"\r\n--frontie" * 900_000) + CLOSING, "/predict", FORM),
    "form of 256 pictures, 64 MiB": Input(
        lambda: part(FILES, bytes(BATCH // 256 - 200)) * 256 + CLOSING,
        "/predict/batch",
        FORM,
    ),
    "form of one part, 64 MiB": Input(lambda: part(FILES, bytes(BATCH - 200)) + CLOSING, "/predict/batch", FORM),
    "form of parameters": Input(lambda: part(FILES + b";a=1" * 1900, b"") * 127 + CLOSING, "/predict/batch", FORM),
    "form of a name of a file, 64 MiB": Input(
        lambda: part(FILES[:-1] + b"a" * (BATCH - 400), b"") + CLOSING, "/predict/batch", FORM
    ),
    "form of 256 pictures, with points": Input(
        lambda: part(FILES, picture()) * 256 + CLOSING, "/predict/batch?points=16", FORM
    ),
    "query of options": Input(picture, "/predict?" + "&".join(f"a{n}" for n in range(9_000)), {}),
}
