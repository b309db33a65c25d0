import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from training.data.sources import Digits, FewDigits, Objects, open_source
from training.data.splits import Split
from training.errors import DataError
from training.recipes.catalogue import find_recipe
from training.recipes.digits import MNIST_RTS
from training.recipes.photographs import MY_IMAGES
from training.recipes.recipe import change_recipe


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 as torchvision reads it, but of 30 pictures."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    levels = np.arange(30, dtype=np.uint8)
    for name, chosen in (("data_batch_1", levels[:20]), ("test_batch", levels[20:])):
        pixels = np.repeat(np.stack([chosen, chosen + 100, chosen + 200], axis=1), 32 * 32, axis=1)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [int(v) % 10 for v in chosen]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(Objects(tmp_path, 1).classes)}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    return tmp_path


def test_objects_are_red_green_and_blue_in_this_order(objects: Path) -> None:
    source = Objects(objects, 4)
    train, held = source.training()
    assert (train.images.shape, held.images.shape) == ((16, 3, 32, 32), (4, 3, 32, 32))
    test = source.test()
    assert test.images[:, :, 0, 0].tolist() == [[level, level + 100, level + 200] for level in range(20, 30)]
    assert test.labels.tolist() == list(range(10))
    assert test.images.dtype == torch.uint8


def few_digits(root: Path) -> list[Split]:
    """100 of 1,000 digits to train, 20 to validate, and 500 for the test."""
    source = FewDigits(root, 20, sums=False, training_size=120, test_size=500)
    return [*source.training(), source.test()]


def shown(split: Split) -> list[tuple[bytes, int]]:
    """Each picture's levels and label."""
    return [(picture.numpy().tobytes(), int(label)) for picture, label in zip(split.images, split.labels, strict=True)]


def test_mnist_12k_shares_out_all_of_mnist_and_shows_no_digit_twice(data_root: Path) -> None:
    train, held, test = (shown(split) for split in few_digits(data_root))
    assert (len(train), len(held), len(test)) == (100, 20, 500)
    assert len({*train, *held, *test}) == 620
    mnist = Digits(data_root, 1, sums=False)
    of_the_test = set(shown(mnist.test()))
    of_training = {digit for split in mnist.training() for digit in shown(split)}
    assert {*train, *held, *test} <= of_the_test | of_training
    for part in (train, held, test):
        assert of_training & {*part}
        assert of_the_test & {*part}


def test_the_digits_of_mnist_12k_are_the_same_each_time(data_root: Path) -> None:
    for first, again in zip(few_digits(data_root), few_digits(data_root), strict=True):
        assert shown(first) == shown(again)


def test_mnist_12k_asks_for_all_of_mnist(data_root: Path) -> None:
    source = open_source(find_recipe("mnist-rot"), data_root)
    for read in (source.training, source.test):
        with pytest.raises(DataError, match=r"needs 62,000 digits, but MNIST in .* has 1,000; put its four idx files"):
            read()


@pytest.mark.parametrize(
    ("changes", "classes"),
    [({}, 10), ({"dataset": "mnist-12k"}, 10), ({"distortion": "addition", "mean": [0.1, 0.1], "std": [0.2, 0.2]}, 19)],
)
def test_digits_have_ten_classes_and_their_sums_nineteen(changes: dict[str, object], classes: int) -> None:
    assert len(open_source(change_recipe(MNIST_RTS, changes), Path("data")).classes) == classes


def test_signs_and_digits_are_found_by_the_recipe() -> None:
    assert open_source(find_recipe("gtsrb-small"), Path("data")).classes[14] == "Stop"


@pytest.mark.parametrize("name", ["mnist-rts", "gtsrb-small"])
def test_data_that_is_missing_is_asked_for_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="--data-root") as refusal:
        open_source(find_recipe(name), tmp_path / "file").test()
    assert "\n" not in str(refusal.value)


def test_a_folder_must_have_been_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split before"):
        open_source(MY_IMAGES, tmp_path)
    with pytest.raises(DataError, match="cannot be read as a table"):
        open_source(MY_IMAGES, tmp_path, tmp_path / "split.csv")
