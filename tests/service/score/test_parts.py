"""The folder of the output."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import OutputError
from service.score.answers import SCHEMA
from service.score.parts import ASIDE, RECORD, Parts

ASKED = {"model": "digits/3", "where": ["split=test"]}


def batch(first: int, count: int, error: str | None = None) -> pa.RecordBatch:
    rows = [{"row": first + number, "path": "a.png", "error": error} for number in range(count)]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def begin(folder: Path, part_rows: int = 3, **asked: object) -> Parts:
    parts = Parts(folder, ASKED | asked, part_rows)
    parts.begin()
    return parts


def test_a_part_is_written_when_there_are_enough_rows_and_the_rest_at_the_end(tmp_path: Path) -> None:
    with begin(tmp_path / "out") as parts:
        parts.add(batch(0, 2), 2)
        assert parts.rows == 0
        parts.add(batch(2, 2), 4)
        assert parts.rows == 4
        parts.add(batch(4, 1, "too_large"), 5)
        parts.finish()
    assert sorted(file.name for file in tmp_path.joinpath("out").iterdir()) == [
        RECORD,
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    assert pq.read_table(tmp_path / "out").column("row").to_pylist() == [0, 1, 2, 3, 4]


def test_the_next_run_goes_on_after_the_last_whole_part(tmp_path: Path) -> None:
    with begin(tmp_path) as parts:
        parts.add(batch(0, 3, "too_large"), 30)
        parts.add(batch(30, 1), 31)  # is lost, as if the process were killed
    (tmp_path / ASIDE).write_bytes(b"half a part")
    with begin(tmp_path) as parts:
        assert (parts.next_row, parts.rows, parts.errors) == (30, 3, {"too_large": 3})
        assert not parts.is_complete
        parts.add(batch(30, 1), 31)
        parts.finish()
    with begin(tmp_path) as parts:
        assert (parts.next_row, parts.rows, parts.is_complete) == (31, 4, True)


def test_another_request_is_refused_with_what_differs(tmp_path: Path) -> None:
    with begin(tmp_path):
        pass
    with pytest.raises(OutputError, match="another run: model digits/3, not signs/2; choose another --out"):
        begin(tmp_path, model="signs/2")


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files; choose an empty folder"):
        begin(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with begin(tmp_path), pytest.raises(OutputError, match="another run is writing"):
        begin(tmp_path)
    with begin(tmp_path):
        pass


@pytest.mark.parametrize("damage", ["part", "gap", "record", "foreign record"])
def test_a_damaged_output_is_refused_with_the_cure(tmp_path: Path, damage: str) -> None:
    with begin(tmp_path) as parts:
        parts.add(batch(0, 3), 3)
        parts.add(batch(3, 3), 6)
    if damage == "part":
        (tmp_path / "part-000001.parquet").write_bytes(b"PAR1")
    elif damage == "gap":
        (tmp_path / "part-000000.parquet").unlink()
    else:
        (tmp_path / RECORD).write_text("{" if damage == "record" else json.dumps([1]))
    with pytest.raises(OutputError, match=r"remove (it and those after it|the folder)"):
        begin(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/out"])
def test_an_output_that_cannot_be_a_folder_is_an_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be used: .*; choose another --out"):
        begin(tmp_path / place)


def test_without_space_nothing_half_is_left_and_what_was_written_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    with begin(tmp_path) as parts:
        parts.add(batch(0, 3), 3)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # of a file, as a full disk would
        try:
            with pytest.raises(OutputError, match=r"cannot write .*part-000001.parquet: .*; free some space"):
                parts.add(batch(3, 3), 6)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert sorted(file.name for file in tmp_path.iterdir()) == [RECORD, "part-000000.parquet"]
        parts.finish()
    assert pq.read_table(tmp_path).column("row").to_pylist() == [0, 1, 2, 3, 4, 5]
