"""The real process under more than it can do: refusals, deadlines, clients that leave, models that fail and hang."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.server.watchdog import HANGS
from tests.conftest import START_S, STOP_S, Service, start_service, wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, connect, post, predict, prediction, receive, refused
from tests.service.broken import DAMAGED
from tests.service.exposed import scrape
from tests.service.pictures import ARTIFACT, Answer, difference, encode, noise

GOOD = encode(np.zeros_like(noise(0)))
EVIL = encode(np.full_like(noise(0), 255))
SLOW_S = 0.1
"""How long each batch of the slow model takes."""
CRAWLING_S = 0.7
TIMEOUT_MS = 500
MANY = 10_000
CONNECTIONS = 101


@contextmanager
def misbehaving(kind: str, *flags: object) -> Iterator[Service]:
    """A service of one model, whose golden pictures are dark: bright ones would make it misbehave at the start."""
    with tempfile.TemporaryDirectory() as models:
        shutil.copytree(ARTIFACT.folder, Path(models) / "digits" / ARTIFACT.folder.name)
        module = ("tests.service.misbehaving", kind)
        with start_service("--models", models, *flags, module=module) as service:
            yield service


def ask(service: Service, picture: bytes = GOOD, timeout_ms: str | None = None) -> httpx.Response:
    headers = {"X-Timeout-Ms": timeout_ms} if timeout_ms else {}
    return service.ask("POST", "/predict", content=picture, headers=headers)


def ask_many(service: Service, count: int, timeout_ms: str | None = None) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: ask(service, timeout_ms=timeout_ms), range(count)))


def log_events(service: Service) -> list[str]:
    return [json.loads(line)["event"] for line in service.log().splitlines() if line.startswith("{")]


def wait_for(service: Service, event: str) -> None:
    deadline = time.monotonic() + START_S
    while event not in log_events(service):
        assert time.monotonic() < deadline, f"no {event} in the log:\n{service.log()}"
        time.sleep(0.05)


def test_a_full_queue_refuses_at_once_and_undecoded() -> None:
    with misbehaving("crawling", "--max-queue", 2, "--max-batch", 1) as service, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(ask, service) for _ in range(2)]
        wait_until(lambda: scrape(service)("stn_queue_depth") == 1)  # behind the one that is computed
        response = ask(service, DAMAGED["PNG cut in half"])
        assert not all(answer.done() for answer in waiting), "it did not wait for its turn"
        refused(response, 429, "queue_full", "try again a little later")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        refused(ask(service, DAMAGED["PNG cut in half"]), 400, "invalid_image")


def test_the_queue_is_full_of_bytes_too() -> None:
    with misbehaving("crawling", "--max-queue-bytes", 3 * len(GOOD), "--max-batch", 1) as service:
        statuses = sorted(response.status_code for response in ask_many(service, 8))
        assert statuses.count(200) >= 3
        assert set(statuses) == {200, 429}
        texts = [response.text for response in ask_many(service, 8) if response.status_code == 429]
        assert texts
        assert all("bytes are waiting" in text for text in texts)
        prediction(ask(service))


def test_what_is_overdue_is_answered_in_time_and_not_computed() -> None:
    with misbehaving("slow", "--max-batch", 1, "--timeout-ms", TIMEOUT_MS) as service:
        responses = ask_many(service, 16)
        answered = [response for response in responses if response.status_code == 200]
        assert all(prediction(response)["timings_ms"]["queue"] < TIMEOUT_MS for response in answered)
        overdue = [response for response in responses if response.status_code != 200]
        assert overdue
        for response in overdue:
            refused(response, 504, "deadline_exceeded", "try again later")
        computed = scrape(service)("nv_inference_count")
        assert len(answered) <= computed < len(responses)
        assert prediction(ask(service))["timings_ms"]["queue"] < 4 * SLOW_S * 1000, "the others have left the queue"


def test_a_request_may_have_less_patience_than_the_service() -> None:
    with misbehaving("slow") as service:
        refused(ask(service, timeout_ms="20"), 504, "deadline_exceeded")
        prediction(ask(service, timeout_ms="99999999"))
        for wrong in ("0", "-1", "soon", "1.5", "9" * 30):
            refused(ask(service, timeout_ms=wrong), 422, "invalid_parameter", "X-Timeout-Ms")


def test_a_client_that_leaves_the_queue_is_not_computed() -> None:
    with misbehaving("slow", "--max-batch", 1) as service:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(ask, service)
            time.sleep(SLOW_S / 4)
            gone = [connect(service) for _ in range(10)]
            for connection in gone:
                connection.sendall(post(GOOD))
            time.sleep(SLOW_S / 2)
            for connection in gone:
                connection.close()
            prediction(first.result())
        assert prediction(ask(service))["timings_ms"]["queue"] < 4 * SLOW_S * 1000


def test_times_and_batch_sizes_are_true() -> None:
    with misbehaving("slow", "--max-batch", 4) as service:
        answers = [prediction(response) for response in ask_many(service, 9)]
        for answer in answers:
            assert SLOW_S * 1000 <= answer["timings_ms"]["inference"] < 4 * SLOW_S * 1000
            assert answer["batch_size"] <= 4
        assert max(answer["timings_ms"]["queue"] for answer in answers) >= SLOW_S * 1000
        assert sum(1 / answer["batch_size"] for answer in answers) == pytest.approx(
            len({answer["timings_ms"]["inference"] for answer in answers}), abs=0.01
        ), "the answers of a batch say the same"


def test_an_inference_that_raises_fails_its_own_batch_alone() -> None:
    with misbehaving("failing") as service:
        for _ in range(3):
            refused(ask(service, EVIL), 500, "inference_failed")
            prediction(ask(service))
        assert service.client.get("/health/ready").status_code == 200


def test_health_answers_while_the_queue_is_full() -> None:
    with misbehaving("crawling", "--max-queue", 8, "--max-batch", 1) as service, ThreadPoolExecutor(16) as threads:
        flood = [threads.submit(ask, service) for _ in range(32)]
        times = []
        while not all(answer.done() for answer in flood):
            started = time.monotonic()
            assert service.client.get("/health/ready").status_code == 200
            times.append(time.monotonic() - started)
            time.sleep(0.01)
        assert {answer.result().status_code for answer in flood} <= {200, 429}
    assert sorted(times)[len(times) // 2] < CRAWLING_S, "it waits for no inference"


def test_a_model_that_hangs_is_given_up_and_taken_back_when_it_answers() -> None:
    with misbehaving("recovering", "--inference-timeout-s", 1) as service:
        with ThreadPoolExecutor(1) as threads:
            hanging = threads.submit(ask, service, EVIL)
            wait_for(service, "model_hangs")
            refused(hanging.result(), 500, "inference_failed", "hangs")
            refused(ask(service), 503, "not_ready", "hangs")
            for state in ("ready", "live"):
                refused(service.client.get(f"/health/{state}"), 503, "not_ready")
        wait_for(service, "model_answers_again")
        prediction(ask(service))
        assert service.client.get("/health/ready").status_code == 200


def test_a_service_whose_model_hangs_can_be_stopped() -> None:
    with misbehaving("hanging", "--inference-timeout-s", 1) as service:
        refused(ask(service, EVIL), 500, "inference_failed", "hangs")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == HANGS


def test_a_process_that_stands_still_ends_and_its_clients_do_not_hang() -> None:
    with misbehaving("hanging in place", "--inference-timeout-s", 2, "--threads", 1) as service:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(service, EVIL)
        assert service.process.wait(STOP_S) == HANGS
        assert "event_loop_hangs" in log_events(service)
        assert "most recent call first" in service.log(), "the stacks say what it hung in"
        assert "misbehaving.py" in service.log()


def test_an_upload_that_stalls_is_told_so() -> None:
    with start_service("--request-timeout-s", 1, "--header-timeout-s", 1) as service:
        for beginning in (post(PICTURE)[:-100], b"POST /predict HTTP/1.1\r\nHost: te"):
            with connect(service) as connection:
                connection.sendall(beginning)
                answer = receive(connection)
                assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
        with connect(service) as connection:
            assert connection.recv(100) == b"", "who says nothing is let go without a word"
        predict(service)
        assert "Traceback" not in service.log()


def test_past_its_patience_a_stopping_service_says_so_and_logs_no_traceback() -> None:
    with start_service("--shutdown-timeout-s", 1) as service, connect(service) as connection:
        connection.sendall(post(PICTURE)[:-100])
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        answer = receive(connection)
        assert (answer.status, answer.json()["error"]["code"]) == (503, "not_ready")
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()


def test_everyone_of_ten_thousand_gets_their_own_answer(tmp_path: Path) -> None:
    """Through cancellations, bad pictures and two models: the same label and theta as alone."""
    artifacts.write_labelled(tmp_path / "one" / "1", "one-")
    artifacts.write_labelled(tmp_path / "two" / "1", "two-")
    distinct = [encode(noise(seed)) for seed in range(200)]

    async def talk(service: Service, numbers: range, alone: dict[tuple[str, int], Answer]) -> None:
        reader, writer = await asyncio.open_connection(*service.address)
        for number in numbers:
            model, index = ("one", "two")[number % 2], number % len(distinct)
            bad, leaves = number % 50 == 7, number % 40 == 3
            body = DAMAGED["PNG cut in half"] if bad else distinct[index]
            target = f"/predict?model={model}&rectified=none"
            writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            if leaves:
                writer.close()
                reader, writer = await asyncio.open_connection(*service.address)
                continue
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            found = json.loads(await reader.readexactly(length))
            if bad:
                assert found["error"]["code"] == "invalid_image"
                continue
            assert found["predictions"][0]["label"] == alone[model, index]["predictions"][0]["label"]
            assert difference(np.array(found["theta"]), np.array(alone[model, index]["theta"])) < 1e-3
        writer.close()

    async def flood(service: Service) -> None:
        alone = {
            (model, index): predict(service, picture, model=model, rectified="none")
            for model in ("one", "two")
            for index, picture in enumerate(distinct)
        }
        thetas = {json.dumps(answer["theta"]) for answer in alone.values()}
        assert len(thetas) >= len(distinct), "or this test could not tell whose answer it is"
        await asyncio.gather(*(talk(service, range(start, MANY, CONNECTIONS), alone) for start in range(CONNECTIONS)))

    with start_service("--models", tmp_path, "--max-queue", 2000) as service:
        asyncio.run(flood(service))
        assert "Traceback" not in service.log()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_dies_is_replaced_and_meanwhile_nothing_is_ready() -> None:
    def workers(service: Service) -> set[int]:
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    with start_service("--workers", 2) as service:
        assert "with 2 workers" in service.line
        before = workers(service)
        assert len(before) == 2
        predict(service)
        os.kill(min(before), signal.SIGKILL)
        statuses: list[int] = []
        deadline = time.monotonic() + START_S
        while not statuses or statuses[-1] != 200 or 503 not in statuses:
            assert time.monotonic() < deadline, statuses
            try:
                statuses.append(service.ask("GET", "/health/ready").status_code)
            except httpx.TransportError:
                statuses.append(0)  # it was the dead worker's connection
            time.sleep(0.01)
        after = workers(service)
        assert len(after) == 2
        assert len(after & before) == 1
        prediction(ask(service))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()


def test_a_second_signal_ends_it_at_once() -> None:
    with start_service("--shutdown-timeout-s", 10 * STOP_S) as service, connect(service) as connection:
        connection.sendall(post(PICTURE)[:-100])
        time.sleep(0.2)
        for _ in range(2):
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()
