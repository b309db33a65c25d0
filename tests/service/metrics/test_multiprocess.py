"""What several processes counted is added up; who takes a dead one's place goes on from what that had written."""

import math
import os
from pathlib import Path

import pytest
import structlog

from service.metrics.multiprocess import Figures, SharedMetrics, WorkerSlot


def shared_metrics(folder: Path, number: int, ready: list[int]) -> SharedMetrics:
    return SharedMetrics(WorkerSlot(folder, number, ready, [0] * len(ready), [0, 0]))


def figures(count: float, gauge: float = 0) -> Figures:
    return Figures({("requests", "/predict"): [count, 2 * count]}, {("queue",): [gauge]})


def test_counts_and_gauges_of_all_workers_are_added_up_whoever_is_asked(tmp_path: Path) -> None:
    ready = [1, 1]
    one, other = shared_metrics(tmp_path, 0, ready), shared_metrics(tmp_path, 1, ready)
    one.publish(figures(3, gauge=1))
    other.publish(figures(4, gauge=2))
    assert one.total() == other.total() == Figures({("requests", "/predict"): [7, 14]}, {("queue",): [3]})


def test_what_only_one_has_counted_counts(tmp_path: Path) -> None:
    one, other = shared_metrics(tmp_path, 0, [1, 1]), shared_metrics(tmp_path, 1, [1, 1])
    one.publish(figures(3))
    other.publish(Figures({("requests", "/models"): [1]}, {}))
    assert one.total().counts == {("requests", "/predict"): [3, 6], ("requests", "/models"): [1]}


def test_of_a_dead_worker_the_counts_stay_and_the_gauges_go(tmp_path: Path) -> None:
    ready = [1, 1]
    one, other = shared_metrics(tmp_path, 0, ready), shared_metrics(tmp_path, 1, ready)
    one.publish(figures(3, gauge=1))
    other.publish(figures(4, gauge=2))
    ready[1] = 0
    assert one.total() == Figures({("requests", "/predict"): [7, 14]}, {("queue",): [1]})


def test_who_takes_its_place_goes_on_from_there_however_often(tmp_path: Path) -> None:
    ready = [1, 1]
    one = shared_metrics(tmp_path, 0, ready)
    one.publish(figures(3))
    for _ in range(3):
        successor = shared_metrics(tmp_path, 1, ready)
        successor.publish(Figures({}, {}))
        assert successor.total().counts == one.total().counts
        successor.publish(figures(2))
        successor.publish(figures(5))
    assert one.total().counts == {("requests", "/predict"): [18, 36]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.json", "1.json"]


def damage(kind: str, file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    match kind:
        case "cut off":
            file.write_bytes(content[:-20])
        case "empty":
            file.write_bytes(b"")
        case "garbage":
            file.write_bytes(bytes(range(256)))
        case "another version":
            file.write_bytes(content.replace(b"metrics 1", b"metrics 2"))
        case "one byte":
            file.write_bytes(content.replace(b"3", b"8", 1))
        case "other JSON":
            file.write_bytes(b'[[[["request"],["text"]]],[]]')
        case "a FIFO":
            os.mkfifo(file)
        case "a folder":
            file.mkdir()
        case "a circular link":
            file.symlink_to(file)


KINDS = ["cut off", "empty", "garbage", "another version", "one byte", "other JSON", "a FIFO", "a circular link"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_costs_the_counts_in_it_and_nothing_else(tmp_path: Path, kind: str) -> None:
    ready = [1, 1]
    one, other = shared_metrics(tmp_path, 0, ready), shared_metrics(tmp_path, 1, ready)
    one.publish(figures(3))
    other.publish(figures(4))
    damage(kind, tmp_path / "1.json")
    assert one.total().counts == figures(3).counts
    successor = shared_metrics(tmp_path, 1, ready)
    successor.publish(figures(1))
    successor.publish(figures(2))
    found = one.total().counts
    assert found["requests", "/predict"] == [5, 10], "it goes on"
    assert found["background", "share_metrics"] == [1]
    again = shared_metrics(tmp_path, 1, ready)
    again.publish(figures(1))
    assert again.total().counts["requests", "/predict"] == [6, 12], "and so does the next one"


def test_a_folder_in_the_place_of_a_file_costs_what_cannot_be_shared(tmp_path: Path) -> None:
    damage_to = tmp_path / "0.json"
    shared_metrics(tmp_path, 0, [1]).publish(figures(3))
    damage("a folder", damage_to)
    lone = shared_metrics(tmp_path, 0, [1])
    lone.publish(figures(4))
    assert lone.total().counts["requests", "/predict"] == [4, 8]


def test_numbers_that_are_none_are_shared_too(tmp_path: Path) -> None:
    one, other = shared_metrics(tmp_path, 0, [1, 1]), shared_metrics(tmp_path, 1, [1, 1])
    one.publish(Figures({}, {("drift",): [math.nan, math.inf]}))
    assert [math.isnan(value) for value in other.total().gauges["drift",]] == [True, True]


def test_failures_of_background_tasks_are_counted_and_so_are_those_of_the_supervisor(tmp_path: Path) -> None:
    slot = WorkerSlot(tmp_path, 0, [1], [0], [2, 5])
    metrics = SharedMetrics(slot)
    metrics.failures.record("poll_models", OSError("Input/output error"))
    metrics.publish(figures(0))
    assert metrics.total().counts["background", "poll_models"] == [1]
    assert metrics.total().counts["background", "supervisor"] == [2]


def test_log_lines_that_the_supervisor_dropped_are_added_to_those_of_the_workers(tmp_path: Path) -> None:
    metrics = SharedMetrics(WorkerSlot(tmp_path, 0, [1], [0], [0, 5]))
    metrics.publish(Figures({("log_lines_dropped",): [7]}, {}))
    assert metrics.total().counts["log_lines_dropped",] == [12]


def test_a_process_alone_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = SharedMetrics()
    alone.publish(figures(3, gauge=1))
    assert alone.total() == figures(3, gauge=1)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_it_says_so_once_and_goes_on(tmp_path: Path) -> None:
    lone = shared_metrics(tmp_path / "gone", 0, [1])
    with structlog.testing.capture_logs() as logs:
        lone.publish(figures(3))
        lone.publish(figures(4))
    assert [entry["event"] for entry in logs] == ["metrics_not_shared"]
    assert lone.total().counts == figures(4).counts
