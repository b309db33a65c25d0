import os
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from tests.training.data.folder.reading import split
from training.data.folder.source import Entry, Folder, counts, read_split, split_text
from training.errors import DataError
from training.recipes.photographs import MY_IMAGES
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
    entries = split(root, changed())
    assert len({entry.path for entry in entries}) == len(entries) == 60
    assert counts(entries) == {name: {"train": 14, "validation": 3, "test": 3} for name in COLOURS}


def test_the_split_is_the_same_each_time(root: Path) -> None:
    assert split(root, changed()) == split(root, changed())


def test_pictures_of_one_scene_stay_together(root: Path) -> None:
    entries = split(root, changed(scene=r"(\w+/\d)_"))
    scenes = Counter((entry.path.partition("_")[0], entry.part) for entry in entries)
    assert set(scenes.values()) == {4}
    assert counts(entries)["red"] == {"train": 12, "validation": 4, "test": 4}


def test_pictures_of_one_scene_are_a_group_and_without_scenes_there_are_none(root: Path) -> None:
    recipe = changed(scene=r"\w+/(\d)_")
    entries = split(root, recipe)
    train, _ = Folder(root, entries, (8, 8), 3, recipe.scene).training()
    assert train.groups is not None
    scenes = [entry.path.partition("_")[0] for entry in entries if entry.part == "train"]
    assert (
        len(set(zip(scenes, train.groups.tolist(), strict=True))) == len(set(scenes)) == len(set(train.groups.tolist()))
    )
    assert Folder(root, entries, (8, 8), 3).test().groups is None


@pytest.mark.parametrize("pattern", ["frame", "(frame)?", "x*", ""])
def test_a_pattern_that_does_not_fit_is_refused(root: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"does not match amber/0_00.png; correct it"):
        split(root, changed(scene=pattern))


def test_scenes_and_a_split_table_are_not_taken_together(root: Path) -> None:
    (root / "split.csv").write_text("path,split\n")
    with pytest.raises(DataError, match=r"leave out scene, or remove the table"):
        split(root, changed(scene=r"(\d)_"))


def test_a_split_table_of_the_users_own_is_kept_to_and_what_it_leaves_out_is_left_out(root: Path) -> None:
    rows = [f"{name}/0_0{n}.png,{part}" for name in COLOURS for n, part in enumerate(("train", "validation", "test"))]
    (root / "split.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    entries = split(root, changed())
    assert sorted(f"{entry.path},{entry.part}" for entry in entries) == sorted(rows)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,split\nred/none.png,train\n", "red/none.png, not found"),
        ("path,split\nred/0_00.png,train\nred/0_00.png,test\n", "more than once"),
        ("path,split\nred/0_00.png,holdout\n", "holdout in its column split"),
        ("file,part\nred/0_00.png,train\n", "columns path and split"),
        ("path,split\nred/0_00.png,train\nred/0_01.png\n", "path or split is missing in .*line 3"),
        ("split,path\ntrain\n", "path or split is missing in .*line 2"),
        ("path,split\nred/0_00.png,train\n", "nothing is left for train of amber"),
    ],
)
def test_a_wrong_split_table_is_refused_with_what_is_wrong(root: Path, table: str, message: str) -> None:
    (root / "split.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        split(root, changed())


def test_unreadable_pictures_are_named_or_skipped_as_asked(root: Path) -> None:
    (root / "red" / "0_00.png").write_bytes(b"not a picture")
    whole = (root / "blue" / "1_05.png").read_bytes()
    (root / "blue" / "1_05.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"blue/1_05\.png, .*red/0_00\.png cannot be read.*unreadable=skip"):
        split(root, changed())
    entries = split(root, changed(unreadable="skip"))
    assert len(entries) == 58
    assert not {"red/0_00.png", "blue/1_05.png"} & {entry.path for entry in entries}


def test_a_folder_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        split(root / "missing", changed())


def test_one_class_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="has 0 directories, but at least two classes"):
        split(root / "red", changed())


def test_an_empty_class_is_refused_by_name(root: Path) -> None:
    (root / "white").mkdir()
    with pytest.raises(DataError, match="white has no pictures"):
        split(root, changed())


def test_a_class_with_too_few_pictures_is_refused_by_name(root: Path) -> None:
    (root / "white").mkdir()
    for number in range(2):
        Image.new("RGB", (9, 9)).save(root / "white" / f"{number}.png")
    with pytest.raises(DataError, match=r"train of white \(2 readable pictures\)"):
        split(root, changed())


def test_a_folder_that_is_split_already_is_not_taken_for_classes(tmp_path: Path) -> None:
    (tmp_path / "train" / "red").mkdir(parents=True)
    (tmp_path / "test" / "red").mkdir(parents=True)
    with pytest.raises(DataError, match=r"split into test, train already.*split\.csv"):
        split(tmp_path, changed())


def test_what_is_hidden_is_no_class_and_no_picture(root: Path) -> None:
    (root / ".cache").mkdir()
    (root / "red" / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "red" / "0_00.png", root / "red" / ".ipynb_checkpoints" / "0_00-checkpoint.png")
    (root / "red" / "._0_00.png").write_bytes(b"\x00\x05\x16\x07")
    with capture_logs() as logs:
        assert len(split(root, changed())) == 60
    assert [(entry["reason"], entry["count"]) for entry in logs] == [("hidden, or left by another program", 3)]


LEFT_BEHIND = [
    *("@eaDir", "#recycle", "__MACOSX", ".AppleDouble", ".Trash-1000", "lost+found", ".thumbnails", "$RECYCLE.BIN"),
    *("System Volume Information", ".ipynb_checkpoints", "@Recycle", "#snapshot"),
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("within", ["", "red"])
def test_a_folder_that_a_nas_or_a_desktop_left_behind_is_no_class_and_has_no_pictures(
    root: Path, name: str, within: str
) -> None:
    (root / within / name / "more").mkdir(parents=True)
    for place in (name, f"{name}/more"):
        shutil.copy(root / "red" / "0_00.png", root / within / place / "copy.jpg")
    with capture_logs() as logs:
        entries = split(root, changed())
    assert {entry.label for entry in entries} == COLOURS.keys()
    assert len(entries) == 60
    assert [(entry["count"], entry["example"]) for entry in logs] == [(1, repr(str(root / within / name)))]


@pytest.mark.parametrize(
    "name",
    [
        *("Thumbs.db", "desktop.ini", "._0_00.png", ".DS_Store", "~lock.png", "~$0_00.png", "0.png.part", "0.tmp"),
        *("0_00.sync-conflict-20240101-120000-ABCDEFG.png", "0_00 (Jo's conflicted copy 2024-01-01).png"),
        "0_00_conflict-20240101-120000.png",
    ],
)
def test_a_file_that_another_program_left_behind_is_no_picture(root: Path, name: str) -> None:
    shutil.copy(root / "red" / "0_00.png", root / "red" / name)
    with capture_logs() as logs:
        assert len(split(root, changed())) == 60
    assert [(entry["reason"], entry["count"]) for entry in logs] == [("hidden, or left by another program", 1)]


SPLITS = [
    *("train", "Training", "TRAIN", "trains", "train_set", "Train Images", "train2017", "test", "Testing", "tests"),
    *("val", "Vals", "valid", "Validation", "validations", "dev", "holdout", "eval"),
]


@pytest.mark.parametrize("name", SPLITS)
def test_a_part_of_a_data_set_is_no_class(root: Path, name: str) -> None:
    (root / name).mkdir()
    (root / "red").rename(root / name / "red")
    with pytest.raises(DataError, match=rf"split into {name}, beside amber, blue, already.*split\.csv"):
        split(root, changed())


def test_parts_of_a_data_set_are_told_though_pictures_lie_in_them_and_though_it_is_one(root: Path) -> None:
    (root / "red").rename(root / "Training")
    (root / "blue").rename(root / "Testing")
    with pytest.raises(DataError, match="split into Testing, Training, beside amber, already"):
        split(root, changed())
    shutil.rmtree(root / "amber")
    shutil.rmtree(root / "Testing")
    with pytest.raises(DataError, match="split into Training already"):
        split(root, changed())


def test_a_class_may_be_called_train(root: Path) -> None:
    (root / "red").rename(root / "train")
    assert {entry.label for entry in split(root, changed())} == {"amber", "blue", "train"}


def test_a_class_is_one_however_its_accents_are_encoded(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "gr\u00fcn") for form in ("NFC", "NFD"))
    (root / "red").rename(root / decomposed)
    (root / composed).mkdir()
    for file in sorted((root / decomposed).iterdir())[::2]:
        file.rename(root / composed / file.name)
    entries = split(root, changed())
    assert counts(entries)[composed] == {"train": 14, "validation": 3, "test": 3}
    assert Folder(root, entries, (8, 8), 3).classes == ("amber", "blue", composed)
    assert len(Folder(root, entries, (8, 8), 3).training()[0].labels) == 42
    table = split_text([entry._replace(path=unicodedata.normalize("NFC", entry.path)) for entry in entries])
    (root / "split.csv").write_text(table, encoding="utf-8")
    assert split(root, changed()) == entries


def test_a_copy_of_a_picture_in_another_split_is_told(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(root / "red" / "copied.png")
    Image.fromarray(pixels).save(root / "red" / "copied.bmp")
    Image.fromarray(pixels[:, ::-1]).save(root / "red" / "mirrored.png")
    rows = [f"{name}/{n // 4}_{n:02d}.png,train" for name in COLOURS for n in range(20)]
    rows += ["red/copied.png,train", "red/copied.bmp,test", "red/mirrored.png,validation"]
    (root / "split.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    with capture_logs() as logs:
        split(root, changed())
    (told,) = (entry for entry in logs if entry["event"] == "copies_in_several_splits")
    assert (told["count"], told["examples"]) == (2, "red/copied.png (train) = red/copied.bmp (test)")


def test_a_class_may_be_without_pictures_to_validate_or_test_on_but_is_told(root: Path) -> None:
    rows = [f"{name}/0_00.png,train" for name in COLOURS]
    (root / "split.csv").write_text(
        "path,split\n" + "\n".join([*rows, "red/0_01.png,validation", "blue/0_01.png,test"])
    )
    with capture_logs() as logs:
        assert len(split(root, changed())) == 5
    told = {entry["split"]: entry["classes"] for entry in logs if entry["event"] == "classes_without_pictures"}
    assert told == {"validation": "amber, blue", "test": "amber, red"}


def test_other_files_are_no_pictures_but_those_among_pictures_are_told(root: Path) -> None:
    (root / "readme.md").write_text("hello")
    for name in ("a.jxl", "b.jxl"):
        (root / "red" / name).write_text("a format that is not known")
    with capture_logs() as logs:
        assert len(split(root, changed())) == 60
    assert [(entry["count"], entry["example"]) for entry in logs] == [(2, repr(str(root / "red" / "a.jxl")))]


def test_pictures_that_are_not_taken_are_told(root: Path) -> None:
    shutil.copy(root / "red" / "0_00.png", root / "loose.png")
    (root / "red" / "more").symlink_to(root / "blue")
    table = split_text([entry for entry in split(root, changed()) if entry.path != "red/0_00.png"])
    (root / "split.csv").write_text(table)
    with capture_logs() as logs:
        assert len(split(root, changed())) == 59
    told = {entry["reason"]: entry["example"] for entry in logs}
    assert told == {
        "not in a class directory": repr(str(root / "loose.png")),
        "links to directories": repr(str(root / "red" / "more")),
        "not in split.csv": "'red/0_00.png'",
    }


def test_pictures_of_every_format_of_the_service_are_taken(root: Path) -> None:
    for name in ("a.GIF", "b.webp", "c.bmp", "d.tiff", "e.jpeg"):
        Image.new("RGB", (9, 9)).save(root / "red" / name)
    assert len(split(root, changed())) == 65


@pytest.mark.parametrize("name", [b"a\r.png", b"a\n.png", b"\xff.png"])
def test_a_name_that_a_table_cannot_hold_is_refused_printably(root: Path, name: bytes) -> None:
    (root / "red" / "0_00.png").rename(root / "red" / os.fsdecode(name))
    with pytest.raises(DataError, match=r"'red/\S+', which split\.csv cannot list") as refusal:
        split(root, changed())
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["Bild\u202f1.png", 'bild, "1".png', "\u5199\u771f.png", " .png"])
def test_an_unusual_name_survives_the_table(root: Path, name: str) -> None:
    (root / "red" / "0_00.png").rename(root / "red" / name)
    entries = split(root, changed())
    (root / "split.csv").write_text(split_text(entries), encoding="utf-8")
    assert split(root, changed()) == entries
    assert f"red/{name}" in {entry.path for entry in entries}


def test_a_split_survives_being_written(root: Path) -> None:
    entries = split(root, changed())
    (root / "written.csv").write_text(split_text(entries))
    assert read_split(root / "written.csv") == entries


def test_pictures_are_read_at_one_size_with_the_label_of_their_class(root: Path) -> None:
    folder = Folder(root, split(root, changed()), (16, 24), 3)
    assert folder.classes == ("amber", "blue", "red")
    train, validation = folder.training()
    test = folder.test()
    assert [len(part.labels) for part in (train, validation, test)] == [42, 9, 9]
    for part in (train, validation, test):
        assert part.images.shape[1:] == (3, 16, 24)
        expected = torch.tensor([COLOURS[folder.classes[label]] for label in part.labels.tolist()], dtype=torch.uint8)
        assert torch.equal(part.images[:, :, 8, 8], expected)


def test_a_picture_that_vanished_after_the_split_is_named(root: Path) -> None:
    folder = Folder(root, split(root, changed()), (16, 16), 3)
    gone = next(entry.path for entry in folder.entries if entry.part == "test")
    (root / gone).unlink()
    with pytest.raises(DataError, match=gone):
        folder.test()
