"""Several processes on one address: who is told to stop when, and what the others know of it."""

import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from service.settings import Settings
from service.workers.shared_folder import MEMORY, PREFIX
from tests.conftest import STOP_S, Service, start_service, wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, receive
from tests.service.server.test_process import begin_upload

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LONG_S = 10 * STOP_S


def workers(service: Service) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def replacement(service: Service, before: set[int]) -> int:
    """The worker that takes the place of one of those ``before``."""
    wait_until(lambda: bool(workers(service) - before))
    return max(workers(service) - before)


def readiness(service: Service) -> int:
    """What a new connection is told; 0 if it came to a worker that went."""
    try:
        return service.ask("GET", "/health/ready").status_code
    except httpx.TransportError:
        return 0


def deaths(service: Service) -> int:
    return service.log().count("worker_died")


def test_told_to_stop_while_a_replacement_loads_all_end_in_order() -> None:
    with start_service("--workers", 2) as service:
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        replacement(service, before)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()


def test_told_to_stop_while_a_replacement_is_due_it_is_not_started() -> None:
    with start_service("--workers", 2) as service:
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        os.kill(replacement(service, before), signal.SIGKILL)  # so soon that the next one has to wait
        wait_until(lambda: deaths(service) == 2)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0


def test_ctrl_c_is_no_traceback_of_a_worker_that_loads() -> None:
    with start_service("--workers", 2) as service:
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        os.kill(replacement(service, before), signal.SIGINT)  # as the whole group gets it
        wait_until(lambda: readiness(service) == 200)
        assert deaths(service) == 1, "that of the first alone"
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()


def test_what_reaches_workers_by_their_group_and_by_the_supervisor_is_one_signal() -> None:
    with start_service("--workers", 2, "--shutdown-timeout-s", LONG_S) as service, begin_upload(service) as connection:
        for pid in (*workers(service), service.process.pid):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.5)
        connection.sendall(PICTURE)
        assert receive(connection).status == 200
        assert service.process.wait(STOP_S) == 0


def test_told_to_stop_while_models_are_copied_it_does_not_wait_for_them(tmp_path: Path) -> None:
    artifacts.write_labelled(tmp_path / "there" / "digits" / "1", "one-")
    cache, url = tmp_path / "cache", f"file://{tmp_path / 'there'}"
    lock = Settings(models=url, models_cache=cache).models_folder.with_suffix(".lock")
    flags = ("--models", url, "--models-cache", cache, "--poll-s", 1)
    with start_service("--workers", 2, *flags) as service, FileLock(lock):  # as if another process copied for long
        time.sleep(2)  # the supervisor has begun to wait for the lock
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0


def test_a_second_signal_ends_workers_at_once() -> None:
    with start_service("--workers", 2, "--shutdown-timeout-s", LONG_S) as service, begin_upload(service) as connection:
        for _ in range(2):
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert receive(connection).status == 503
        assert service.process.wait(STOP_S) == 0
        assert "Traceback" not in service.log()


def test_while_a_worker_still_answers_what_it_has_but_takes_nothing_new_nothing_is_ready() -> None:
    with start_service("--workers", 2, "--shutdown-timeout-s", LONG_S) as service:
        leaving, staying = workers(service)
        os.kill(staying, signal.SIGSTOP)
        with begin_upload(service) as connection:  # nobody else can have taken it
            os.kill(staying, signal.SIGCONT)
            os.kill(leaving, signal.SIGTERM)
            wait_until(lambda: readiness(service) == 503)
            assert leaving in workers(service)
            connection.sendall(PICTURE)
            assert receive(connection).status == 200
        wait_until(lambda: readiness(service) == 200)
        assert leaving not in workers(service)


def test_a_worker_that_stands_still_is_replaced() -> None:
    with start_service("--workers", 2, "--inference-timeout-s", 3) as service:
        before = workers(service)
        os.kill(min(before), signal.SIGSTOP)
        wait_until(lambda: deaths(service) == 1)
        assert service.log().count("worker_killed") == 1
        replacement(service, before)
        wait_until(lambda: readiness(service) == 200)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0
        assert service.log().count("worker_killed") == 1


def test_a_worker_that_stands_still_does_not_keep_the_others_from_ending() -> None:
    with start_service("--workers", 2, "--shutdown-timeout-s", 1) as service:
        os.kill(min(workers(service)), signal.SIGSTOP)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 1
        assert service.log().count("worker_killed") == 1


def shared_folder(service: Service) -> Path:
    """The folder that this service holds locked; others on this machine have theirs."""
    held = [descriptor.readlink() for descriptor in Path(f"/proc/{service.process.pid}/fd").iterdir()]
    (folder,) = (path for path in held if path.is_relative_to(MEMORY) and path.name.startswith(PREFIX))
    return folder


def test_a_worker_whose_metrics_file_is_damaged_is_replaced_by_one_that_serves() -> None:
    with start_service("--workers", 2) as service:
        folder = shared_folder(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2)
        before = workers(service)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not before & workers(service))
        for file in folder.glob("*.json"):
            file.write_bytes(file.read_bytes()[:-10])
        wait_until(lambda: readiness(service) == 200)
        assert deaths(service) == 2
        metrics = service.client.get("/metrics")
        assert metrics.status_code == 200
        assert service.log().count("background_failure") >= 2


def test_nothing_is_left_of_a_service_whose_supervisor_was_killed() -> None:
    with start_service("--workers", 2) as service:
        folder = shared_folder(service)
        started = workers(service)
        service.process.kill()
        service.process.wait(STOP_S)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
        assert not folder.exists()


def test_a_worker_that_does_not_get_ready_is_replaced() -> None:
    with start_service("--workers", 2, "--load-timeout-s", 3) as service:
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        os.kill(replacement(service, before), signal.SIGSTOP)  # while it loads
        wait_until(lambda: '"reason": "start"' in service.log())
        wait_until(lambda: readiness(service) == 200)


def test_sighup_replaces_workers_one_after_the_other_and_no_request_fails() -> None:
    with start_service("--workers", 2) as service:
        before = workers(service)
        for pid in (*before, service.process.pid):  # as a whole process group gets it
            os.kill(pid, signal.SIGHUP)

        def all_are_new() -> bool:
            answer = service.ask("POST", "/predict", files={"image": PICTURE})
            assert answer.status_code == 200
            now = workers(service)
            assert now, "one of them is always there"
            return len(now) == 2 and not now & before

        wait_until(all_are_new)
        wait_until(lambda: readiness(service) == 200)
        assert (service.log().count("worker_replaced"), deaths(service)) == (2, 0)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0
