"""What several processes counted is added up; who takes a dead one's place goes on from what that had written."""

from pathlib import Path

import pytest
import structlog

from service.metrics.multiprocess import Figures, SharedMetrics, WorkerSlot


def ledger(folder: Path, number: int, ready: list[int]) -> SharedMetrics:
    return SharedMetrics(WorkerSlot(folder, number, ready, [0] * len(ready)))


def figures(count: float, gauge: float = 0) -> Figures:
    return Figures({("requests", "/predict"): [count, 2 * count]}, {("queue",): [gauge]})


def test_counts_and_gauges_of_all_workers_are_added_up_whoever_is_asked(tmp_path: Path) -> None:
    ready = [1, 1]
    one, other = ledger(tmp_path, 0, ready), ledger(tmp_path, 1, ready)
    one.publish(figures(3, gauge=1))
    other.publish(figures(4, gauge=2))
    assert one.total() == other.total() == Figures({("requests", "/predict"): [7, 14]}, {("queue",): [3]})


def test_what_only_one_has_counted_counts(tmp_path: Path) -> None:
    one, other = ledger(tmp_path, 0, [1, 1]), ledger(tmp_path, 1, [1, 1])
    one.publish(figures(3))
    other.publish(Figures({("requests", "/models"): [1]}, {}))
    assert one.total().counts == {("requests", "/predict"): [3, 6], ("requests", "/models"): [1]}


def test_of_a_dead_worker_the_counts_stay_and_the_gauges_go(tmp_path: Path) -> None:
    ready = [1, 1]
    one, other = ledger(tmp_path, 0, ready), ledger(tmp_path, 1, ready)
    one.publish(figures(3, gauge=1))
    other.publish(figures(4, gauge=2))
    ready[1] = 0
    assert one.total() == Figures({("requests", "/predict"): [7, 14]}, {("queue",): [1]})


def test_who_takes_its_place_goes_on_from_there_however_often(tmp_path: Path) -> None:
    ready = [1, 1]
    one = ledger(tmp_path, 0, ready)
    one.publish(figures(3))
    for _ in range(3):
        successor = ledger(tmp_path, 1, ready)
        successor.publish(Figures({}, {}))
        assert successor.total().counts == one.total().counts
        successor.publish(figures(2))
        successor.publish(figures(5))
    assert one.total().counts == {("requests", "/predict"): [18, 36]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.json", "1.json"]


def test_a_process_alone_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = SharedMetrics()
    alone.publish(figures(3, gauge=1))
    assert alone.total() == figures(3, gauge=1)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_it_says_so_once_and_goes_on(tmp_path: Path) -> None:
    lone = ledger(tmp_path / "gone", 0, [1])
    with structlog.testing.capture_logs() as logs:
        lone.publish(figures(3))
        lone.publish(figures(4))
    assert [entry["event"] for entry in logs] == ["metrics_not_shared"]
    assert lone.total().counts == figures(4).counts
