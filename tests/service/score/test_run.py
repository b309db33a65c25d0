"""Whole runs, with a real process."""

import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.errors import InputError, ModelLoadError, OutputError
from service.score.rows import CHUNK_ROWS, Row, chunks
from service.score.run import Run, find_model, score, worker_settings
from service.score.workers.processes import Processes
from service.score.workers.workers import LEAD, Scored
from service.settings import Settings
from tests.conftest import REPOSITORY
from tests.service.score.inputs import LABELS, PICTURES, select, write_csv, write_folder
from tests.service.score.test_scorer import options

OPTIONS = options()


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(OPTIONS, 1) as made:
        yield made


def run(place: Path, out: Path, *conditions: str, limit: int | None = None, part_rows: int = 100) -> Run:
    return Run(select(place, *conditions), OPTIONS, out, limit, part_rows)


def scored(out: Path) -> list[tuple[int, str]]:
    table = pq.read_table(out)
    return list(zip(table.column("row").to_pylist(), table.column("path").to_pylist(), strict=True))


def test_all_rows_are_scored_in_order_and_a_second_run_finds_nothing_to_do(tmp_path: Path, workers: Processes) -> None:
    files = write_folder(tmp_path / "pictures", 2 * CHUNK_ROWS + 10)
    for _ in range(2):
        outcome = score(run(tmp_path / "pictures", tmp_path / "out"), workers, bar=False)
        assert (outcome.rows, outcome.errors, outcome.is_complete) == (len(files), {}, True)
        assert scored(tmp_path / "out") == [(number, str(file)) for number, file in enumerate(files)]
    classes = [row[0] for row in pq.read_table(tmp_path / "out").column("classes").to_pylist()]
    assert classes == [LABELS[number % 4] for number in range(len(files))]


def test_a_limit_can_be_raised_and_the_run_goes_on(tmp_path: Path, workers: Processes) -> None:
    write_folder(tmp_path / "pictures", 30)
    for limit, rows in ((4, 4), (4, 4), (11, 11), (None, 30)):
        outcome = score(run(tmp_path / "pictures", tmp_path / "out", limit=limit), workers, bar=False)
        assert (outcome.rows, outcome.is_complete) == (rows, True)
    assert [number for number, _ in scored(tmp_path / "out")] == list(range(30))


def test_conditions_that_no_row_meets_are_an_error(tmp_path: Path, workers: Processes) -> None:
    write_folder(tmp_path / "pictures", 3)
    with pytest.raises(InputError, match="no row of the input meets"):
        score(run(tmp_path / "pictures", tmp_path / "out", "path=x"), workers, bar=False)


def test_an_input_that_fails_further_on_loses_nothing(tmp_path: Path, workers: Processes) -> None:
    (tmp_path / "seven.png").write_bytes(PICTURES[0])
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "seven.png\n" * 4096 + f'"{"x" * 200_000}\n')
    short = run(table, tmp_path / "out", limit=CHUNK_ROWS)
    assert score(short, workers, bar=False).is_complete
    with pytest.raises(InputError, match="field larger"):
        score(short._replace(limit=None), workers, bar=False)
    assert len(scored(tmp_path / "out")) >= CHUNK_ROWS


def test_a_changed_table_is_another_run(tmp_path: Path, workers: Processes) -> None:
    (tmp_path / "seven.png").write_bytes(PICTURES[0])
    table = write_csv(tmp_path / "table.csv", ["path"], [["seven.png"]] * 3)
    score(run(table, tmp_path / "out", limit=1), workers, bar=False)
    write_csv(table, ["path"], [["other.png"], ["seven.png"]])
    with pytest.raises(OutputError, match="another run: files"):
        score(run(table, tmp_path / "out"), workers, bar=False)


def test_a_signal_ends_the_run_after_the_answers_in_hand_and_the_next_one_goes_on(
    tmp_path: Path, workers: Processes
) -> None:
    count = (LEAD + 3) * CHUNK_ROWS
    write_folder(tmp_path / "pictures", count)

    class Interrupting(Processes):
        """Sends a signal with its second chunk."""

        def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
            for number, answers in enumerate(workers.score(chunks)):
                if number == 1:
                    signal.raise_signal(signal.SIGTERM)
                yield answers

    outcome = score(run(tmp_path / "pictures", tmp_path / "out"), Interrupting(OPTIONS, 1), bar=False)
    assert (outcome.rows, outcome.is_complete) == (2 * CHUNK_ROWS, False)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert score(run(tmp_path / "pictures", tmp_path / "out"), workers, bar=False).rows == count
    assert [number for number, _ in scored(tmp_path / "out")] == list(range(count))


def test_only_a_few_chunks_are_read_ahead_of_their_answers(workers: Processes) -> None:
    """So that memory stays the same however many rows there are."""
    read = taken = ahead = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 12 * CHUNK_ROWS + 1):
            yield Row(read - 1, "lost.png", problem="lost")

    for answers in workers.score(chunks(rows())):
        ahead = max(ahead, read - taken)
        taken += len(answers.batch)
    assert taken == read == 12 * CHUNK_ROWS
    assert ahead <= (LEAD + 1) * CHUNK_ROWS


def test_the_highest_version_answers_unless_another_is_named() -> None:
    settings = Settings(models=REPOSITORY / "models")
    assert find_model(settings, "digits")[:2] == ("digits", 3)
    assert find_model(settings, "digits/2")[:2] == ("digits", 2)
    for reference in ("nobody", "digits/9"):
        with pytest.raises(ModelLoadError, match=f"there is no {reference} in .*; there are: digits/2, digits/3, "):
            find_model(settings, reference)


def test_the_processes_share_the_cores() -> None:
    settings, count = worker_settings(Settings(device="cpu"), "digits/3", None)
    assert (settings.threads, settings.decode_threads, settings.workers) == (1, 1, count)
    assert worker_settings(Settings(device="cpu"), "digits/3", 2 * count)[0].threads == 1
    assert worker_settings(Settings(device="cpu"), "digits/3", 1)[0].threads == count
