"""What no HTTP client sends: requests that are malformed, broken off or never end."""

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import Service
from tests.service.answers import PICTURE, connect, error, post, receive, well

TARGET = b"POST /predict HTTP/1.1\r\nHost: test\r\n"
CHUNKED = TARGET + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


@pytest.fixture
def connection(server: Service) -> Iterator[socket.socket]:
    with connect(server) as connected:
        yield connected
    well(server)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n\r\nnonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /models HTTP/9.9\r\nHost: test\r\n\r\n",
        b"BREW /predict HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHost test\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHo\0st: test\r\n\r\n",
        b"GET /mod els HTTP/1.1\r\nHost: test\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(40),
        TARGET + b"Content-Length: abc\r\n\r\n",
        TARGET + b"Content-Length: -1\r\n\r\n",
        TARGET + b"Content-Length: 0x10\r\n\r\n",
        TARGET + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        TARGET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        TARGET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"nonsense\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
    ],
    ids=lambda request: repr(request[-24:]),
)
def test_a_malformed_request_is_refused(connection: socket.socket, request_bytes: bytes) -> None:
    connection.sendall(request_bytes)
    connection.shutdown(socket.SHUT_WR)
    answer = receive(connection)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error(answer.content, "bad_request")


def test_a_body_that_breaks_behind_an_answer_that_has_begun_is_no_defect(connection: socket.socket) -> None:
    """It is refused, or the connection closed; `well` finds that the log is clean."""
    connection.sendall(CHUNKED.replace(b"POST /predict", b"GET /swagger/swagger-ui.css") + b"nonsense\r\n")
    answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert b"500 Internal" not in answer
    assert answer.count(b"\r\nx-request-id: ") <= 1


@pytest.mark.parametrize("length", [0, 10, 40, len(PICTURE) // 2])
def test_a_length_below_the_pictures_cuts_it_short(connection: socket.socket, length: int) -> None:
    connection.sendall(post(PICTURE, length=length))
    answer = receive(connection)
    assert answer.status == 400
    error(answer.content, "invalid_image")


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /pre",
        TARGET,
        post(PICTURE)[:-100],
        post(PICTURE, length=10**6),
        post(b"", "Content-Type: application/json", length=100) + b'{"image": "',
        post(b"", "Content-Type: multipart/form-data; boundary=x", length=100) + b"--x\r\nContent-Disp",
        post(b"", length=100, target="/predict/batch") + b"--x",
        CHUNKED + b"5\r\nabc",
    ],
    ids=lambda beginning: repr(beginning[-24:]),
)
def test_a_client_that_leaves_in_the_middle_harms_nobody(connection: socket.socket, beginning: bytes) -> None:
    connection.sendall(beginning)


def test_a_client_that_leaves_before_its_answer_harms_nobody(connection: socket.socket) -> None:
    connection.sendall(post(PICTURE))


@pytest.mark.parametrize("length", [10 * 2**20 + 1, 2**62])
def test_a_declared_length_above_the_limit_is_refused_before_the_body(connection: socket.socket, length: int) -> None:
    connection.sendall(post(b"", "Expect: 100-continue", length=length))
    answer = receive(connection)
    assert answer.status == 413
    error(answer.content, "too_large", "scale the picture down")


def test_a_client_that_asks_whether_to_continue_is_told_to(connection: socket.socket) -> None:
    request = post(PICTURE, "Expect: 100-continue")
    connection.sendall(request[: -len(PICTURE)])
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(PICTURE)
    assert receive(connection).status == 200


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_body_in_many_small_chunks_is_put_together(connection: socket.socket, size: int) -> None:
    pieces = [PICTURE[start : start + size] for start in range(0, len(PICTURE), size)]
    connection.sendall(CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
    assert receive(connection).status == 200


def test_two_requests_at_once_on_one_connection_are_both_answered(connection: socket.socket) -> None:
    first = post(PICTURE).replace(b"Connection: close\r\n", b"")
    connection.sendall(first + post(PICTURE[:50]))
    answers = connection.makefile("rb").read()
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 400 ") == 1


def test_a_websocket_is_refused(connection: socket.socket) -> None:
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    connection.sendall(
        b"GET /predict HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key + b"\r\n"
    )
    answer = receive(connection)
    assert answer.status == 405
    error(answer.content, "method_not_allowed")
