"""The folder of captured pictures: what is in it, what is not, and that training reads it."""

import csv
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from service.errors import CaptureError
from service.rollout import capture_folder as module
from service.rollout.capture_folder import TABLE, CaptureFolder, folder_name
from tests.service.pictures import encode, noise
from training.data.folder.labels import COLUMNS, read_labels
from training.data.folder.tables import read_csv

PICTURES = [encode(noise(seed, 8, 8)) for seed in range(12)]
DAY_S = 86_400


def folder(path: Path, pictures: int = 100, size: int = 10**6, days: int = 30) -> CaptureFolder:
    made = CaptureFolder(path, pictures, size, days)
    made.create()
    return made


def rows(path: Path, model: str = "digits") -> list[tuple[str, str]]:
    """What training makes of a model's folder in it; it checks that every picture is there."""
    folder = path / model
    return [(each.path, each.label) for each in read_labels(folder, read_csv(folder / "labels.csv", COLUMNS))]


def test_a_picture_lies_in_the_folder_of_its_class_and_training_reads_its_label(tmp_path: Path) -> None:
    captured = folder(tmp_path / "captured")
    assert [captured.add(PICTURES[0], "digits", "7"), captured.add(PICTURES[1], "digits", "speed limit 30")] == [
        "written",
        "written",
    ]
    (first, second) = rows(tmp_path / "captured")
    assert (first[1], second[1]) == ("7", "speed limit 30")
    assert (tmp_path / "captured" / "digits" / first[0]).read_bytes() == PICTURES[0]
    assert first[0].startswith("7/")
    assert first[0].endswith(".png")


def test_each_model_has_a_folder_of_its_own_and_the_limits_are_for_all(tmp_path: Path) -> None:
    captured = folder(tmp_path / "captured", pictures=2)
    assert captured.add(PICTURES[0], "digits", "7") == "written"
    assert [captured.add(PICTURES[n], "signs", "stop") for n in (0, 0, 1)] == ["written", "known", "no_room"]
    assert [label for _, label in rows(tmp_path / "captured")] == ["7"]
    assert [label for _, label in rows(tmp_path / "captured", "signs")] == ["stop"]


def test_equal_pictures_are_kept_once(tmp_path: Path) -> None:
    captured = folder(tmp_path)
    assert [captured.add(PICTURES[0], "digits", "7") for _ in range(3)] == ["written", "known", "known"]
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize(
    "label", ["../../etc", "/etc/passwd", "..", "", " . ", "a\nb", "a\0b", "é/è", "x" * 500, ".git"]
)
def test_no_class_leads_out_of_the_folder_or_breaks_the_table(tmp_path: Path, label: str) -> None:
    captured = folder(tmp_path / "captured")
    assert captured.add(PICTURES[0], "digits", label) == "written"
    ((path, _),) = rows(tmp_path / "captured")
    file = (tmp_path / "captured" / "digits" / path).resolve()
    assert file.parent.parent == tmp_path / "captured" / "digits"
    assert not folder_name(label).startswith(".")
    assert [entry.name for entry in tmp_path.iterdir()] == ["captured"]


def test_it_holds_no_more_pictures_and_bytes_than_it_may(tmp_path: Path) -> None:
    few = folder(tmp_path / "few", pictures=2)
    assert [few.add(picture, "digits", "7") for picture in PICTURES[:4]] == ["written", "written", "no_room", "no_room"]
    size = len(PICTURES[0]) + len(PICTURES[1])
    small = folder(tmp_path / "small", size=size)
    assert [small.add(picture, "digits", "7") for picture in PICTURES[:3]] == ["written", "written", "no_room"]
    assert len(rows(tmp_path / "small")) == 2


def test_old_pictures_go_with_their_rows_and_corrections_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECOUNT_S", 0)
    captured = folder(tmp_path, pictures=2, days=3)
    captured.add(PICTURES[0], "digits", "1")
    captured.add(PICTURES[1], "digits", "2")
    old, new = rows(tmp_path)
    table = tmp_path / "digits" / TABLE
    table.write_text(table.read_text().replace(f"{new[0]},2", f"{new[0]},two"))
    os.utime(tmp_path / "digits" / old[0], (time.time() - 4 * DAY_S,) * 2)
    assert captured.add(PICTURES[2], "digits", "3") == "written", "there is room again"
    assert [label for _, label in rows(tmp_path)] == ["two", "3"]
    assert not (tmp_path / "digits" / old[0]).exists()


def test_pictures_without_their_table_are_counted_and_deleted_too(tmp_path: Path) -> None:
    captured = folder(tmp_path, pictures=2)
    for picture in PICTURES[:2]:
        captured.add(picture, "digits", "7")
    table, (old, _) = tmp_path / "digits" / TABLE, [tmp_path / "digits" / path for path, _ in rows(tmp_path)]
    table.unlink()
    assert folder(tmp_path, pictures=2).add(PICTURES[2], "signs", "stop") == "no_room"
    os.utime(old, (time.time() - 40 * DAY_S,) * 2)
    table.unlink()
    assert folder(tmp_path, pictures=2).add(PICTURES[2], "digits", "7") == "written"
    assert not old.exists()
    assert [label for _, label in rows(tmp_path)] == ["7"]


def test_copies_and_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    folder(tmp_path).add(PICTURES[0], "digits", "7")
    copy = Path(shutil.copytree(tmp_path / "digits", tmp_path / "mine"))
    shutil.copytree(copy, tmp_path / "theirs", ignore=shutil.ignore_patterns(".*"))
    before = {file: file.read_bytes() for each in ("mine", "theirs") for file in (tmp_path / each).rglob("*.*")}
    for file in before:
        os.utime(file, (1, 1))
    captured = folder(tmp_path, pictures=2)
    for model in ("mine", "theirs"):
        with pytest.raises(CaptureError, match=f"{model} was not made by this service; move it out of"):
            captured.add(PICTURES[1], model, "7")
    assert {file: file.read_bytes() for file in before} == before
    assert captured.add(PICTURES[1], "digits", "7") == "written"


@pytest.mark.parametrize("broken", ["path,label\n7/a.png,Straße\n".encode("latin-1"), b"path,label\n" + b"x" * 200_000])
def test_a_broken_table_ends_the_start_but_not_the_capture_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    monkeypatch.setattr(module, "RECOUNT_S", 0)
    captured = folder(tmp_path)
    captured.add(PICTURES[0], "digits", "7")
    table = tmp_path / "digits" / TABLE
    table.write_bytes(broken)
    assert captured.add(PICTURES[1], "signs", "stop") == "written"
    with pytest.raises(CaptureError, match=r"digits/labels\.csv cannot be read .*; save it as CSV in UTF-8"):
        captured.add(PICTURES[1], "digits", "7")
    with pytest.raises(CaptureError, match=r"labels\.csv"):
        folder(tmp_path)
    assert table.read_bytes() == broken
    table.unlink()
    assert captured.add(PICTURES[1], "digits", "7") == "written", "it is corrected"


def test_several_processes_share_the_limits_and_the_table(tmp_path: Path) -> None:
    writers = [folder(tmp_path, pictures=10) for _ in range(3)]
    found: list[str] = []

    def write(writer: CaptureFolder) -> None:
        found.extend(writer.add(picture, "digits", "7") for picture in PICTURES)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count("written") == 10
    assert len(rows(tmp_path)) == 10


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    captured = folder(tmp_path / "captured")
    captured.add(PICTURES[0], "digits", "7")
    ((path, _),) = rows(tmp_path / "captured")
    assert stat.S_IMODE((tmp_path / "captured").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "captured" / "digits" / path).stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b'["a", "b"]', b"\xff"])
def test_a_damaged_count_is_made_again(tmp_path: Path, damage: bytes) -> None:
    captured = folder(tmp_path, pictures=2)
    captured.add(PICTURES[0], "digits", "7")
    (tmp_path / module.USAGE).write_bytes(damage)
    assert [captured.add(picture, "digits", "7") for picture in PICTURES[1:3]] == ["written", "no_room"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    captured = folder(tmp_path)
    captured.add(PICTURES[0], "digits", "7")
    (tmp_path / "digits" / "8").write_text("a file where a folder belongs")
    with pytest.raises(OSError, match="8"):
        captured.add(PICTURES[1], "digits", "8")
    with (tmp_path / "digits" / TABLE).open(newline="") as table:
        assert len(list(csv.reader(table))) == 2
    assert captured.add(PICTURES[1], "digits", "9") == "written"
