"""More than one request on a connection, and what comes behind a body: by the real process."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.server.message_reader import MAX_HEAD
from tests.conftest import STOP_S, Service, start_service, wait_until
from tests.service.answers import PICTURE, connect, error, post, prediction, receive, well
from tests.service.server.fast_path.test_queueing import KEPT, exchange, one_at_a_time, several
from tests.service.server.test_bad_wire import CHUNKED
from tests.service.server.test_overload import GOOD, SLOW_S, ask

MIB = 2**20
UPLOAD_S = 2
UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
"""What curl --http2 and Java's HttpClient send."""
UNKNOWN = post(GOOD, target="/predict?model=nobody").replace(b"Connection: close\r\n", b"")


def statuses(connection: socket.socket) -> list[int]:
    """Of all answers on ``connection``, to its end."""
    connection.settimeout(STOP_S)
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def pour(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send ``piece`` again and again until the service takes no more; the bytes that it took."""
    connection.settimeout(1)
    sent = 0
    try:
        while sent < most:
            sent += connection.send(piece)
    except OSError:
        pass
    return sent


def resident(service: Service) -> int:
    """Bytes of memory that it takes."""
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * 4096


@contextmanager
def impatient() -> Iterator[Service]:
    with start_service("--request-timeout-s", UPLOAD_S, "--header-timeout-s", UPLOAD_S) as service:
        yield service


@pytest.mark.parametrize("behind", [b"garbage\r\n\r\n", b"GET /x HTTP/1.1\r\nBad Header : x\r\n\r\n"])
def test_good_requests_are_answered_before_nonsense_behind_them_is_refused(behind: bytes) -> None:
    with one_at_a_time() as service, several(service, 1, KEPT), connect(service) as connection:
        connection.sendall(KEPT + KEPT + behind)
        assert statuses(connection) == [200, 200, 400]


def test_half_a_request_behind_a_whole_one_is_given_up_after_its_answer() -> None:
    with one_at_a_time("--request-timeout-s", 1) as service, several(service, 3, KEPT), connect(service) as connection:
        connection.sendall(KEPT + KEPT[:-10])
        assert statuses(connection) == [200, 408]


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "a moment later"])
def test_a_head_without_end_behind_a_request_fills_no_memory(apart: bool) -> None:
    with one_at_a_time() as service, several(service, 9, KEPT), connect(service) as connection:
        before = resident(service)
        beginning = b"GET /models HTTP/1.1\r\nHost: t\r\n"
        connection.sendall(KEPT if apart else KEPT + beginning)
        if apart:
            time.sleep(SLOW_S / 10)
            connection.sendall(beginning)
        pour(connection, b"a:\r\n" * (MAX_HEAD // 8), 30 * MIB)
        assert resident(service) - before < 64 * MIB
        prediction(ask(service))


def test_headers_without_end_behind_a_body_are_refused(server: Service) -> None:
    with connect(server) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n0\r\n")
        assert pour(connection, b"a:\r\n" * (MAX_HEAD // 8), 100 * MIB) < 100 * MIB
    with connect(server) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n0\r\nX: ")
        time.sleep(0.2)
        connection.sendall(b"y" * (MAX_HEAD + 1))
        answer = receive(connection)
    assert answer.status == 431
    error(answer.content, "head_too_large")
    well(server)


def test_headers_behind_a_body_are_not_those_of_the_request(server: Service) -> None:
    with connect(server) as connection:
        connection.sendall(CHUNKED + b"%x\r\n%s\r\n0\r\nX-Request-Id: mine\r\n\r\n" % (len(PICTURE), PICTURE))
        answer = receive(connection)
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "mine"


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "head and body apart"])
def test_a_wish_for_another_protocol_is_ignored(server: Service, apart: bool) -> None:
    request = post(PICTURE, *UPGRADE).replace(b"Connection: close\r\n", b"")
    with connect(server) as connection:
        for _ in range(2):
            if apart:
                connection.sendall(request.removesuffix(PICTURE))
                time.sleep(0.1)
            status, _, _ = exchange(connection, PICTURE if apart else request)
            assert status == 200


@pytest.mark.parametrize("cut", [b"Up", b"Upgrade: h2c\r", b"\r\n\r", b"\r\n\r\n"])
def test_a_wish_for_another_protocol_in_pieces_is_ignored_too(server: Service, cut: bytes) -> None:
    request = post(PICTURE, *UPGRADE).replace(b"Connection: close\r\n", b"")
    at = request.index(cut) + len(cut)
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(request[:at])
            time.sleep(0.1)
            assert exchange(connection, request[at:])[0] == 200


def test_who_is_refused_early_again_and_again_is_not_cut_off() -> None:
    with impatient() as service, connect(service) as connection:
        started = time.monotonic()
        while time.monotonic() - started < 1.5 * UPLOAD_S:
            connection.sendall(UNKNOWN.removesuffix(GOOD))
            time.sleep(0.05)  # it is refused by its head
            assert exchange(connection, GOOD)[0] == 404
        connection.sendall(KEPT.removesuffix(GOOD))
        time.sleep(UPLOAD_S / 2)
        assert exchange(connection, GOOD)[0] == 200


def test_empty_lines_between_requests_are_nothing() -> None:
    with impatient() as service, connect(service) as connection:
        connection.sendall(b"\r\n")
        assert exchange(connection, KEPT)[0] == 200
        for _ in range(3):
            connection.sendall(b"\r\n")
            time.sleep(UPLOAD_S / 2)
        assert exchange(connection, KEPT)[0] == 200


@pytest.mark.parametrize("size", [0, 2 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("behind", [b"", KEPT, KEPT + KEPT[:50]], ids=["", "another", "one and a half"])
def test_those_that_leave_while_their_pictures_wait_are_not_computed(size: int, behind: bytes) -> None:
    picture = GOOD + bytes(size)
    request = post(picture, target="/predict?top_k=3").replace(b"Connection: close\r\n", b"")
    with one_at_a_time("--max-bytes", 4 * MIB) as service:
        with several(service, 12, request + behind):
            time.sleep(SLOW_S)
        assert prediction(ask(service))["timings_ms"]["queue"] < 6 * SLOW_S * 1000


def test_a_client_that_reads_nothing_is_let_go_and_holds_up_nobody() -> None:
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n%s\r\n' % GOOD for _ in range(40)
    )
    form = post(
        parts + b"--x--\r\n", "Content-Type: multipart/form-data; boundary=x", target="/predict/batch?points=64"
    )
    kept = form.replace(b"Connection: close\r\n", b"")
    with impatient() as service, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(service.address)
        connection.sendall(kept + kept)
        prediction(ask(service))
        wait_until(lambda: service.log().count('"path":"/predict/batch"') == 2)  # the second could not be sent
        well(service)
