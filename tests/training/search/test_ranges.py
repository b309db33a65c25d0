"""Ranges and choices are read as they are written, and impossible ones are refused before the first trial."""

import optuna
import pytest

from training.errors import RecipeError
from training.recipes.digits import MNIST_RTS
from training.search.ranges import Choices, Floats, Integers, check_space, draw, parse_space


def test_ranges_choices_and_values_are_told_apart() -> None:
    space, fixed = parse_space(
        [
            "learning_rate=1e-4..1e-2",
            "epochs=2..5",
            "weight_decay=0.0..0.5",
            "localisation=cnn|modern",
            "rectified=[28,28]|[32,32]",
            "backgrounds=../pictures",
            "scene=a|b",
            "batch_size=64",
        ]
    )
    assert space == {
        "learning_rate": Floats(1e-4, 1e-2),
        "epochs": Integers(2, 5),
        "weight_decay": Floats(0.0, 0.5),
        "localisation": Choices(("cnn", "modern")),
        "rectified": Choices(("[28,28]", "[32,32]")),
    }
    assert fixed == {"backgrounds": "../pictures", "scene": "a|b", "batch_size": 64}


@pytest.mark.parametrize(
    ("low", "high", "is_log"), [(1e-4, 1e-2, True), (0.1, 1.0, False), (0.0, 1.0, False), (-1.0, 100.0, False)]
)
def test_floats_are_log_uniform_over_more_than_a_decade(low: float, high: float, is_log: bool) -> None:
    trial = optuna.create_study().ask()
    found = Floats(low, high).draw(trial, "x")
    assert isinstance(found, float)
    assert low <= found <= high
    distribution = trial.distributions["x"]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert distribution.log is is_log


def test_drawn_values_are_those_of_a_recipe() -> None:
    space, _ = parse_space(["epochs=2..5", "rectified=[28,28]|[32,32]", "localisation=cnn|modern"])
    drawn = draw(optuna.create_study().ask(), space)
    assert drawn["epochs"] in (2, 3, 4, 5)
    assert drawn["rectified"] in ([28, 28], [32, 32])
    assert drawn["localisation"] in ("cnn", "modern")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["learning_rate=0.001"], "nothing is searched"),
        (["learning_rate=1e-2..1e-4"], "is no range"),
        (["learning_rate=1e-2..1e-2"], "is no range"),
        (["learning_rate=1..1e999"], "is no range"),
        (["localisation=cnn||modern"], "empty choice"),
        (["localisation=cnn|cnn"], "one twice"),
        (["epochs=1..3", "epochs=5"], "given twice"),
        (["epochs"], "KEY=VALUE"),
    ],
)
def test_what_cannot_be_searched_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_space(pairs)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["learning_rates=1e-4..1e-2"], "no field learning_rates"),
        (["learning_rate=0.0..0.1"], "learning_rate"),
        (["localisation=cnn|nonsense"], "localisation"),
        (["momentum=0.0..0.9"], "optimiser=sgd"),
        (["epochs=1.5..2.5"], "epochs"),
    ],
)
def test_values_that_are_never_possible_are_refused_before_the_first_trial(pairs: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_space(MNIST_RTS, parse_space(pairs)[0])


def test_values_that_are_possible_with_some_of_the_others_are_searched() -> None:
    check_space(MNIST_RTS, parse_space(["momentum=0.0..0.9", "optimiser=adamw|sgd"])[0])
