"""Folders, patterns and listings."""

import os
from pathlib import Path

import fsspec
import pytest

from service.errors import InputError, OutputError
from service.score.inputs import find_input
from service.score.rows import CHUNK_BYTES, CHUNK_ROWS, Row, chunks
from tests.service.score.inputs import PICTURES, numbers, rows_of, select, source_of, write_folder, write_tar


def test_a_folder_gives_its_pictures_and_those_of_its_subfolders_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_folder(folder, 2)
    write_folder(folder / "b", 1)
    write_folder(folder / ".hidden", 1)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".0000.png").write_bytes(b"")
    rows = rows_of(select(folder), tmp_path)
    assert [Path(row.path).relative_to(folder).as_posix() for row in rows] == ["0000.png", "0001.png", "b/0000.png"]
    assert numbers(rows) == [0, 1, 2]
    assert numbers(rows_of(select(folder), tmp_path, start=2)) == [2]


def test_a_pattern_gives_the_files_that_match(tmp_path: Path) -> None:
    files = write_folder(tmp_path, 12)
    assert [row.location for row in rows_of(select(tmp_path / "001*.png"), tmp_path)] == [str(f) for f in files[10:]]


def test_numbers_in_braces_name_files_that_cannot_be_listed(tmp_path: Path) -> None:
    files = write_folder(tmp_path, 12)
    assert [row.location for row in rows_of(select(tmp_path / "{0009..0010}.png"), tmp_path)] == [
        str(f) for f in files[9:11]
    ]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "run[1]", 2)
    assert len(rows_of(select(tmp_path / "run[1]"), tmp_path)) == 2


def test_a_folder_at_a_url_is_read_by_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/digits/{name}.png": PICTURES[0] for name in ("b", "a", "c/d")})
    rows = rows_of(select("memory://digits"), tmp_path)
    assert [row.path for row in rows] == [f"memory:///digits/{name}.png" for name in ("a", "b", "c/d")]


def test_later_runs_see_the_same_pictures_although_files_were_added(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_folder(folder, 3)
    before = rows_of(select(folder), tmp_path)
    (folder / "0000-new.png").write_bytes(PICTURES[0])
    assert rows_of(select(folder), tmp_path) == before


def test_conditions_leave_rows_out_but_keep_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_folder(folder, 12)
    assert numbers(rows_of(select(folder, "path~*001?.png"), tmp_path)) == [10, 11]


def test_a_name_that_is_no_text_is_read_and_shown_with_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(PICTURES[0])
    (row,) = rows_of(select(folder), tmp_path)
    assert row.path == f"{folder}/\\udcff.png"
    assert Path(row.location).read_bytes() == PICTURES[0]


@pytest.mark.parametrize("name", ["nothing", "*.jpg", "nothing.csv", "file:///nothing/*.png"])
def test_an_input_that_is_not_there_is_an_error_that_says_what_to_name(tmp_path: Path, name: str) -> None:
    place = name if "://" in name else tmp_path / name
    with pytest.raises(InputError, match=r"there is no .*; name a folder, a file or a pattern"):
        rows_of(select(place), tmp_path)


def test_a_folder_without_pictures_is_an_error_and_leaves_no_listing(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    write_tar(folder / "0.tar", {"a.png": PICTURES[0]})
    with pytest.raises(InputError, match=r"there are no pictures in .*'folder/\*.tar'"):
        rows_of(select(folder), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tars"]


def test_files_of_several_kinds_are_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    write_tar(tmp_path / "0.tar", {"a.png": PICTURES[0]})
    with pytest.raises(InputError, match="names pictures and tars"):
        find_input(select(tmp_path / "0*"))


def test_options_for_tables_are_an_error_for_pictures(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    with pytest.raises(InputError, match="for tables"):
        find_input(select(tmp_path, column="path"))
    with pytest.raises(InputError, match="a folder of pictures has no column 'split'"):
        find_input(select(tmp_path, "split=test"))


@pytest.mark.parametrize("url", ["nobody://bucket/a.csv", "://"])
def test_a_url_that_cannot_be_read_is_one_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError):
        rows_of(select(url), tmp_path)


def test_secrets_of_a_url_are_in_no_message() -> None:
    with pytest.raises(InputError) as error:
        find_input(select("file://user:word@host/nothing.csv?signature=secret"))
    assert "word" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_damaged_listing_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    write_folder(tmp_path / "pictures", 1)
    (tmp_path / "listing.parquet").write_bytes(b"PAR1")
    with pytest.raises(OutputError, match="damaged; remove the folder"):
        source_of(select(tmp_path / "pictures"), tmp_path)


def test_chunks_are_bounded_by_rows_and_bytes() -> None:
    rows = [Row(number, "") for number in range(CHUNK_ROWS + 1)]
    assert [len(chunk) for chunk in chunks(rows)] == [CHUNK_ROWS, 1]
    heavy = [Row(number, "", bytes(CHUNK_BYTES // 2)) for number in range(5)]
    assert [len(chunk) for chunk in chunks(heavy)] == [2, 2, 1]
