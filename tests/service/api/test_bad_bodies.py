"""Bodies that are wrong or odd: forms, JSON and base64."""

import base64
import json
from collections.abc import Iterator

import pytest

from tests.conftest import Service
from tests.service.answers import PICTURE, prediction, refused, well, without_time

BASE64 = base64.b64encode(PICTURE).decode()
BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(autouse=True, scope="module")
def the_service_stays_well(server: Service) -> Iterator[None]:
    yield
    well(server)


def part(*headers: str, content: bytes = PICTURE) -> bytes:
    """A part of a multipart body, with its opening boundary."""
    return "\r\n".join([f"--{BOUNDARY}", *headers, "", ""]).encode() + content + b"\r\n"


NAMED = 'Content-Disposition: form-data; name="image"; filename="digit.png"'
END = f"--{BOUNDARY}--\r\n".encode()
WHOLE_PART = part(NAMED) + END

BODIES: dict[str, tuple[str, bytes, int, str, str]] = {
    "no boundary": ("multipart/form-data", WHOLE_PART, 400, "invalid_body", "boundary"),
    "an empty boundary": ("multipart/form-data; boundary=", WHOLE_PART, 400, "invalid_body", "multipart"),
    "another boundary": ("multipart/form-data; boundary=other", WHOLE_PART, 400, "invalid_body", "multipart"),
    "an endless boundary": (
        f"multipart/form-data; boundary={'x' * 5000}",
        WHOLE_PART,
        400,
        "invalid_body",
        "multipart",
    ),
    "an empty multipart body": (MULTIPART, b"", 400, "invalid_body", "send the complete form"),
    "multipart without parts": (MULTIPART, END, 422, "invalid_parameter", "curl -F image=@PICTURE"),
    "a part cut short": (MULTIPART, WHOLE_PART[:200], 400, "invalid_body", "send the complete form"),
    "multipart without its end": (MULTIPART, part(NAMED), 400, "invalid_body", "send the complete form"),
    "garbage as multipart": (MULTIPART, bytes(range(256)), 400, "invalid_body", "multipart"),
    "another field": (
        MULTIPART,
        part(NAMED.replace("image", "photo")) + END,
        422,
        "invalid_parameter",
        "found: 'photo'",
    ),
    "two pictures": (MULTIPART, part(NAMED) + WHOLE_PART, 422, "invalid_parameter", "/predict/batch"),
    "text instead of a file": (
        MULTIPART,
        part(NAMED.partition("; file")[0]) + END,
        422,
        "invalid_parameter",
        "needs the @",
    ),
    "an empty file": (MULTIPART, part(NAMED, content=b"") + END, 400, "invalid_image", "empty"),
    "a part without headers": (MULTIPART, part() + END, 400, "invalid_body", "multipart"),
    "a part without a name": (MULTIPART, part("Content-Disposition: form-data") + END, 400, "invalid_body", "name"),
    "a part header without a colon": (MULTIPART, part("Content-Disposition") + END, 400, "invalid_body", "multipart"),
    "a part header of odd bytes": (MULTIPART, part("Cont\0ent: \x7f", NAMED) + END, 400, "invalid_body", "multipart"),
    "multipart in multipart": (
        MULTIPART,
        part('Content-Disposition: form-data; name="image"; filename="x"', f"Content-Type: {MULTIPART}2", content=b"-")
        + END,
        415,
        "unsupported_media_type",
        "itself multipart",
    ),
    "more files than are taken": (MULTIPART, part(NAMED) * 273 + END, 413, "too_large", "fewer"),
    "more texts than are taken": (
        MULTIPART,
        part('Content-Disposition: form-data; name="a"', content=b"b") * 273 + END,
        413,
        "too_large",
        "fewer",
    ),
    "an empty body": ("image/png", b"", 400, "invalid_image", "empty"),
    "an empty body of no type": ("", b"", 400, "invalid_image", "empty"),
    "a form": ("application/x-www-form-urlencoded", b"image=7", 415, "unsupported_media_type", "multipart/form-data"),
    "text": ("text/plain", PICTURE, 415, "unsupported_media_type", "multipart/form-data"),
    "another multipart": (
        "multipart/mixed; boundary=x",
        WHOLE_PART,
        415,
        "unsupported_media_type",
        "multipart/form-data",
    ),
    "a type that is none": ("\u00e4;;=", PICTURE, 415, "unsupported_media_type", "multipart/form-data"),
    "JSON that is empty": ("application/json", b"", 400, "invalid_body", "not JSON"),
    "JSON that is a picture": ("application/json", PICTURE, 400, "invalid_body", "not JSON"),
    "JSON that is cut short": ("application/json", f'{{"image": "{BASE64}'.encode(), 400, "invalid_body", "not JSON"),
    "JSON of invalid UTF-8": ("application/json", b'{"image": "\xff"}', 400, "invalid_body", "not JSON"),
    "JSON of half a surrogate": ("application/json", rb'{"image": "\ud800"}', 400, "invalid_body", "not JSON"),
    "JSON in UTF-16": ("application/json", '{"image": ""}'.encode("utf-16"), 400, "invalid_body", "not JSON"),
    "JSON with NaN": ("application/json", b'{"image": NaN}', 400, "invalid_body", "not JSON"),
    "JSON nested too deeply": ("application/json", b"[" * 100_000 + b"]" * 100_000, 400, "invalid_body", "not JSON"),
} | {
    f"JSON {name}": (
        "application/json",
        json.dumps(content).encode(),
        422,
        "invalid_parameter",
        '{"image": "<base64>"}',
    )
    for name, content in {
        "array": [BASE64],
        "null": None,
        "number": 7,
        "text": BASE64,
        "without image": {"picture": BASE64},
        "empty object": {},
        "with another key": {"image": BASE64, "top_k": 1},
        "image null": {"image": None},
        "image of numbers": {"image": [1, 2, 3]},
        "image nested": {"image": {"image": BASE64}},
    }.items()
}
"""Content type, body, and the status, code and words of the answer."""


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused(server: Service, name: str) -> None:
    content_type, body, status, code, says = BODIES[name]
    headers = {b"content-type": content_type.encode("latin-1")} if content_type else {}
    refused(server.client.post("/predict", content=body, headers=headers), status, code, says)
    well(server)


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("", 400, "invalid_image"),
        ("data:image/png;base64,", 400, "invalid_image"),
        ("c2V2ZW4=", 415, "unsupported_media_type"),
        ("data:image/png;base64,c2V2ZW4=", 400, "invalid_image"),
        ("data:text/plain;base64,c2V2ZW4=", 415, "unsupported_media_type"),
        ("seven!", 400, "invalid_body"),
        ("siebenundzwölf", 400, "invalid_body"),
        (BASE64[:-1], 400, "invalid_body"),
        (BASE64 + "=", 400, "invalid_body"),
        ("\0" + BASE64, 400, "invalid_body"),
        (BASE64.replace("+", "-").replace("/", "_") + "-_==", 400, "invalid_body"),
        (f"data:image/png,{BASE64}", 400, "invalid_body"),
        (f"data:image/png;base64;{BASE64}", 400, "invalid_body"),
        (f"data:{'x' * 300};base64,{BASE64}", 400, "invalid_body"),
        ("data:" + ";a=b" * 40 + f",{BASE64}", 400, "invalid_body"),
        (f"file:///digit.png;base64,{BASE64}", 400, "invalid_body"),
        ("http://localhost/digit.png", 400, "invalid_body"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_wrong_base64_is_refused(server: Service, text: str, status: int, code: str) -> None:
    refused(server.client.post("/predict", json={"image": text}), status, code)
    well(server)


GOOD_BODIES: dict[str, tuple[str, bytes]] = {
    "an empty filename": (MULTIPART, part('Content-Disposition: form-data; name="image"; filename=""') + END),
    "a filename that is a path": (MULTIPART, part(NAMED.replace("digit.png", "../../etc/passwd\0")) + END),
    "bytes before and after the parts": (MULTIPART, b"\r\n" + WHOLE_PART + b"epilogue"),
    "an unknown charset": (MULTIPART + "; charset=x", WHOLE_PART),
    "a charset that cannot decode": (MULTIPART + "; charset=undefined", WHOLE_PART),
    "the last of two equal keys": ("application/json", f'{{"image": "x", "image": "{BASE64}"}}'.encode()),
    "a wrong type of the part": (MULTIPART, part(NAMED, "Content-Type: text/html") + END),
    "a wrong type of the body": ("image/gif", PICTURE),
    "a wrong type in a data URL": ("application/json", json.dumps({"image": f"data:a/b;base64,{BASE64}"}).encode()),
}


@pytest.mark.parametrize("name", GOOD_BODIES)
def test_an_odd_body_with_a_good_picture_is_answered_like_any_other(server: Service, name: str) -> None:
    content_type, body = GOOD_BODIES[name]
    answer = prediction(server.client.post("/predict", content=body, headers={"content-type": content_type}))
    assert without_time(answer) == without_time(prediction(server.client.post("/predict", content=PICTURE)))
