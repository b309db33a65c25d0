"""Tables of paths and of bytes."""

from pathlib import Path

import pytest

from service.errors import InputError
from service.score.tables import EMPTY
from tests.service.score.inputs import PICTURES, numbers, rows_of, select, source_of, write_csv, write_parquet


def test_relative_paths_start_at_the_folder_of_the_table_or_at_the_root(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "table.csv", ["path"], [["a/0.png"], ["/b.png"], ["s3://bucket/c.png?key=secret"]])
    rows = rows_of(select(table), tmp_path)
    assert [row.location for row in rows] == [f"{tmp_path}/a/0.png", "/b.png", "s3://bucket/c.png?key=secret"]
    assert [row.path for row in rows] == ["a/0.png", "/b.png", "s3://bucket/c.png"]
    assert rows_of(select(table, root="https://host/data"), tmp_path)[0].location == "https://host/data/a/0.png"


def test_conditions_on_other_columns_select_rows(tmp_path: Path) -> None:
    names = ["path", "split", "width"]
    rows = [[f"{number}.png", "test" if number % 2 else "train", number] for number in range(10)]
    for table in (
        write_csv(tmp_path / "table.csv", names, rows),
        write_parquet(tmp_path / "table.parquet", dict(zip(names, zip(*rows, strict=True), strict=True))),
    ):
        assert numbers(rows_of(select(table, "split=test", "width>=5"), tmp_path)) == [5, 7, 9]
        assert numbers(rows_of(select(table, "split=test"), tmp_path, start=6)) == [7, 9]


def test_bytes_and_the_structs_of_hugging_face_are_pictures(tmp_path: Path) -> None:
    structs = [{"bytes": PICTURES[0], "path": "seven.png"}, {"bytes": None, "path": "two.png"}, None]
    table = write_parquet(tmp_path / "0.parquet", {"image": structs, "label": [7, 2, 0]})
    seven, two, nothing = rows_of(select(table), tmp_path)
    assert (seven.path, seven.content) == ("seven.png", PICTURES[0])
    assert (two.content, two.location) == (None, f"{tmp_path}/two.png")
    assert nothing.problem == EMPTY
    table = write_parquet(tmp_path / "1.parquet", {"bytes": [PICTURES[0], b""]})
    assert [(row.path, row.content, row.problem) for row in rows_of(select(table), tmp_path)] == [
        (f"{table}#0", PICTURES[0], ""),
        (f"{table}#1", None, EMPTY),
    ]


def test_rows_are_numbered_through_several_tables_and_can_begin_anywhere(tmp_path: Path) -> None:
    for name in range(3):
        write_parquet(tmp_path / f"{name}.parquet", {"path": [f"{name}-{row}.png" for row in range(7)]})
        write_csv(tmp_path / f"{name}.csv", ["path"], [[f"{name}-{row}.png"] for row in range(7)])
    for pattern in ("*.parquet", "*.csv"):
        everything = rows_of(select(tmp_path / pattern), tmp_path)
        assert numbers(everything) == list(range(21))
        assert everything[8].path == "1-1.png"
        for start in (1, 7, 8, 13, 20, 21):
            assert rows_of(select(tmp_path / pattern), tmp_path, start) == everything[start:]


def test_many_blank_lines_do_not_end_a_table(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "table.csv", ["path"], [["a.png"], *[[]] * 9000, ["b.png"]])
    assert [row.path for row in rows_of(select(table), tmp_path)] == ["a.png", "b.png"]


def test_the_number_of_rows_is_known_or_estimated(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "0.parquet", {"path": ["a"] * 7})
    assert source_of(select(table), tmp_path).total() == 7
    source = source_of(select(write_csv(tmp_path / "0.csv", ["path"], [["a.png"]] * 5000)), tmp_path)
    assert source.total() is None
    assert len(list(source.rows(0))) == 5000
    assert source.total() == 5000


@pytest.mark.parametrize("line", ["", "a.png", "a.png,1,2", ",1"])
def test_a_line_that_is_no_row_is_an_error_of_that_row_alone(tmp_path: Path, line: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path,width\na.png,1\n{line}\nb.png,2\n")
    rows = rows_of(select(table), tmp_path)
    assert [row.path for row in rows if not row.problem] == ["a.png", "b.png"]
    assert [row.problem for row in rows if row.problem] == [EMPTY] * bool(line)


def test_paths_that_are_no_utf_8_stay_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfpath\r\n\xff.png\r\n")
    (row,) = rows_of(select(table), tmp_path)
    assert row.location == f"{tmp_path}/\udcff.png"


def test_a_table_without_the_column_is_an_error_that_lists_its_columns(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "table.csv", ["picture", "label"], [["a.png", 1]])
    with pytest.raises(InputError, match=r"none of the columns path, .*--column: picture, label"):
        rows_of(select(table), tmp_path)
    with pytest.raises(InputError, match="no column 'images'"):
        rows_of(select(table, column="images"), tmp_path)
    assert rows_of(select(table, column="picture"), tmp_path)[0].path == "a.png"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x00" * 100, PICTURES[0]])
def test_a_damaged_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.parquet").write_bytes(content)
    with pytest.raises(InputError, match="is no table that can be read"):
        rows_of(select(tmp_path / "table.parquet"), tmp_path)


def test_a_table_that_is_damaged_further_on_is_an_error_after_its_good_rows(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "a.png\n" * 5000 + f'"{"x" * 200_000}\n')
    rows = source_of(select(table), tmp_path).rows(0)
    assert next(rows).path == "a.png"
    with pytest.raises(InputError, match="cannot be read: field larger"):
        list(rows)
