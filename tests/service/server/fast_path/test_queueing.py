"""The real process, with more requests than it works on at once: which of them wait, and how that ends."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.conftest import FAST_PATH, STOP_S, Service
from tests.service.answers import connect, post, prediction, receive
from tests.service.exposed import scrape
from tests.service.server.test_overload import GOOD, SLOW_S, ask, misbehaving

KEPT = post(GOOD).replace(b"Connection: close\r\n", b"")
"""A request on a connection that stays open."""


def test_refused_on_one_connection_again_and_again_then_answered() -> None:
    with misbehaving("crawling", "--max-queue", 1) as service:
        with ThreadPoolExecutor(1) as threads, connect(service) as connection:
            answers = []
            others = threads.submit(ask_until_answered, service)
            while not others.done():
                answers.append(exchange(connection, KEPT))
                if answers[-1][0] == 200:
                    time.sleep(SLOW_S)  # it is the others' turn
            answers.append(exchange(connection, KEPT))
        refusals = [answer for answer in answers if answer[0] == 429]
        assert len(refusals) > 3
        assert answers[-1][0] == 200
        assert all(1 <= int(headers["retry-after"]) <= 60 for _, headers, _ in refusals)
        assert all(body["error"]["code"] == "queue_full" for _, _, body in refusals)
        assert len({headers["x-request-id"] for _, headers, _ in answers}) == len(answers)
        page = service.client.get("/metrics").text
        service.process.terminate()
        service.process.wait(STOP_S)
        log = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    counted = [line for line in page.splitlines() if line.startswith("stn_rejections_total") and "queue_full" in line]
    logged = sum(line.get("error") == "queue_full" for line in log)
    assert logged == sum(float(line.rpartition(" ")[2]) for line in counted) >= len(refusals)


@pytest.mark.skipif(FAST_PATH == "off", reason="the application reads a body before it takes room for it")
def test_a_head_and_a_body_that_come_apart_are_refused_as_if_they_were_one() -> None:
    head, body = KEPT.removesuffix(GOOD), GOOD[:-20]
    with (
        misbehaving("crawling", "--max-queue", 1, "--max-batch", 1) as service,
        several(service, 1, KEPT) as busy,
        connect(service) as connection,
    ):
        for _ in range(3):
            connection.sendall(head.replace(b"Length: %d" % len(GOOD), b"Length: %d" % len(body)))
            time.sleep(SLOW_S / 10)
            assert exchange(connection, body)[0] == 429, "nobody has seen that the picture is damaged"
        assert exchange(busy[0], b"")[0] == 200


def test_a_body_that_is_far_behind_its_head_has_the_time_that_bodies_have() -> None:
    head, body = KEPT.removesuffix(GOOD), GOOD
    with (
        one_at_a_time("--request-timeout-s", 1) as service,
        several(service, 5, KEPT),
        several(service, 2, head) as behind,
    ):
        late, never = behind
        time.sleep(5 * SLOW_S)
        assert exchange(late, body)[0] == 200
        answer = receive(never)
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")


def test_those_that_leave_unparsed_have_a_line_each() -> None:
    def named(name: str) -> bytes:
        return KEPT.replace(b"Host: test", b"Host: test\r\nX-Request-ID: " + name.encode())

    with one_at_a_time() as service:
        head = named("head").removesuffix(GOOD)
        with several(service, 5, KEPT), several(service, 1, named("held")), several(service, 1, head):
            pass
        prediction(ask(service))
        service.process.terminate()
        service.process.wait(STOP_S)
        log = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
        assert "Traceback" not in service.log()
    ended = [line for line in log if line["event"] == "request"]
    assert len(ended) == 1 + 5 + 1 + 1 + 1
    (held,) = [line for line in ended if line["request_id"] == "held"]
    (head,) = [line for line in ended if line["request_id"] == "head"]
    assert (held["status"], held["path"], held["model"]) == (499, "/predict", "digits")
    assert (head["status"], head["path"]) == (499, "/predict")


def ask_until_answered(service: Service) -> None:
    while ask(service).status_code != 200:
        pass


def exchange(connection: socket.socket, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send a request and receive its answer."""
    connection.settimeout(STOP_S)
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += some_of(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += some_of(connection)
    return int(status.split()[1]), headers, json.loads(body)


def some_of(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    assert piece, "closed in the middle of an answer"
    return piece


@contextmanager
def one_at_a_time(*flags: object) -> Iterator[Service]:
    """A slow service of one picture a batch, which has answered one: whoever comes now while it is busy waits."""
    with misbehaving("slow", "--max-batch", 1, *flags) as service:
        prediction(ask(service))
        yield service


@contextmanager
def several(service: Service, count: int, request: bytes) -> Iterator[list[socket.socket]]:
    """Connections on which a request came, one after the other."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service)) for _ in range(count)]
        for connection in connections:
            connection.sendall(request)
            time.sleep(SLOW_S / 50)
        yield connections


def test_those_that_wait_in_the_queue_are_answered_and_their_times_are_true() -> None:
    with one_at_a_time() as service:
        started = time.perf_counter()
        with several(service, 6, post(GOOD)) as connections:
            answers = [receive(connection) for connection in connections]
        took_ms = (time.perf_counter() - started) * 1000
        assert [answer.status for answer in answers] == [200] * 6
        times = [json.loads(answer.content)["timings_ms"] for answer in answers]
        queues = [each["queue"] for each in times]
        assert queues == sorted(queues), "in the order in which they came"
        assert 2 * SLOW_S * 1000 <= queues[-1] <= took_ms
        for each in times:
            assert each["total"] >= each["decode"] + each["queue"] + each["inference"] + each["encode"] - 0.01
        page = service.client.get("/metrics").text
    (stage,) = [
        line for line in page.splitlines() if line.startswith("stn_stage_duration_seconds_sum") and "queue" in line
    ]
    assert float(stage.rpartition(" ")[2]) * 1000 >= sum(queues)


@pytest.mark.parametrize("more", [b"", b"POST /pre"], ids=["", "with more to say"])
def test_those_that_leave_while_they_wait_in_the_queue_are_not_computed(more: bytes) -> None:
    with one_at_a_time() as service:
        with several(service, 10, KEPT + more):
            time.sleep(SLOW_S / 2)
        assert prediction(ask(service))["timings_ms"]["queue"] < 4 * SLOW_S * 1000


def test_those_that_wait_in_the_queue_are_answered_before_the_end() -> None:
    with one_at_a_time() as service, several(service, 6, KEPT) as connections:
        service.process.terminate()
        answers = [receive(connection) for connection in connections]
        assert [answer.status for answer in answers] == [200] * 6
        assert answers[-1].headers["connection"] == "close"
        assert service.process.wait(STOP_S) == 0


def test_what_is_not_http_does_not_hold_up_those_behind_it() -> None:
    bad = KEPT.replace(b"Host: test", b"Bad Header : x")
    with one_at_a_time() as service, several(service, 3, KEPT) as first, several(service, 3, bad) as bad_ones:
        with several(service, 1, KEPT) as last:
            service.process.terminate()
            assert [receive(connection).status for connection in (*first, *bad_ones, *last)] == [200] * 3 + [
                400
            ] * 3 + [200]
        assert service.process.wait(STOP_S) == 0


def test_those_whose_time_is_up_while_they_wait_in_the_queue_are_told() -> None:
    with one_at_a_time("--timeout-ms", int(3000 * SLOW_S)) as service, several(service, 20, post(GOOD)) as connections:
        statuses = [receive(connection).status for connection in connections]
        assert set(statuses) == {200, 504}
        computed = scrape(service)("nv_inference_count") - 1  # the one at the beginning
        assert statuses.count(200) <= computed < len(statuses)
        prediction(ask(service))


def test_a_client_that_sends_more_while_it_waits_is_answered_in_order() -> None:
    with one_at_a_time() as service, several(service, 5, KEPT) as connections:
        connections[-1].sendall(post(GOOD, target="/predict?top_k=1"))
        connections[-1].settimeout(STOP_S)
        received = b""
        while piece := connections[-1].recv(65536):
            received += piece
    first, second = (json.loads(part.partition(b"\r\n\r\n")[2]) for part in received.split(b"HTTP/1.1 200 OK")[1:])
    assert (len(first["predictions"]), len(second["predictions"])) == (5, 1)
