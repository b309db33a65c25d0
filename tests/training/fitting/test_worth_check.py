"""Training warns of a transformer that is decoration, with the cure, and only once something has been learnt."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.training.evaluation.test_worth import Answer, Reader, quadrants
from training.fitting.worth_check import WorthCheck
from training.recipes.digits import MNIST_SEQUENCE
from training.recipes.recipe import change_recipe


class Module(nn.Module):
    """As much of a module of the trainer as the check needs."""

    device = torch.device("cpu")

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class EachTwice(nn.Module):
    """Answers for a sequence of two objects that are alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Answer:
        return Answer(self.network(images).logits[:, None].repeat(1, 2, 1))


def checked(network: nn.Module, pictures: tuple[Tensor, Tensor], epoch: int, epochs: int = 8) -> nn.Module:
    module = Module(network).train()
    trainer = SimpleNamespace(current_epoch=epoch, is_global_zero=True)
    WorthCheck(*pictures, epochs).on_train_epoch_end(cast(Any, trainer), cast(Any, module))
    return module


def test_a_transformer_that_is_decoration_gives_a_warning_with_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    module = checked(Reader(looks=True), quadrants(moving=False), epoch=1)
    said = capsys.readouterr().out
    assert "transformer_is_decoration" in said
    assert "placement.chance" in said
    assert module.training, "training goes on"


def test_the_cure_for_sequences_names_no_field_that_their_recipes_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = quadrants(moving=False)
    checked(EachTwice(Reader(looks=True)), (images, labels[:, None].repeat(1, 2)), epoch=1)
    said = capsys.readouterr().out
    assert "raise canvas" in said
    assert "placement" not in said
    change_recipe(MNIST_SEQUENCE, {"canvas": (120, 120)})


def test_nothing_is_said_of_a_transformer_that_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    checked(Reader(looks=True), quadrants(moving=True), epoch=1)
    assert capsys.readouterr().out == ""


def test_nothing_is_said_before_the_network_has_learnt_something(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = quadrants(moving=False)
    checked(Reader(looks=False), (images, labels.flip(0)), epoch=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("epochs", "checks"), [(1, 1), (3, 3), (8, 4), (40, 4)])
def test_a_run_is_checked_a_few_times(epochs: int, checks: int, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in range(epochs):
        checked(Reader(looks=True), quadrants(moving=False), epoch, epochs)
    assert capsys.readouterr().out.count("transformer_is_decoration") == checks
