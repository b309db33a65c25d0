"""Attacks that are cheap to make: none costs the service much more than it costs who makes it, or anybody else."""

import io
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.server.message_reader import MAX_HEAD
from tests.conftest import Service, start_service
from tests.service.answers import PATIENCE_S, PICTURE, connect, error, post, predict, prediction, receive, refused, well
from tests.service.broken import GIF, chunk, png, rows
from tests.service.pictures import drawing, encode

MAX_PIXELS = 1_000_000
BYTES_A_PIXEL = 16
"""That decoding may take, with all copies: four channels, twice, and what the decoder needs."""
HEADER_S = 1
SIDE = 8000
CONFORMANCE = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
MARGIN = 16 * 2**20


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    with start_service("--max-pixels", MAX_PIXELS, "--header-timeout-s", HEADER_S) as service:
        predict(service)
        yield service
        well(service)


def memory(service: Service, what: str) -> int:
    """Bytes of memory: ``VmRSS`` now, ``VmHWM`` the most so far."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024


def saved(picture_format: str, mode: str = "L", side: int = SIDE, **options: object) -> bytes:
    """A picture of nothing, which is small as a file and large in memory."""
    content = io.BytesIO()
    Image.new(mode, (side, side)).save(content, picture_format, **options)
    return content.getvalue()


def repeat_frame(gif: bytes, count: int) -> bytes:
    """A GIF of one frame, ``count`` times."""
    start = gif.index(b"\x2c")
    return gif[:start] + gif[start:-1] * count + gif[-1:]


BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "PNG": (lambda: png(SIDE, SIDE, rows(SIDE, SIDE)), 413),
    "PNG of one bit": (lambda: saved("PNG", "1"), 413),
    "PNG with a text that grows": (
        lambda: png(32, 32, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 * 2**20), 9)), rows(32, 32)),
        200,
    ),
    "PNG with a colour profile that grows": (
        lambda: png(32, 32, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100 * 2**20), 9)), rows(32, 32)),
        200,
    ),
    "WebP": (lambda: saved("WEBP", "RGB", 4000, lossless=True, method=0), 413),
    "TIFF": (lambda: saved("TIFF", compression="tiff_adobe_deflate"), 413),
    "TIFF as a fax": (lambda: saved("TIFF", "1", compression="group4"), 413),
    "JPEG": (lambda: saved("JPEG"), 413),
    "GIF": (lambda: saved("GIF"), 413),
    "GIF of 10,000 frames": (lambda: repeat_frame(saved("GIF", side=16), 10_000), 200),
    "GIF with a frame beyond its edges": (
        lambda: GIF[: GIF.index(b"\x2c") + 5] + b"\xff\xff\xff\xff" + GIF[GIF.index(b"\x2c") + 9 :],
        200,
    ),
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_go_off(strict: Service, name: str) -> None:
    make, status = BOMBS[name]
    bomb = make()
    before = memory(strict, "VmHWM")
    assert strict.client.post("/predict", content=bomb).status_code == status
    assert memory(strict, "VmHWM") - before < MARGIN + 2 * len(bomb)
    well(strict)


@linux
@pytest.mark.parametrize(
    ("picture_format", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGBA", {"lossless": True, "method": 0}),
        ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("GIF", "P", {}),
    ],
    ids=str,
)
def test_a_picture_within_the_limit_takes_no_more_than_its_pixels_need(
    strict: Service, picture_format: str, mode: str, options: dict[str, object]
) -> None:
    before = memory(strict, "VmHWM")
    prediction(strict.client.post("/predict", content=saved(picture_format, mode, 1000, **options)))
    assert memory(strict, "VmHWM") - before < MARGIN + BYTES_A_PIXEL * MAX_PIXELS


@linux
def test_attacks_that_are_repeated_leave_nothing_behind(strict: Service) -> None:
    attacks = [make() for make, _ in BOMBS.values()] + [
        PICTURE[:-20],
        b"[" * 100_000,
        encode(drawing(900, 900), "TIFF"),
    ]

    def attack(rounds: int) -> int:
        for _ in range(rounds):
            for content in attacks:
                strict.client.post("/predict", content=content)
                strict.client.post("/predict/batch", files=[("images", content)] * 2)
        return memory(strict, "VmRSS")

    settled = attack(2)
    assert attack(6) < settled + MARGIN


def drip(connection: socket.socket, content: bytes, pause_s: float) -> float:
    """Send ``content`` a byte at a time until it is enough for the service; the seconds that it bore it."""
    started = time.monotonic()
    connection.setblocking(False)
    for position in range(len(content)):
        try:
            connection.send(content[position : position + 1])
            time.sleep(pause_s)
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except BlockingIOError:
            continue
        except OSError:
            break
    connection.settimeout(PATIENCE_S)
    return time.monotonic() - started


def test_a_head_that_drips_is_cut_off_while_others_are_answered(strict: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(1000))
    dripping = [connect(strict) for _ in range(100)]
    try:
        for connection in dripping:
            connection.sendall(head[:30])
        assert drip(dripping[0], head[30:], 0.05) < HEADER_S + 5
        answer = receive(dripping[0])
        assert answer.status == 408
        error(answer.content, "request_timeout", f"within {HEADER_S} s")
        predict(strict)
        assert {receive(connection).status for connection in dripping[1:]} == {408}
    finally:
        for connection in dripping:
            connection.close()


def test_a_body_may_take_longer_than_a_head(strict: Service) -> None:
    request = post(PICTURE)
    with connect(strict) as connection:
        connection.sendall(request[:-100])
        time.sleep(1.5 * HEADER_S)
        connection.sendall(request[-100:])
        assert receive(connection).status == 200


def test_a_second_head_on_a_connection_has_no_more_time_than_the_first(strict: Service) -> None:
    first = post(PICTURE).replace(b"Connection: close\r\n", b"")
    with connect(strict) as connection:
        connection.sendall(first)
        answer = b""
        while not answer.endswith(b"}}"):
            answer += connection.recv(2**16)
        connection.sendall(b"GET /models HTTP/1.1\r\nX: ")
        started = time.monotonic()
        assert receive(connection).status == 408
        assert time.monotonic() - started < HEADER_S + 5


@pytest.mark.parametrize("header", [b"X: " + b"y" * 100, b"y" * 100], ids=["a value", "a name"])
def test_a_head_without_end_is_refused_long_before_it_fills_the_memory(server: Service, header: bytes) -> None:
    with connect(server) as connection:
        sent = 0
        connection.sendall(b"GET /models HTTP/1.1\r\n" + header)
        try:
            while sent < 100 * MAX_HEAD:
                connection.sendall(b"y" * 4096)
                sent += 4096
        except OSError:
            pass
        assert sent < 100 * MAX_HEAD
    with connect(server) as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n" + header)
        time.sleep(0.2)
        connection.sendall(b"y" * (MAX_HEAD - 200))
        time.sleep(0.2)
        connection.sendall(b"y" * 400)
        answer = receive(connection)
    assert answer.status == 431
    error(answer.content, "head_too_large", str(MAX_HEAD))
    well(server)


@pytest.mark.parametrize(("path", "name"), [("/predict", "image"), ("/predict", "x"), ("/predict/batch", "images")])
def test_a_thousand_parts_are_too_many(server: Service, path: str, name: str) -> None:
    refused(server.client.post(path, files=[(name, PICTURE)] * 1000), 413, "too_large")
    refused(server.client.post(path, files=[(name, (None, b"text"))] * 1000), 413, "too_large")


def test_an_endless_boundary_costs_no_more_than_a_picture_of_its_size(server: Service) -> None:
    """As it did in several servers: CVE-2024-9056."""
    size = 4 * 2**20

    def seconds(content: bytes, content_type: str) -> float:
        started = time.perf_counter()
        answer = server.client.post("/predict", content=content, headers={"content-type": content_type})
        assert answer.status_code in (400, 413, 415, 422)
        return time.perf_counter() - started

    plain = min(seconds(bytes(size), "image/png") for _ in range(3))
    form = "multipart/form-data; boundary=x"
    for endless in (b"--x" + b"-" * size, b"--x\r\n" + b"\r\n" * (size // 2), b"--x" * (size // 3), b"-" * size):
        assert seconds(endless, form) < 0.5 + 50 * plain


NAMES = ["../digits", "..", "digits/../../etc", "/etc/passwd", "..\\digits", "digits\0", "%2e%2e%2f", "digits/1", "."]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_path(server: Service, name: str) -> None:
    refused(server.client.post("/predict", content=PICTURE, params={"model": name}), 404, "model_not_found")
    answer = server.client.post("/predict", files={"image": (name, PICTURE)})
    assert answer.status_code == 200, "the name of the file does not matter"
    assert server.client.post("/predict", content=PICTURE, params={"version": name}).status_code == 422


def test_a_compressed_body_is_not_decompressed(strict: Service) -> None:
    bomb = zlib.compress(bytes(2**28), 9)
    answer = strict.client.post("/predict", content=bomb, headers={"content-encoding": "deflate"})
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("label", ["POST /predict", "POST /predict/batch", "GET /models", "GET /health/ready"])
def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(server: Service, label: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    method, path = label.split()
    allowed, forbidden = (schema[path][method].as_strategy(generation_mode=mode) for mode in GenerationMode)

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(allowed | forbidden)
    def answers(case: Any) -> None:
        response = case.call()
        own_wish = response.status_code == 504 and "x-timeout-ms" in (case.headers or {})
        assert response.status_code < 500 or response.status_code == 503 or own_wish, response.text
        case.validate_response(response, checks=CONFORMANCE)

    answers()
    well(server)


def test_nobody_is_sent_to_a_host_that_a_client_names(server: Service) -> None:
    for path in ("/models/", "/docs/"):
        answer = server.client.get(path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)
