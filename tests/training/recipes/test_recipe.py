import pytest

from training.errors import RecipeError
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.digits import MNIST_RTS
from training.recipes.photographs import MY_IMAGES, SIGNS
from training.recipes.recipe import Augmentation, Recipe, change_recipe

SEQUENCE = {"distortion": "sequence", "sequence": 3, "canvas": [60, 100]}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_the_name_it_carries(name: str) -> None:
    assert find_recipe(name).name == name


def test_an_unknown_recipe_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RecipeError, match="mnist-rts"):
        find_recipe("mnist-rst")


def test_changes_are_checked_and_leave_the_original_alone() -> None:
    changed = change_recipe(MNIST_RTS, {"epochs": "3", "canvas": [50, 60]})
    assert (changed.epochs, changed.canvas) == (3, (50, 60))
    assert MNIST_RTS.epochs != 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", "many"),
        ("learning_rate", -1),
        ("learning_rate", float("nan")),
        ("transformer", "magic"),
        ("canvas", [42]),
        ("canvas", [4, 4]),
        ("padding", 2.0),
        ("padding", "grey"),
        ("steps", 0),
        ("rectified", [2, 28]),
        ("warmup", 1),
        ("std", [0.0]),
        ("mean", [0.1, 0.2]),
    ],
)
def test_a_wrong_value_or_contradiction_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=field):
        change_recipe(MNIST_RTS, {field: value})


@pytest.mark.parametrize("value", ["64x64", 64, [64], [64, 64, 3], ["a", "b"]])
def test_a_size_in_another_form_is_refused_with_the_form(value: object) -> None:
    with pytest.raises(RecipeError, match=r"canvas: .*; write it as in canvas=\[42,42\] \(height and width") as refusal:
        change_recipe(MNIST_RTS, {"canvas": value})
    assert str(refusal.value).count("canvas=") == 1


@pytest.mark.parametrize("numbers", [[], [0.1, 0.2, 0.3]])
def test_numbers_for_channels_that_the_data_set_does_not_have_are_refused(numbers: list[float]) -> None:
    with pytest.raises(RecipeError, match="channels: 1"):
        change_recipe(MNIST_RTS, {"mean": numbers, "std": numbers})


def test_an_unknown_field_is_refused_with_the_fields_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no field epoch;.*epochs"):
        change_recipe(MNIST_RTS, {"epoch": 3})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"transformer": "none", "steps": 2}, "steps"),
        ({"transformer": "none", "parallel": 2}, "parallel"),
        ({"transformer": "none", "upright": 1.0}, "upright has no effect without a transformer"),
        ({"transformer": "none", "shared_steps": True}, "shared_steps"),
        ({"distortion": "tc", "canvas": [5, 5], "localisation": "fcn"}, "raise canvas"),
        ({"upright": 1.0, "parallel": 2}, "set parallel=1"),
        ({"shared_steps": True}, "set steps=2"),
        ({"feature_stage": 1, "parallel": 2}, "set parallel=1"),
        ({"feature_stage": 1, "classifier": "tutorial"}, "classifier=conv"),
        ({"feature_stage": 2, "localisation": "tutorial"}, "are too small"),
        ({"feature_stage": 2, "classifier_stages": 1}, "no stage 2; lower feature_stage or raise classifier_stages"),
        ({"shared_stage": True, "parallel": 2}, "parallel=1"),
        ({"localisation": "tutorial", "canvas": [16, 42]}, "18x18"),
        ({"classifier": "tutorial", "rectified": [12, 12]}, "16x16"),
        ({"area": 0.1}, "set upright"),
        ({"upright": 1.0, "area_of": "ink"}, "set area"),
        ({"upright": 1.0, "area_share": 1.5}, "set area"),
        ({"distortion": "e", "augmentation": Augmentation(shear=5)}, "leave augmentation and placement out"),
        ({"augmentation": Augmentation(light=0.5)}, "light has no effect with distortion=rts"),
        ({"control_points": 5}, "transformer=tps"),
        ({"tile": 0.7}, "set parallel=2"),
        ({"transformer": "none", "coordinates": True}, "coordinates"),
        ({"upright": 1.0, "distortion": "e"}, "affine map: r, rot, rts, t, tc"),
        ({"parallel": 2, "localisation": "attention"}, "localisation=attention works with a single transformer only"),
        ({"parallel": 2, "crop": 0.5}, "crop works with a single transformer only; set parallel=1"),
        ({"parallel": 2, "canonical": 1.0}, "canonical works with a single transformer only; set parallel=1"),
        ({"pose": 1.0}, r"pose has no effect on pictures without boxes; set placement\.chance"),
        ({"placement.smallest": 0.9, "placement.largest": 0.3}, "lower the one or raise the other"),
        ({"classifier": "residual", "classifier_widths": [8, 16]}, "set classifier=conv"),
        ({"classifier_widths": []}, "classifier_widths"),
        ({"rectified": [14, 14], "classifier_widths": [8] * 5}, "raise rectified or shorten classifier_widths"),
        ({"feature_stage": 2, "classifier_widths": [8]}, "lower feature_stage or lengthen classifier_widths"),
        ({"transformer": "none", "pyramid": True}, "pyramid has no effect without a transformer"),
        ({"recurrent": True}, "set distortion=sequence and sequence=3"),
        ({"sequence": 3}, "sequence has no effect without distortion=sequence"),
        ({**SEQUENCE, "sequence": 0}, "set sequence=3"),
        ({**SEQUENCE, "canvas": [60, 60]}, "3 digits of 28x28 pixels stand side by side; raise canvas"),
        ({**SEQUENCE, "classifier": "residual"}, "set recurrent=true, or classifier=conv"),
        ({**SEQUENCE, "recurrent": True, "steps": 2}, "steps is not for a recurrent transformer"),
        ({**SEQUENCE, "parallel": 2}, "set recurrent=true for one crop of each, and leave parallel out"),
        ({**SEQUENCE, "recurrent": True, "localisation": "attention"}, "set localisation=modern"),
        ({**SEQUENCE, "recurrent": True, "transformer": "none"}, "recurrent has no effect without a transformer"),
        ({**SEQUENCE, "upright": 1.0}, "affine map: r, rot, rts, t, tc"),
        ({"joint": False, "upright": 0.0, "area": 0.0}, "joint=false leaves localisation without a loss"),
    ],
)
def test_a_contradiction_is_refused_when_the_recipe_is_made(changes: dict[str, object], cure: str) -> None:
    with pytest.raises(RecipeError, match=cure):
        change_recipe(MNIST_RTS, changes)


@pytest.mark.parametrize(("recipe", "chance"), [(SIGNS, 0.6), (MY_IMAGES, 1.0)])
def test_a_canonical_pose_beside_frames_that_are_all_told_is_refused(recipe: Recipe, chance: float) -> None:
    with pytest.raises(RecipeError, match="canonical has no effect where pose tells every frame"):
        change_recipe(recipe, {"canonical": 1.0, "placement.chance": chance})
