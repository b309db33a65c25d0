"""Inference of the protocol under load: it has its room, deadline, batches and end in common with /predict."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.open_inference.infer import can_read_in_place
from service.api.request_body import COPIED_IN_PLACE, IN_PLACE_BYTES
from tests.conftest import STOP_S, Service, wait_until
from tests.service.answers import connect, post, prediction, receive
from tests.service.answers import refused as predict_refused
from tests.service.api.open_inference.exchange import (
    INFER,
    Tensors,
    answered,
    ask,
    elements,
    files,
    refused,
    tensor,
    tensors,
)
from tests.service.exposed import scrape
from tests.service.pictures import noise
from tests.service.server.test_overload import CRAWLING_S, EVIL, GOOD, SLOW_S, misbehaving, wait_for
from tests.service.server.test_overload import ask as predict

DARK = np.zeros((1, *noise(0).shape, 1), np.uint8)
BRIGHT = DARK + 255
FOUR = np.concatenate([DARK] * 4)


def question(pixels: NDArray[np.uint8] = DARK, **parameters: int) -> bytes:
    """A request about ``pixels`` ``(N, H, W, C)``."""
    return json.dumps({"inputs": [tensor(pixels)], "parameters": parameters}).encode()


def infer(
    service: Service, pixels: NDArray[np.uint8] = DARK, timeout_ms: int | None = None, **parameters: int
) -> httpx.Response:
    """Ask on a connection of its own."""
    headers = {"X-Timeout-Ms": str(timeout_ms)} if timeout_ms else {}
    return service.ask("POST", INFER, content=question(pixels, **parameters), headers=headers)


def wait_until_in_flight(service: Service, pictures: int) -> None:
    """Wait until the service has read as many pictures that it has not answered yet."""
    wait_until(lambda: scrape(service)("stn_pictures_in_flight") == pictures)


def batches(service: Service) -> dict[int, int]:
    """How many inferences there were of each batch size."""
    (found,) = service.client.get("/v2/models/digits/stats").json()["model_stats"]
    return {batch["batch_size"]: batch["compute_infer"]["count"] for batch in found["batch_stats"]}


@pytest.mark.parametrize(
    ("size", "json_length", "in_place"),
    [
        (IN_PLACE_BYTES, None, True),
        (IN_PLACE_BYTES + 1, None, False),
        (COPIED_IN_PLACE, b"2", True),
        (COPIED_IN_PLACE + 1, b"2", False),
        (COPIED_IN_PLACE, b"%d" % COPIED_IN_PLACE, False),
        (COPIED_IN_PLACE, b"9" * 5000, False),
        (COPIED_IN_PLACE, b"-1", False),
        (100, b"no number", True),
    ],
)
def test_much_json_is_not_read_on_the_event_loop(size: int, json_length: bytes | None, in_place: bool) -> None:
    assert can_read_in_place(size, json_length) == in_place


def test_requests_of_both_protocols_share_a_batch() -> None:
    with misbehaving("crawling", "--max-batch", 3) as service, ThreadPoolExecutor(3) as threads:
        first = threads.submit(infer, service, np.concatenate([DARK] * 9))
        wait_until_in_flight(service, 9)
        tensors_asked = threads.submit(infer, service, np.concatenate([DARK, DARK]))
        asked = threads.submit(predict, service)
        assert prediction(asked.result())["batch_size"] == 3
        assert len(tensors(tensors_asked.result())["theta"]) == 2
        assert len(tensors(first.result())["theta"]) == 9
        assert batches(service) == {3: 4}


def test_a_request_that_finds_no_room_for_all_its_pictures_is_refused_whole_and_at_once() -> None:
    with misbehaving("crawling", "--max-queue", 5, "--max-batch", 1) as service, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(infer, service, FOUR)
        wait_until_in_flight(service, 4)
        response = infer(service, np.concatenate([DARK, DARK]))
        assert not waiting.done(), "it did not wait for its turn"
        refused(response, 429, "try again a little later")
        assert response.headers["retry-after"] == "1"
        answered(waiting.result())
        answered(infer(service, np.concatenate([DARK, DARK])))
        assert batches(service) == {1: 6}


def test_room_is_counted_in_bytes_too() -> None:
    limits = ("--max-queue-bytes", len(question(FOUR)), "--max-batch", 1)
    with misbehaving("crawling", *limits) as service, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(infer, service, FOUR)
        wait_until_in_flight(service, 4)
        refused(infer(service), 429, "bytes are waiting")
        answered(waiting.result())


@pytest.mark.parametrize("patience", [{"timeout_ms": 50}, {"timeout": 50_000}], ids=["header", "parameter"])
def test_what_is_overdue_is_answered_in_time(patience: dict[str, Any]) -> None:
    with misbehaving("crawling", "--max-batch", 1) as service:
        started = time.monotonic()
        refused(infer(service, FOUR, **patience), 504, "try again later")
        assert time.monotonic() - started < 4 * CRAWLING_S
        answered(infer(service, timeout=0))


def test_the_service_has_no_more_patience_than_its_setting_says() -> None:
    with misbehaving("crawling", "--timeout-ms", 50) as service:
        refused(infer(service, timeout=10**15), 504)


def test_a_client_that_leaves_is_not_computed() -> None:
    with misbehaving("slow", "--max-batch", 1) as service:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(infer, service)
            time.sleep(SLOW_S / 4)
            with connect(service) as gone:
                gone.sendall(post(question(np.concatenate([DARK] * 20)), target=INFER))
                time.sleep(SLOW_S / 2)
            answered(first.result())
        answered(infer(service))
        assert sum(batches(service).values()) < 10
        assert "Traceback" not in service.log()
        assert "never retrieved" not in service.log()


def test_a_model_that_fails_is_500_and_counted() -> None:
    with misbehaving("failing") as service:
        refused(infer(service, np.concatenate([BRIGHT, BRIGHT])), 500, "the model failed")
        answered(infer(service))
        (found,) = service.client.get("/v2/models/digits/stats").json()["model_stats"]
        assert found["inference_stats"]["fail"]["count"] == 2
        assert found["inference_count"] == 1
        assert "never retrieved" not in service.log()


def test_a_model_that_hangs_is_neither_live_nor_ready() -> None:
    with misbehaving("recovering", "--inference-timeout-s", 1) as service, ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(infer, service, BRIGHT)
        wait_for(service, "model_hangs")
        refused(hanging.result(), 500, "hangs")
        refused(infer(service), 503, "the model hangs")
        for path in "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready":
            refused(service.client.get(path), 503)
        predict_refused(predict(service), 503, "not_ready")
        wait_for(service, "model_answers_again")
        assert service.client.get("/v2/models/digits/ready").status_code == 200


def test_a_stopping_service_answers_what_it_accepted() -> None:
    with misbehaving("crawling") as service, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(infer, service)
        wait_until_in_flight(service, 1)
        service.process.send_signal(signal.SIGTERM)
        assert len(tensors(waiting.result())["theta"]) == 1
        assert service.process.wait(STOP_S) == 0


def test_past_its_patience_a_stopping_service_says_so() -> None:
    with misbehaving("crawling", "--shutdown-timeout-s", 1) as service, connect(service) as connection:
        connection.sendall(post(b"{", target=INFER, length=100))
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        answer = receive(connection)
        assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
        assert "send the request to another instance" in answer.json()["error"]


def test_pictures_as_files_run_into_the_same_model() -> None:
    with misbehaving("failing") as service:
        refused(ask(service, {"inputs": [files(GOOD, EVIL)]}, elements(GOOD, EVIL)), 500, "the model failed")
        found: Tensors = tensors(ask(service, {"inputs": [files(GOOD, GOOD)]}, elements(GOOD, GOOD)))
        assert len(found["theta"]) == 2
