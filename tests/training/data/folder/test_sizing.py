from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.folder.sizing import canvas_for, fit_to_pictures, rectified_for
from training.data.folder.source import Entry
from training.recipes.photographs import MY_IMAGES, PHOTOGRAPHS_224
from training.recipes.recipe import Size, change_recipe


def entries(root: Path, count: int, size: Size, mode: str) -> list[Entry]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        label = "ab"[number % 2]
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).convert(mode).save(
            root / label / f"{number}.png"
        )
        found.append(Entry(f"{label}/{number}.png", "train"))
    return found


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((20, 20), (32, 32)),
        ((50, 50), (48, 48)),
        ((60, 70), (64, 64)),
        ((1000, 900), (128, 128)),
        ((64, 256), (64, 256)),
        ((480, 120), (256, 64)),
        ((2, 4000), (32, 512)),
        ((90000, 10), (512, 32)),
    ],
)
def test_the_canvas_is_no_larger_than_the_pictures_and_of_their_shape(size: Size, canvas: Size) -> None:
    assert canvas_for([size] * 3) == canvas


def test_the_middle_picture_decides() -> None:
    assert canvas_for([(50, 50), (50, 50), (4000, 4000)]) == (48, 48)


@pytest.mark.parametrize(("canvas", "rectified"), [((32, 32), (32, 32)), ((48, 48), (32, 32)), ((96, 128), (64, 88))])
def test_the_rectified_image_is_smaller_than_a_large_canvas(canvas: Size, rectified: Size) -> None:
    assert rectified_for(canvas, 0.8) == rectified


def test_coloured_pictures_get_three_channels_and_noise_the_mean_of_noise(tmp_path: Path) -> None:
    recipe = fit_to_pictures(MY_IMAGES, tmp_path, entries(tmp_path, 40, (32, 32), "RGB"), ())
    assert recipe.mean == pytest.approx((0.5, 0.5, 0.5), abs=0.02)
    assert recipe.std == pytest.approx((0.29, 0.29, 0.29), abs=0.02)
    assert (recipe.canvas, recipe.rectified) == ((32, 32), (32, 32))


def test_grey_pictures_get_one_channel(tmp_path: Path) -> None:
    assert len(fit_to_pictures(MY_IMAGES, tmp_path, entries(tmp_path, 10, (32, 32), "L"), ()).mean) == 1


def test_few_pictures_are_seen_more_often_in_smaller_batches(tmp_path: Path) -> None:
    few = fit_to_pictures(MY_IMAGES, tmp_path, entries(tmp_path, 12, (8, 8), "RGB"), ())
    more = fit_to_pictures(MY_IMAGES, tmp_path, entries(tmp_path, 400, (8, 8), "RGB"), ())
    assert few.batch_size == 8
    assert few.batch_size < more.batch_size <= 128
    assert more.epochs == few.epochs == 200


def test_epochs_are_counted_in_batches_of_the_size_that_was_chosen(tmp_path: Path) -> None:
    few = entries(tmp_path, 400, (8, 8), "RGB")
    recipe = fit_to_pictures(change_recipe(MY_IMAGES, {"batch_size": 2}), tmp_path, few, {"batch_size"})
    assert (recipe.batch_size, recipe.epochs) == (2, 20)


def test_what_was_chosen_stays(tmp_path: Path) -> None:
    recipe = fit_to_pictures(MY_IMAGES, tmp_path, entries(tmp_path, 10, (32, 32), "RGB"), {"canvas", "epochs"})
    assert (recipe.canvas, recipe.epochs) == (MY_IMAGES.canvas, MY_IMAGES.epochs)
    assert recipe.mean != MY_IMAGES.mean


def test_a_recipe_that_does_not_adapt_keeps_its_sizes(tmp_path: Path) -> None:
    fitted = fit_to_pictures(PHOTOGRAPHS_224, tmp_path, entries(tmp_path, 6, (20, 30), "RGB"), set())
    assert fitted == PHOTOGRAPHS_224.model_copy(update={"batch_size": 6})
