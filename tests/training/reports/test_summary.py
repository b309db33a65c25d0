import pytest

from training.__main__ import main
from training.recipes.catalogue import find_recipe
from training.reports.summary import summarise


def test_the_network_of_the_cifar_study_has_its_parameters_and_the_shapes_it_states() -> None:
    summary = summarise(find_recipe("cifar10-145k"), 10)
    assert summary.parameters == 145_104
    transforms = [layer.output for layer in summary.layers if layer.name.startswith("transforms") and layer.parameters]
    assert transforms == [(8, 30, 30), (8, 28, 28), (8, 22, 22), (10, 7, 7), (32,), (6,)]
    convolutions = [layer.output for layer in summary.layers if "stages" in layer.name and layer.kind == "Conv2d"]
    assert convolutions == [
        *((24, 32, 32), (24, 32, 32), (24, 16, 16), (24, 16, 16)),
        *((24, 16, 16), (24, 16, 16), (24, 8, 8), (48, 8, 8)),
        *((48, 8, 8), (48, 8, 8), (96, 8, 8)),
        *((96, 8, 8), (96, 8, 8), (10, 8, 8)),
    ]
    assert summary.layers[-1].output == (10,) or summary.layers[-1].name.startswith("transforms")


def test_operations_of_a_convolution_are_counted() -> None:
    summary = summarise(find_recipe("cifar10-145k"), 10)
    first = next(layer for layer in summary.layers if layer.name == "classifier.stages.0.0")
    assert first.operations == 2 * 32 * 32 * 24 * 3 * 9
    assert summary.operations == sum(layer.operations for layer in summary.layers)


def test_every_parameter_belongs_to_a_layer() -> None:
    summary = summarise(find_recipe("gtsrb-small"), 43)
    assert summary.parameters == sum(layer.parameters for layer in summary.layers) <= 1_500_000


@pytest.mark.parametrize("options", [["mnist-r-affine"], ["my-images", "--classes", "3"]])
def test_the_command_prints_layers_and_their_sum(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", *options]) == 0
    printed = capsys.readouterr().out
    assert "Conv2d" in printed
    assert "all" in printed
