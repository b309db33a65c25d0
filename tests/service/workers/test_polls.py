"""The coordinator looks at the folder of models from time to time, and what it finds is changed for all workers."""

import asyncio
import errno
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from service.background import Failures
from service.repository.mirror import scan_models
from service.repository.poller import Scan
from service.repository.traffic import Traffic
from service.settings import Settings
from service.workers import coordinator as coordinator_module
from service.workers.messages import Ready
from tests.conftest import START_S
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.repository.test_repository import folder, until
from tests.service.workers.coordinating import working

__all__ = ["folder"]  # a fixture


@on_a_loop
async def test_the_coordinator_looks_at_the_folder_for_all(folder: Path) -> None:
    async with working(folder, poll_s=1) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: workers.versions() == [[1, 2], [1, 2]])


@on_a_loop
async def test_other_changes_are_made_while_models_are_copied(tmp_path: Path) -> None:
    artifacts.write_labelled(tmp_path / "there" / "digits" / "1", "one-")
    url = f"file://{tmp_path / 'there'}"
    async with working(url, models_cache=tmp_path / "cache", poll_s=1, inference_timeout_s=5) as workers:
        with FileLock(workers.settings.models_folder.with_suffix(".lock")):  # as if another process copied for long
            artifacts.write_labelled(tmp_path / "there" / "digits" / "2", "two-")
            await asyncio.sleep(1.5)  # the coordinator has begun to wait for the lock
            async with asyncio.timeout(5):
                await workers.participants[0].switch("digits", Traffic(1), None)
            assert workers.versions() == [[1], [1]]
        await until(lambda: workers.versions() == [[1, 2], [1, 2]])


@on_a_loop
async def test_a_scan_that_is_older_than_a_load_does_not_undo_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(settings: Settings, failures: Failures) -> Scan:
        found = dict(scan_models(settings, failures))
        scans.append(found)
        if len(scans) == 2:
            del found["letters"]  # as if it had been away for a moment
            assert go_on.wait(START_S)
        return found

    def see() -> None:
        seen.append({entry.name for entry in one.index(ready_only=True)})

    scans: list[Scan] = []
    seen: list[set[str]] = []
    go_on = threading.Event()
    monkeypatch.setattr(coordinator_module, "scan_models", scan)
    artifacts.write_labelled(folder / "letters" / "1", "l-")
    async with working(folder, poll_s=1) as workers:
        one = workers.participants[0]
        await until(lambda: len(scans) == 2)
        one.on_commit = see
        await one.load("letters")
        go_on.set()
        await until(lambda: len(scans) == 3)
    assert seen == [{"digits", "letters"}]


@on_a_loop
async def test_a_scan_that_ends_while_no_worker_takes_part_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(settings: Settings, failures: Failures) -> Scan:
        found = dict(scan_models(settings, failures))
        scans.append(found)
        if len(scans) == 2:
            del found["letters"]
            assert go_on.wait(START_S)
        return found

    scans: list[Scan] = []
    go_on = threading.Event()
    monkeypatch.setattr(coordinator_module, "scan_models", scan)
    artifacts.write_labelled(folder / "letters" / "1", "l-")
    async with working(folder, poll_s=1) as workers:
        await until(lambda: len(scans) == 2)
        for participant in workers.participants:
            participant.close()
        await until(lambda: workers.coordinator.size == 0)
        go_on.set()
        await asyncio.sleep(0.5)  # the coordinator has seen that the scan is over
        late = workers.pretend(Ready(workers.coordinator.statuses))
        await until(lambda: len(scans) == 3)
        assert not late.poll(0.5), "there is nothing to change"


@on_a_loop
async def test_the_coordinator_goes_on_after_the_folder_could_not_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    async with working(folder, poll_s=1) as workers:
        with monkeypatch.context() as broken:
            broken.setattr(Path, "is_file", fail)
            await until(lambda: workers.failures.counts().get("poll_models", 0) > 0)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: workers.versions() == [[1, 2], [1, 2]])
        artifacts.write_labelled(folder / "digits" / "3", "three-")
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2, 3], [1, 2, 3]]


@on_a_loop
async def test_the_coordinator_pauses_after_a_scan_that_failed_for_whatever_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(coordinator_module, "scan_models", fail)
    async with working(folder, poll_s=1) as workers:
        await until(lambda: bool(workers.failures.counts()))
        await asyncio.sleep(1)
        assert workers.failures.counts() == {"poll_models": 1}
