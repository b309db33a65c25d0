"""WS /stream: the newest frame is answered, older ones are dropped and counted, and nothing else is lost."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.app import create_app
from service.middleware.api_keys import make_key
from service.settings import Settings
from tests.conftest import Service, start_service, wait_until
from tests.service.answers import PICTURE, predict, refused, well
from tests.service.answers import connect as raw_connection
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, encode, noise

KEY, ENTRY = make_key("camera")
LARGE = encode(noise(1, 3000, 2000))
SIZE = 3_000_000


@contextmanager
def stream(service: Service, query: str = "rectified=none", **options: Any) -> Iterator[ClientConnection]:
    address = service.url.replace("http", "ws", 1)
    with connect(f"{address}/stream?{query}", proxy=None, compression=None, **options) as connection:
        yield connection


def received(connection: ClientConnection) -> Any:
    return json.loads(connection.recv(timeout=60))


def logged(service: Service) -> set[tuple[int, str | None]]:
    """Status and key of what the log says of streams."""
    lines = [json.loads(line) for line in service.log().splitlines() if '"path":"/stream"' in line]
    return {(line["status"], line.get("key")) for line in lines}


def refusal(service: Service, query: str = "", **options: Any) -> Any:
    """The error with which a connection ends at once."""
    with stream(service, query, **options) as connection:
        error = received(connection)["error"]
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, error["code"])
    return error


def test_each_frame_is_answered_as_by_predict(server: Service) -> None:
    with stream(server, "rectified=none&top_k=2&region=0,0,42,42") as connection:
        for number, picture in enumerate((PICTURE, encode(DIGITS[1], "JPEG"))):
            connection.send(picture)
            answer = received(connection)
            assert (answer["frame"], answer["dropped"]) == (number, 0)
            expected = predict(server, picture, rectified="none", top_k=2)
            assert answer["regions"][0]["predictions"] == expected["predictions"]


def test_of_many_frames_the_newest_is_answered_and_the_others_are_counted() -> None:
    with start_service("--workers", 1) as service, stream(service) as connection:
        for _ in range(6):
            connection.send(LARGE)
        connection.send(PICTURE)
        answers = [received(connection)]
        while answers[-1]["frame"] < 6:
            answers.append(received(connection))
        numbers = [answer["frame"] for answer in answers]
        assert numbers == sorted(set(numbers))
        dropped = answers[-1]["dropped"]
        assert dropped == 7 - len(answers)
        assert dropped > 0
        exposed = scrape(service)
        assert exposed("stn_stream_dropped_frames_total", model="digits") == dropped
        assert exposed("stn_requests_total", route="/stream", status=200) == len(answers)
        assert service.client.post("/predict", content=PICTURE).status_code == 200
        well(service)


def test_a_bad_frame_gets_an_error_and_the_stream_goes_on(server: Service) -> None:
    with stream(server) as connection:
        for bad, code in (
            (PICTURE[:30], "invalid_image"),
            (b"", "invalid_image"),
            (b"seven", "unsupported_media_type"),
        ):
            connection.send(bad)
            assert received(connection)["error"]["code"] == code
        connection.send("text")
        error = received(connection)["error"]
        assert (error["code"], "binary message" in error["message"]) == ("invalid_body", True)
        connection.send(PICTURE)
        answer = received(connection)
        assert (answer["frame"], answer["predictions"][0]["label"]) == (4, "7")
    well(server)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("model=letters", "model_not_found"),
        ("unknown=1", "invalid_parameter"),
        ("region=9,9,1,1", "invalid_parameter"),
        ("top_k=0", "invalid_parameter"),
    ],
)
def test_wrong_options_end_the_connection_with_the_reason(server: Service, query: str, code: str) -> None:
    assert refusal(server, query)["code"] == code
    well(server)


def test_pages_of_other_origins_may_not_open_it(server: Service) -> None:
    assert refusal(server, origin="https://other.example")["code"] == "forbidden"
    assert refusal(server, origin="null")["code"] == "forbidden"
    assert refusal(server, origin="http://[x")["code"] == "forbidden"
    with stream(server, origin=server.url) as connection:
        connection.send(PICTURE)
        assert "predictions" in received(connection)


def test_keys_rates_sizes_and_origins_hold_for_streams_too() -> None:
    flags = ("--api-keys", ENTRY, "--rate-limit", "3/hour", "--max-bytes", SIZE, "--max-streams", 1)
    with start_service(*flags, "--cors-origins", "https://page.example") as service:
        for headers in ({}, {"X-API-Key": "stn_wrong"}):
            with pytest.raises(InvalidStatus) as status, stream(service, additional_headers=headers):
                pass
            assert status.value.response.status_code == 403
        options: Any = {"additional_headers": {"X-API-Key": KEY}, "origin": "https://page.example"}
        with stream(service, **options) as connection:
            assert refusal(service, **options)["code"] == "queue_full"
            for _ in range(3):
                connection.send(PICTURE)
                assert "predictions" in received(connection)
            connection.send(PICTURE)
            assert received(connection)["error"]["code"] == "rate_limited"
            with pytest.raises(ConnectionClosed) as closed:
                connection.send(bytes(SIZE + 1))
                connection.recv(timeout=60)
            assert closed.value.rcvd is None or closed.value.rcvd.code == 1009, "it may be reset while it sends"
        wait_until(lambda: logged(service) == {(200, "camera"), (429, "camera"), (401, None)})
        assert "Traceback" not in service.log()


def test_idle_streams_are_no_requests_in_progress_and_end() -> None:
    with (
        start_service("--max-batch", 2, "--keep-alive-s", 2) as service,
        stream(service) as one,
        stream(service) as two,
    ):
        assert service.client.post("/predict", content=PICTURE, timeout=5).status_code == 200
        for connection in (one, two):
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert "no frame" in closed.value.rcvd.reason
        well(service)


def test_a_client_that_does_not_read_gives_its_place_to_others() -> None:
    large = "rectified_size=1500x1500"
    with start_service("--max-streams", 1, "--keep-alive-s", 2, "--request-timeout-s", 2) as service:
        head = f"GET /stream?{large} HTTP/1.1\r\nHost: {service.url.partition('//')[2]}\r\n"
        head += "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3RuLXNlcnZlIHNlcnZlcw==\r\n\r\n"
        frame = b"\x82\xfe" + len(PICTURE).to_bytes(2, "big") + bytes(4) + PICTURE
        with raw_connection(service) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head.encode())
            for _ in range(20):
                connection.sendall(frame)
                time.sleep(0.05)
            wait_until(lambda: takes_frames(service))


def takes_frames(service: Service) -> bool:
    with stream(service) as connection:
        try:
            connection.send(PICTURE)
            return "predictions" in received(connection)
        except ConnectionClosed:
            return False


def test_a_proxy_that_is_trusted_names_the_client_of_a_stream() -> None:
    with start_service("--rate-limit", "1/hour", "--forwarded-allow-ips", "127.0.0.1") as service:
        for client in ("203.0.113.1", "203.0.113.2"):
            with stream(service, additional_headers={"X-Forwarded-For": client}) as connection:
                connection.send(PICTURE)
                assert "predictions" in received(connection)


def test_it_can_be_turned_off() -> None:
    with start_service("--stream", "false") as service, pytest.raises(InvalidStatus) as status, stream(service):
        pass
    assert status.value.response.status_code == 404


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nX: " + 9000 * "x" + "\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n" + 200 * "X: y\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
    ],
)
def test_a_handshake_that_is_none_is_refused_and_the_connection_closed(server: Service, lines: str) -> None:
    with raw_connection(server) as connection:
        connection.sendall(f"GET /stream HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode())
        connection.settimeout(60)
        status = int(connection.recv(2**16).split(b" ")[1])
        assert status in (400, 404, 426, 431)
    well(server)


def test_frames_that_are_none_end_only_their_connection(server: Service) -> None:
    with stream(server) as connection:
        connection.socket.sendall(b"\xff" * 100)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=60)
    well(server)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(server: Service) -> None:
    for _ in range(3):
        with stream(server) as connection:
            connection.send(LARGE)
            connection.socket.close()
    well(server)


def test_plain_requests_for_it_find_nothing(server: Service) -> None:
    assert server.client.get("/stream").status_code == 404
    assert server.client.post("/stream", content=PICTURE).status_code in (404, 405)


def test_it_works_in_any_asgi_server() -> None:
    with TestClient(create_app(Settings(load="digits/3", log_level="error"))) as client:
        with client.websocket_connect("/stream?rectified=none") as opened:
            opened.send_bytes(PICTURE)
            assert opened.receive_json()["predictions"][0]["label"] == "7"
        with client.websocket_connect("/stream?model=letters") as opened:
            assert opened.receive_json()["error"]["code"] == "model_not_found"
            with pytest.raises(WebSocketDisconnect):
                opened.receive_json()
        refused(client.post("/predict", content=b"seven"), 415, "unsupported_media_type")
