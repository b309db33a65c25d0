"""Every part of the network learns at its own rate, and frozen stages do not learn."""

import pytest

from training.fitting.rates import parameter_groups, rate_factor
from training.networks.depth import parts
from training.networks.network import SpatialTransformerClassifier
from training.recipes.photographs import MY_IMAGES
from training.recipes.recipe import Recipe, change_recipe


def test_localisation_has_its_own_rate_and_only_matrices_decay(small_recipe: Recipe) -> None:
    recipe = change_recipe(small_recipe, {"localisation_rate": 0.1, "weight_decay": 0.5})
    network = SpatialTransformerClassifier(recipe, 10, 1)
    groups = parameter_groups(network, recipe)
    named = {id(p): name for name, p in network.named_parameters()}
    assert sorted(named) == sorted(id(p) for group in groups for p in group["params"]), "each once"
    for group in groups:
        for parameter in group["params"]:
            in_localisation = named[id(parameter)].startswith("transforms")
            assert group["localisation"] is in_localisation
            assert group["lr"] == recipe.learning_rate * (0.1 if in_localisation else 1)
            assert group["weight_decay"] == (0.5 if parameter.dim() > 1 else 0)


def test_the_rate_rises_falls_and_ends_at_nothing(small_recipe: Recipe) -> None:
    recipe = change_recipe(small_recipe, {"warmup": 0.2})
    factors = [rate_factor(recipe, step / 100) for step in range(101)]
    assert factors[0] < 0.01
    assert factors[20] == pytest.approx(1)
    assert factors[:21] == sorted(factors[:21])
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[-1] == pytest.approx(0)
    constant = change_recipe(recipe, {"schedule": "constant", "warmup": 0.0})
    assert {rate_factor(constant, step / 100) for step in range(101)} == {1.0}


def test_stages_learn_the_slower_the_earlier_they_are_and_the_head_at_the_full_rate(small_recipe: Recipe) -> None:
    recipe = change_recipe(small_recipe, {"depth_decay": 0.5, "classifier_stages": 3})
    network = SpatialTransformerClassifier(recipe, 10, 1)
    rates = {id(p): group["lr"] for group in parameter_groups(network, recipe) for p in group["params"]}
    factors = [{rates[id(p)] / recipe.learning_rate for p in stage.parameters()} for stage in network.classifier.stages]
    assert factors == [{0.125}, {0.25}, {0.5}]
    assert {rates[id(p)] for p in network.classifier.head.parameters()} == {recipe.learning_rate}
    for localisation in network.localisation_networks():
        for parameter in localisation.parameters():
            assert rates[id(parameter)] == recipe.learning_rate * recipe.localisation_rate


def test_frozen_stages_are_in_no_group() -> None:
    changes: dict[str, object] = {"classifier": "torchvision:resnet18", "pretrained": True, "frozen_stages": 2}
    recipe = change_recipe(MY_IMAGES, changes)
    network = SpatialTransformerClassifier(recipe, 5, 3)
    learning = {id(p) for group in parameter_groups(network, recipe) for p in group["params"]}
    stages = parts(network.classifier)
    assert [any(id(p) in learning for p in stage.all()) for stage in stages] == [False, False, True, True, True]
    assert len(learning) == sum(p.requires_grad for p in network.parameters())
