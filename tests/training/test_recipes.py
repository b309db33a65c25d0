import pytest

from training.classifiers import SpatialTransformerClassifier
from training.errors import RecipeError
from training.recipes import MNIST_RTS, RECIPES, Recipe, change_recipe, find_recipe


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
        ("rectified", [2, 28]),
        ("warmup", 0),
        ("std", [0.0]),
        ("mean", [0.1, 0.2]),
    ],
)
def test_a_wrong_value_or_contradiction_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=field):
        change_recipe(MNIST_RTS, {field: value})


@pytest.mark.parametrize("numbers", [[], [0.1, 0.2, 0.3]])
def test_numbers_for_channels_that_the_data_set_does_not_have_are_refused(numbers: list[float]) -> None:
    with pytest.raises(RecipeError, match="mnist has channels: 1"):
        change_recipe(MNIST_RTS, {"mean": numbers, "std": numbers})


def test_an_unknown_field_is_refused_with_the_fields_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no field epoch;.*epochs"):
        change_recipe(MNIST_RTS, {"epoch": 3})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_the_digit_network_has_at_most_400_000_parameters() -> None:
    network = SpatialTransformerClassifier(MNIST_RTS, classes=10, channels=1)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 400_000
