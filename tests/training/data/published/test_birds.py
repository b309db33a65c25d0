"""CUB-200-2011 in the layout of its archive, with a few drawn birds."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from training.data.published.birds import FOLDER, Birds
from training.errors import DataError

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
COUNT = 8
"""Pictures: every second one is for training, and the classes take turns in pairs."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    tables = dict.fromkeys(("images", "train_test_split", "image_class_labels", "bounding_boxes"), "")
    for number in range(1, COUNT + 1):
        label = (number - 1) // 2 % 2
        name = f"{SPECIES[label]}/bird {number}.jpg"
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), (30 * number, 0, 0)).save(folder / "images" / name)
        tables["images"] += f"{number} {name}\n"
        tables["train_test_split"] += f"{number} {number % 2}\n"
        tables["image_class_labels"] += f"{number} {label + 1}\n"
        tables["bounding_boxes"] += f"{number} 5.0 10.0 35.0 20.0\n"
    tables["classes"] = "".join(f"{number} {name}\n" for number, name in enumerate(SPECIES, start=1))
    for table, text in tables.items():
        (folder / f"{table}.txt").write_text(text)
    return tmp_path


def replace(root: Path, table: str, old: str, new: str) -> None:
    file = root / FOLDER / f"{table}.txt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8", errors="surrogateescape")


def test_the_official_split_is_kept_and_validation_comes_from_training(root: Path) -> None:
    birds = Birds(root, 1, (20, 20))
    assert birds.classes == ("Black footed Albatross", "Laysan Albatross")
    training, validation = birds.training()
    reds = torch.cat([split.images[:, 0].float().mean(dim=(1, 2)) for split in (training, validation)])
    assert sorted((reds / 30).round().tolist()) == [1, 3, 5, 7]
    assert len(validation.labels) == 1
    test = birds.test()
    assert (test.images[:, 0].float().mean(dim=(1, 2)) / 30).round().tolist() == [2, 4, 6, 8]
    assert test.labels.tolist() == [0, 1, 0, 1]
    assert test.images.shape == (4, 3, 20, 20)


def test_a_name_without_a_number_is_kept(root: Path) -> None:
    replace(root, "classes", "001.Black_footed", "Black_footed")
    replace(root, "classes", "002.Laysan", "002.Möwe")
    assert Birds(root, 1, (20, 20)).classes == ("Black footed Albatross", "Möwe Albatross")


def test_boxes_are_normalised_by_the_size_of_the_file(root: Path) -> None:
    boxes = Birds(root, 1, (20, 20)).test().boxes
    assert boxes is not None
    torch.testing.assert_close(boxes[0], torch.tensor([[-0.8, -0.5], [0.6, 0.5]]))


def test_a_missing_data_set_is_named_with_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"classes\.txt cannot be read .*holds CUB_200_2011/ with --data-root"):
        Birds(tmp_path, 1, (20, 20))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("bounding_boxes", "2 5.0 10.0", "2 5.0", "bounding_boxes.txt is damaged in line 2"),
        ("image_class_labels", "3 2", "3 two", "image_class_labels.txt is damaged in line 3"),
        ("image_class_labels", "3 2", "3 7", "has a class 7 without a name"),
        ("train_test_split", "4 0", "9 0", "name different pictures"),
        ("train_test_split", "4 0", "", "train_test_split.txt is damaged in line 4"),
        ("train_test_split", "4 0", "4 2", "train_test_split.txt is damaged in line 4"),
        ("bounding_boxes", "2 5.0", "2 nan", "bounding_boxes.txt is damaged in line 2"),
        ("bounding_boxes", "35.0 20.0", "inf 20.0", "bounding_boxes.txt is damaged in line 1"),
        ("bounding_boxes", "35.0 20.0", "35.0 0", "bounding_boxes.txt is damaged in line 1"),
        ("images", "1 001.", "1 ../001.", "images.txt is damaged in line 1"),
        ("images", "1 001.", "1 /001.", "images.txt is damaged in line 1"),
        ("images", "bird 2.jpg", "bird \udcff.jpg", r"images.txt is damaged \(.* in UTF-8\)"),
        ("classes", "2 002", "3 002", "classes.txt does not number the classes from 1"),
        ("images", "bird 2.jpg", "bird 9.jpg", "bird 9.jpg does not exist"),
    ],
)
def test_a_damaged_data_set_is_refused(root: Path, table: str, old: str, new: str, message: str) -> None:
    replace(root, table, old, new)
    with pytest.raises(DataError, match=message):
        Birds(root, 1, (20, 20)).test()
