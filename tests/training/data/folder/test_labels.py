"""labels.csv tells the classes in place of directories, and what is wrong in it is told by line."""

from pathlib import Path

import pytest
from PIL import Image
from structlog.testing import capture_logs

from tests.training.data.folder.reading import corners, split
from training.data.folder.source import Folder, counts, read_split, split_text
from training.errors import DataError
from training.recipes.photographs import CORNERS, MY_IMAGES
from training.recipes.recipe import change_recipe


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty pictures, half of them in a directory whose name says nothing, and two that the table leaves out."""
    (tmp_path / "camera").mkdir()
    for number in range(22):
        folder = tmp_path / "camera" if number % 2 else tmp_path
        Image.new("RGB", (30, 20), (10 * number, 0, 0)).save(folder / f"{number}.png")
    return tmp_path


def paths() -> list[str]:
    return [f"camera/{number}.png" if number % 2 else f"{number}.png" for number in range(20)]


def table(root: Path, *rows: str, header: str = "path,label") -> Path:
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "labels.csv"


def test_classes_are_those_of_the_table_wherever_the_pictures_lie(root: Path) -> None:
    table(root, *(f"{path},{'grün' if n < 8 else 'red'}" for n, path in enumerate(paths())))
    entries = split(root, MY_IMAGES)
    assert counts(entries) == {
        "grün": {"train": 4, "validation": 2, "test": 2},
        "red": {"train": 8, "validation": 2, "test": 2},
    }
    folder = Folder(root, entries, (8, 8), 3)
    assert folder.classes == ("grün", "red")
    assert folder.training()[0].labels.bincount().tolist() == [4, 8]


def test_a_run_keeps_the_classes_in_its_split(root: Path, tmp_path: Path) -> None:
    table(root, *(f"{path},{'one' if n < 8 else 'two'}" for n, path in enumerate(paths())))
    entries = split(root, MY_IMAGES)
    (tmp_path / "kept.csv").write_text(split_text(entries))
    assert read_split(tmp_path / "kept.csv") == entries


def test_a_scene_that_shows_several_labels_stays_in_one_split(root: Path) -> None:
    table(root, *(f"{path},{'one' if n % 4 < 2 else 'two'}" for n, path in enumerate(paths())))
    recipe = change_recipe(MY_IMAGES, {"scene": r"([0-9])[0-9]*\.png"})
    homes: dict[str, set[str]] = {}
    for entry in split(root, recipe):
        homes.setdefault(Path(entry.path).stem[0], set()).add(entry.part)
    assert all(len(parts) == 1 for parts in homes.values())


def test_pictures_that_the_table_leaves_out_give_a_warning_with_their_number(root: Path) -> None:
    (root / ".thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(root / ".thumbnails" / "0.png")
    table(root, *(f"{path},{'one' if n < 8 else 'two'}" for n, path in enumerate(paths())))
    with capture_logs() as logs:
        split(root, MY_IMAGES)
    (told,) = (entry for entry in logs if entry["event"] == "pictures_without_label")
    assert (told["log_level"], told["count"]) == ("warning", 2)
    assert told["examples"] == "'20.png', 'camera/21.png'"
    assert "labels.csv" in told["cure"]
    table(
        root, *(f"{path},{'one' if n < 8 else 'two'}" for n, path in enumerate([*paths(), "20.png", "camera/21.png"]))
    )
    with capture_logs() as logs:
        split(root, MY_IMAGES)
    assert "pictures_without_label" not in {entry["event"] for entry in logs}


@pytest.mark.parametrize("header", ["path,label,split,x1,y1,x2,y2", "path, label, split, x1, y1, x2, y2"])
def test_the_table_may_tell_splits_and_corners_too(root: Path, header: str) -> None:
    parts = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    rows = [f"{path},card,{part},5,5,25,15" for path, part in zip(paths(), parts, strict=True)]
    rows[0] = f"{paths()[0]},card,train,,,,"
    table(root, *rows, header=header)
    entries = split(root, CORNERS)
    assert counts(entries) == {"card": {"train": 12, "validation": 4, "test": 4}}
    outlines = corners(root, CORNERS, entries)
    assert [outline.path for outline in outlines] == paths()[1:]
    assert all(outline.boxed for outline in outlines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\n0.png,red\n", "labels.csv has no column label; the columns are"),
        ("path,label\n", "labels.csv lists no pictures"),
        ("path,label\n0.png,\n", "line 2 lacks path or label; write both"),
        ("path,label\n0.png\n", "line 2 lacks path or label"),
        ("path,label\n0.png,red\nnone.png,red\n", "line 3: none.png is not a picture in"),
        (f"path,label\n{'0' * 300}.png,red\n", "line 2: 0+.png is not a picture in"),
        (f"path,label\n{'0' * 300}.tar/0.png,red\n", "line 2: 0+.tar/0.png is not a picture in"),
        ("path,label\n../0.png,red\n", "line 2: ../0.png is not in the folder; write its path relative to"),
        ("path,label\n/0.png,red\n", "line 2: /0.png is not in the folder"),
        ("path,label\n0.png,red\x07\n", "line 2 has control characters"),
        ("path,label\n0.png,red\n2.png,red\n./0.png,blue\n", "lists 0.png more than once"),
        ("path,label\n0.png,red\n2.png,red\n", "has a single label, but at least two classes are needed"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong_and_the_cure(root: Path, text: str, message: str) -> None:
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        split(root, MY_IMAGES)


def test_two_tables_of_the_same_are_refused(root: Path) -> None:
    rows = [f"{path},card,train,5,5,25,15" for path in paths()]
    table(root, *rows, header="path,label,split,x1,y1,x2,y2")
    (root / "split.csv").write_text("path,split\n")
    with pytest.raises(DataError, match=r"both tell the split; remove the one or the column"):
        split(root, CORNERS)
    (root / "split.csv").unlink()
    (root / "corners.csv").write_text("path,x1,y1,x2,y2\n")
    with pytest.raises(DataError, match=r"both tell corners; remove the one or the columns"):
        split(root, CORNERS)


def test_a_column_of_labels_in_the_users_own_split_changes_no_class(root: Path) -> None:
    for path in paths():
        target = root / ("even" if int(Path(path).stem) % 4 < 2 else "odd")
        target.mkdir(exist_ok=True)
        (root / path).rename(target / Path(path).name)
    (root / "camera" / "21.png").unlink()
    (root / "camera").rmdir()
    rows = [
        f"{file.relative_to(root)},{part},{n}"
        for folder in ("even", "odd")
        for n, (file, part) in enumerate(
            zip(sorted((root / folder).iterdir()), ["train", "validation", "test"], strict=False)
        )
    ]
    (root / "split.csv").write_text("path,split,label\n" + "\n".join(rows) + "\n")
    assert counts(split(root, change_recipe(MY_IMAGES, {}))).keys() == {"even", "odd"}
