import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from training.data.folders import Entry, Folder, counts, read_split, split_folder, split_text
from training.errors import DataError
from training.recipes.catalogue import MY_IMAGES
from training.recipes.recipe import Recipe, change_recipe

COLOURS = {"amber": (255, 190, 0), "blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of 20 pictures: five scenes of four."""
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir()
        for number in range(20):
            picture = np.full((40 + number, 50, 3), colour, np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{number // 4}_{number:02d}.png")
    return tmp_path


def changed(**changes: object) -> Recipe:
    return change_recipe(MY_IMAGES, changes)


def parts(entries: list[Entry]) -> dict[str, set[str]]:
    return {part: {e.path for e in entries if e.part == part} for part in ("train", "validation", "test")}


def test_every_picture_has_one_use_and_every_class_its_share_of_each(root: Path) -> None:
    entries = split_folder(root, changed())
    assert len({entry.path for entry in entries}) == len(entries) == 60
    assert counts(entries) == {name: {"train": 14, "validation": 3, "test": 3} for name in COLOURS}


def test_the_split_is_the_same_each_time(root: Path) -> None:
    assert split_folder(root, changed()) == split_folder(root, changed())


def test_pictures_of_one_scene_stay_together(root: Path) -> None:
    entries = split_folder(root, changed(scene=r"(\w+/\d)_"))
    scenes = Counter((entry.path.partition("_")[0], entry.part) for entry in entries)
    assert set(scenes.values()) == {4}
    assert counts(entries)["red"] == {"train": 12, "validation": 4, "test": 4}


@pytest.mark.parametrize("pattern", ["frame", "(frame)?", "x*", ""])
def test_a_pattern_that_does_not_fit_is_refused(root: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"finds nothing in amber/0_00.png; mend the pattern"):
        split_folder(root, changed(scene=pattern))


def test_scenes_and_a_split_table_are_not_taken_together(root: Path) -> None:
    (root / "split.csv").write_text("path,split\n")
    with pytest.raises(DataError, match=r"leave out scene, or remove the table"):
        split_folder(root, changed(scene=r"(\d)_"))


def test_a_split_table_of_the_users_own_is_kept_to_and_what_it_leaves_out_is_left_out(root: Path) -> None:
    rows = [f"{name}/0_0{n}.png,{part}" for name in COLOURS for n, part in enumerate(("train", "validation", "test"))]
    (root / "split.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    entries = split_folder(root, changed())
    assert sorted(f"{entry.path},{entry.part}" for entry in entries) == sorted(rows)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,split\nred/none.png,train\n", "red/none.png, which"),
        ("path,split\nred/0_00.png,train\nred/0_00.png,test\n", "more than once"),
        ("path,split\nred/0_00.png,holdout\n", "holdout in its column split"),
        ("file,part\nred/0_00.png,train\n", "columns path and split"),
        ("path,split\nred/0_00.png,train\nred/0_01.png\n", "path or split in line 3"),
        ("split,path\ntrain\n", "path or split in line 2"),
        ("path,split\nred/0_00.png,train\n", "nothing is left for train of amber"),
    ],
)
def test_a_wrong_split_table_is_refused_with_what_is_wrong(root: Path, table: str, message: str) -> None:
    (root / "split.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        split_folder(root, changed())


def test_unreadable_pictures_are_named_or_skipped_as_asked(root: Path) -> None:
    (root / "red" / "0_00.png").write_bytes(b"not a picture")
    whole = (root / "blue" / "1_05.png").read_bytes()
    (root / "blue" / "1_05.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"blue/1_05\.png, .*red/0_00\.png cannot be read.*unreadable=skip"):
        split_folder(root, changed())
    entries = split_folder(root, changed(unreadable="skip"))
    assert len(entries) == 58
    assert not {"red/0_00.png", "blue/1_05.png"} & {entry.path for entry in entries}


def test_a_folder_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        split_folder(root / "missing", changed())


def test_one_class_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="holds 0 directories, and two classes is the least"):
        split_folder(root / "red", changed())


def test_an_empty_class_is_refused_by_name(root: Path) -> None:
    (root / "white").mkdir()
    with pytest.raises(DataError, match="white has no pictures"):
        split_folder(root, changed())


def test_a_class_with_too_few_pictures_is_refused_by_name(root: Path) -> None:
    (root / "white").mkdir()
    for number in range(2):
        Image.new("RGB", (9, 9)).save(root / "white" / f"{number}.png")
    with pytest.raises(DataError, match=r"train of white \(2 readable pictures\)"):
        split_folder(root, changed())


def test_a_folder_that_is_split_already_is_not_taken_for_classes(tmp_path: Path) -> None:
    (tmp_path / "train" / "red").mkdir(parents=True)
    (tmp_path / "test" / "red").mkdir(parents=True)
    with pytest.raises(DataError, match=r"split into test, train already.*split\.csv"):
        split_folder(tmp_path, changed())


def test_what_is_hidden_is_no_class_and_no_picture(root: Path) -> None:
    (root / ".cache").mkdir()
    (root / "red" / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "red" / "0_00.png", root / "red" / ".ipynb_checkpoints" / "0_00-checkpoint.png")
    (root / "red" / "._0_00.png").write_bytes(b"\x00\x05\x16\x07")
    with capture_logs() as logs:
        assert len(split_folder(root, changed())) == 60
    assert not logs


def test_other_files_are_no_pictures_but_those_among_pictures_are_told(root: Path) -> None:
    (root / "readme.md").write_text("hello")
    for name in ("a.jxl", "b.jxl"):
        (root / "red" / name).write_text("a format that is not known")
    with capture_logs() as logs:
        assert len(split_folder(root, changed())) == 60
    assert [(entry["count"], entry["example"]) for entry in logs] == [(2, repr(str(root / "red" / "a.jxl")))]


def test_pictures_that_are_not_taken_are_told(root: Path) -> None:
    shutil.copy(root / "red" / "0_00.png", root / "loose.png")
    (root / "red" / "more").symlink_to(root / "blue")
    table = split_text([entry for entry in split_folder(root, changed()) if entry.path != "red/0_00.png"])
    (root / "split.csv").write_text(table)
    with capture_logs() as logs:
        assert len(split_folder(root, changed())) == 59
    told = {entry["reason"]: entry["example"] for entry in logs}
    assert told == {
        "beside the directories of the classes": repr(str(root / "loose.png")),
        "links to directories": repr(str(root / "red" / "more")),
        "not in split.csv": "'red/0_00.png'",
    }


def test_pictures_of_every_format_of_the_service_are_taken(root: Path) -> None:
    for name in ("a.GIF", "b.webp", "c.bmp", "d.tiff", "e.jpeg"):
        Image.new("RGB", (9, 9)).save(root / "red" / name)
    assert len(split_folder(root, changed())) == 65


@pytest.mark.parametrize("name", [b"a\r.png", b"a\n.png", b"\xff.png"])
def test_a_name_that_a_table_cannot_hold_is_refused_printably(root: Path, name: bytes) -> None:
    (root / "red" / "0_00.png").rename(root / "red" / os.fsdecode(name))
    with pytest.raises(DataError, match=r"'red/\S+', which split\.csv cannot name") as refusal:
        split_folder(root, changed())
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["Bild\u202f1.png", 'bild, "1".png', "\u5199\u771f.png", " .png"])
def test_an_unusual_name_survives_the_table(root: Path, name: str) -> None:
    (root / "red" / "0_00.png").rename(root / "red" / name)
    entries = split_folder(root, changed())
    (root / "split.csv").write_text(split_text(entries), encoding="utf-8")
    assert split_folder(root, changed()) == entries
    assert f"red/{name}" in {entry.path for entry in entries}


def test_a_split_survives_being_written(root: Path) -> None:
    entries = split_folder(root, changed())
    (root / "written.csv").write_text(split_text(entries))
    assert read_split(root / "written.csv") == entries


def test_pictures_are_read_at_one_size_with_the_label_of_their_class(root: Path) -> None:
    folder = Folder(root, split_folder(root, changed()), (16, 24), 3)
    assert folder.classes == ("amber", "blue", "red")
    train, validation = folder.training()
    test = folder.test()
    assert [len(part.labels) for part in (train, validation, test)] == [42, 9, 9]
    for part in (train, validation, test):
        assert part.images.shape[1:] == (3, 16, 24)
        expected = torch.tensor([COLOURS[folder.classes[label]] for label in part.labels.tolist()], dtype=torch.uint8)
        assert torch.equal(part.images[:, :, 8, 8], expected)


def test_a_picture_that_vanished_after_the_split_is_named(root: Path) -> None:
    folder = Folder(root, split_folder(root, changed()), (16, 16), 3)
    gone = next(entry.path for entry in folder.entries if entry.part == "test")
    (root / gone).unlink()
    with pytest.raises(DataError, match=gone):
        folder.test()
