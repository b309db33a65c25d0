from pathlib import Path

import pytest
import torch

from training.data import batches as data
from training.data.batches import Batches, loader
from training.data.distortions import warp_affine
from training.data.sources import open_source
from training.data.splits import Split
from training.errors import DataError
from training.networks.geometry import compose
from training.recipes.digits import MNIST_RTS
from training.recipes.recipe import Recipe, change_recipe


def training_splits(recipe: Recipe, root: Path) -> tuple[Split, Split]:
    return data.training_splits(recipe, open_source(recipe, root))


def read_test_split(recipe: Recipe, root: Path) -> Split:
    return data.test_split(recipe, open_source(recipe, root))


def order(epoch: int, seed: int = 0) -> list[int]:
    batches = Batches(100, 8, seed)
    batches.set_epoch(epoch)
    return torch.cat(list(batches)).tolist()


def test_every_epoch_has_its_own_order_which_a_resumed_run_sees_again() -> None:
    assert order(3) == order(3)
    assert order(3) != order(4)
    assert order(3) != order(3, seed=1)


def test_the_epoch_may_be_set_after_iteration_was_asked_for() -> None:
    batches = Batches(100, 8, 0)
    iterator = iter(batches)
    batches.set_epoch(3)
    assert torch.cat(list(iterator)).tolist() == order(3)


def test_training_batches_are_full_and_repeat_nothing() -> None:
    assert len(order(0)) == len(set(order(0))) == 96
    assert len(Batches(100, 8, 0)) == 12


def test_evaluation_batches_keep_the_order_and_leave_nothing_out() -> None:
    split = Split(torch.zeros(7, 1, 2, 2, dtype=torch.uint8), torch.arange(7))
    assert [labels.tolist() for _, labels, *_ in loader(split, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_validation_pictures_are_distorted_and_not_trained_on(small_recipe: Recipe, data_root: Path) -> None:
    train, validation = training_splits(small_recipe, data_root)
    assert train.images.shape == (640, 1, 28, 28)
    assert validation.images.shape == (160, 1, 42, 42)
    assert validation.images.dtype == torch.uint8
    whole = torch.cat([train.labels, validation.labels]).bincount()
    another_split = change_recipe(small_recipe, {"validation_size": 1})
    assert torch.equal(whole, torch.cat([s.labels for s in training_splits(another_split, data_root)]).bincount())


def test_the_test_set_is_the_same_every_time(small_recipe: Recipe, data_root: Path) -> None:
    first, again = read_test_split(small_recipe, data_root), read_test_split(small_recipe, data_root)
    assert first.images.shape == (200, 1, 42, 42)
    assert torch.equal(first.images, again.images)


def test_a_validation_set_larger_than_the_data_is_refused(data_root: Path) -> None:
    recipe = change_recipe(MNIST_RTS, {"validation_size": 800})
    with pytest.raises(DataError, match="validation_size"):
        training_splits(recipe, data_root)


def test_a_batch_larger_than_the_training_set_is_refused(small_recipe: Recipe, data_root: Path) -> None:
    training_splits(change_recipe(small_recipe, {"batch_size": 640}), data_root)
    with pytest.raises(DataError, match="has only 640"):
        training_splits(change_recipe(small_recipe, {"batch_size": 641}), data_root)


def test_missing_data_is_refused_with_where_to_put_it(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DataError, match="--data-root") as refusal:
        training_splits(MNIST_RTS, blocked)
    assert "\n" not in str(refusal.value)


def test_digits_change_their_shape_before_they_are_distorted(small_recipe: Recipe) -> None:
    recipe = change_recipe(small_recipe, {"augmentation.shear": 20, "augmentation.stretch": 1.3})
    pictures = Split(torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8), torch.arange(5))
    before = data.shape_changes(recipe, pictures, torch.Generator().manual_seed(1))
    assert before is not None
    how = data.distortion(recipe)
    plain = data.distort(how, pictures, torch.Generator().manual_seed(2))
    found = data.distort(how, pictures, torch.Generator().manual_seed(2), before)
    assert found.maps is not None
    assert plain.maps is not None
    torch.testing.assert_close(found.maps, plain.maps)
    expected = warp_affine(pictures.images.float(), compose(before, plain.maps), recipe.canvas)
    torch.testing.assert_close(found.images, expected)
    assert not torch.allclose(found.images, plain.images)
    assert data.shape_changes(small_recipe, pictures, torch.Generator()) is None
