"""What is refused before it is parsed, and what is not."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.access import AccessLog
from service.errors import QueueFullError
from service.exchange import Exchange
from service.models import Models
from service.room import Room
from service.settings import Settings
from service.turnstile import Turnstile
from tests.conftest import STOP_S, Service
from tests.service.answers import connect
from tests.service.test_overload import GOOD, SLOW_S, ask, misbehaving

PLAIN = b"POST /predict?model=digits HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"


class Served(Models):
    """One model, of which only the room matters."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def find(self, name: str | None, version: int | None) -> Any:
        return self

    @property
    def room(self) -> Room:
        return self._room


@pytest.fixture
def room() -> Room:
    room = Room(1, 1000)
    room.take(1, 10)
    return room


@pytest.fixture
def turnstile(room: Room) -> Turnstile:
    turnstile = Turnstile(Served(room), AccessLog(Settings(access_log="none")))
    exchange = Exchange("1")
    exchange.status, exchange.error = QueueFullError.status, QueueFullError.code
    scope = {"method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"model=digits"}
    turnstile.remember(scope, exchange)
    return turnstile


def test_what_was_refused_is_refused_again(turnstile: Turnstile) -> None:
    answer = turnstile.refuse(PLAIN, None)
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "queue_full"


def test_with_room_again_nothing_is_held_against_anybody(turnstile: Turnstile, room: Room) -> None:
    room.give_back(1, 10)
    assert turnstile.refuse(PLAIN, None) is None
    assert not turnstile.refused


@pytest.mark.parametrize(
    "request_bytes",
    [
        PLAIN[:-1],
        PLAIN + b"e",
        PLAIN + PLAIN,
        PLAIN[:40],
        PLAIN.replace(b"model=digits", b"model=signs"),
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"Content-Length: 4\r\n", b""),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\ncontent-length: 4"),
        PLAIN.replace(b"Content-Length: 4", b"Content-Length: +4"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nTransfer-Encoding: chunked"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: close"),
        PLAIN.replace(b"Host: h", b"Host: h\r\nX-Request-Id: mine"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=range(13),
)
def test_all_else_is_parsed_as_always(turnstile: Turnstile, request_bytes: bytes) -> None:
    assert turnstile.refuse(request_bytes, None) is None


def test_being_refused_again_keeps_the_count(turnstile: Turnstile) -> None:
    (before,) = turnstile.refused.values()
    scope = {"method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"model=digits"}
    turnstile.remember(scope, Exchange("2"))
    assert list(turnstile.refused.values()) == [before]


def test_what_it_remembers_has_an_end(turnstile: Turnstile) -> None:
    exchange = Exchange("1")
    for number in range(10_000):
        scope = {"method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"top_k=%d" % number}
        turnstile.remember(scope, exchange)
    assert len(turnstile.refused) < 1000


def test_refused_on_one_connection_again_and_again_then_answered() -> None:
    request = b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(GOOD)
    request += GOOD
    with misbehaving("crawling", "--max-queue", 1) as service:
        with ThreadPoolExecutor(1) as threads, connect(service) as connection:
            answers = []
            others = threads.submit(ask_until_answered, service)
            while not others.done():
                answers.append(exchange(connection, request))
                if answers[-1][0] == 200:
                    time.sleep(SLOW_S)  # it is the others' turn
            answers.append(exchange(connection, request))
        refusals = [answer for answer in answers if answer[0] == 429]
        assert len(refusals) > 3
        assert answers[-1][0] == 200
        assert all(headers["retry-after"] == "1" for _, headers, _ in refusals)
        assert all(body["error"]["code"] == "queue_full" for _, _, body in refusals)
        assert len({headers["x-request-id"] for _, headers, _ in answers}) == len(answers)
        page = service.client.get("/metrics").text
        service.process.terminate()
        service.process.wait(STOP_S)
        log = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    counted = [line for line in page.splitlines() if line.startswith("stn_rejections_total") and "queue_full" in line]
    logged = sum(line.get("error") == "queue_full" for line in log)
    assert logged == sum(float(line.rpartition(" ")[2]) for line in counted) >= len(refusals)


def ask_until_answered(service: Service) -> None:
    while ask(service).status_code != 200:
        pass


def exchange(connection: socket.socket, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send a request and receive its answer."""
    connection.settimeout(STOP_S)
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(status.split()[1]), headers, json.loads(body)
