"""Pictures that cost much, sent to the real service: others are answered meanwhile, and nothing is kept afterwards."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Service, start_service, wait_until
from tests.imaging.limits.attacks import LONG_WORK, REFUSED, png, progressive, save
from tests.service.answers import refused
from tests.service.pictures import drawing, encode

MEGABYTE = 2**20
PHOTOGRAPH = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)), "JPEG")
LONG = progressive(7000, 7000, 50)
"""Within the limits; seconds of work."""
BRIEF = {"X-Timeout-Ms": "150"}


def processes(service: Service) -> set[int]:
    """The processes that a service has started, without Python's own that looks after shared memory."""
    children = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    found = {int(child) for each in children for child in each.read_text().split()}
    return {child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()}


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def send(service: Service, data: bytes, **headers: str) -> httpx.Response:
    return service.ask("POST", "/predict", timeout=60, content=data, headers={"Content-Type": "image/jpeg"} | headers)


@pytest.fixture(scope="module")
def one_of_each() -> Iterator[Service]:
    """A service that decodes one picture at a time, in a thread as in a process."""
    with start_service("--decode-threads", 1, "--decode-processes", 1) as service:
        send(service, PHOTOGRAPH).raise_for_status()
        yield service


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_would_cost_too_much_is_refused(server: Service, name: str) -> None:
    refused(send(server, REFUSED[name]()), 413, "too_large")


def test_refused_pictures_take_no_memory_and_start_no_process(one_of_each: Service) -> None:
    before = peak(one_of_each.process.pid)
    files = [REFUSED[name]() for name in ("JPEG of 500 scans", "TIFF with a tile of 46,000 x 46,000")] * 4
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda data: send(one_of_each, data), files))
    assert {answer.status_code for answer in answers} == {413}
    assert peak(one_of_each.process.pid) - before < 200 * MEGABYTE
    assert not processes(one_of_each)


@pytest.mark.parametrize("name", LONG_WORK)
def test_long_work_is_ended_at_its_deadline_and_photographs_are_answered(one_of_each: Service, name: str) -> None:
    data = LONG_WORK[name]()
    with ThreadPoolExecutor(4) as clients:
        attacks = [clients.submit(send, one_of_each, data, **BRIEF) for _ in range(4)]
        answers = [send(one_of_each, PHOTOGRAPH) for _ in range(3)]
        for attack in attacks:
            refused(attack.result(), 504, "deadline_exceeded")
    assert {answer.status_code for answer in answers} == {200}


def test_the_process_of_a_picture_whose_time_is_over_is_killed(one_of_each: Service) -> None:
    assert send(one_of_each, png(8000, 3000, 8, 2)).status_code == 200  # a process has been started
    before = processes(one_of_each)
    assert len(before) == 1
    refused(send(one_of_each, LONG, **{"X-Timeout-Ms": "300"}), 504, "deadline_exceeded")
    wait_until(lambda: not alive(before))
    assert send(one_of_each, png(8000, 3000, 8, 2)).status_code == 200  # another one has taken its place


def test_pictures_decoded_in_a_process_are_answered_as_those_of_threads() -> None:
    data = encode(drawing(4500, 3000), "JPEG")
    with start_service() as many, start_service("--decode-processes", 0) as none:
        answers = [send(service, data) for service in (many, none)]
        assert len(processes(many)) == 2
        assert not processes(none)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["predictions"] == answers[1].json()["predictions"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_service(workers: int, sig: signal.Signals) -> None:
    with start_service("--workers", workers) as service:
        assert send(service, png(8000, 3000, 8, 2)).status_code == 200
        family = {*processes(service)}
        for child in list(family):
            listed = Path(f"/proc/{child}/task").glob("*/children")
            family |= {int(pid) for each in listed for pid in each.read_text().split()}
        assert len(family) >= 2
        service.process.send_signal(sig)
        assert service.process.wait(30) == (0 if sig == signal.SIGTERM else -signal.SIGKILL)
        wait_until(lambda: not alive(family))


def test_an_idle_process_that_was_killed_is_replaced(one_of_each: Service) -> None:
    assert send(one_of_each, png(8000, 3000, 8, 2)).status_code == 200
    for pid in processes(one_of_each):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert send(one_of_each, png(8000, 3000, 8, 2)).status_code == 200


def test_memory_of_large_pictures_is_given_back(one_of_each: Service) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{one_of_each.process.pid}/statm").read_text().split()[1]) * 4096

    before = resident()
    for _ in range(3):
        assert send(one_of_each, save(Image.new("RGB", (3500, 3000)), "JPEG")).status_code == 200
    assert resident() - before < 100 * MEGABYTE
