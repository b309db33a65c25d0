"""Every kind of transformer and every way to put them together, exported to both formats and compared."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.exporter import Runtime
from export.format.errors import ArtifactError, ParityError
from export.graph import ServedNetwork, Signature, folded, signature, transforms
from export.onnx import OnnxRuntime
from export.parity import compare, exact, trained
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from tests.networks import CANVAS, RECTIFIED, build, heads, in_colour, randomised, small
from training.fitting.runs import RunInfo
from training.recipes.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("error::torch.jit.TracerWarning")  # a value that the trace would freeze

COMPOSITIONS: dict[str, dict[str, object]] = {
    "affine, border, from a pyramid": {
        "transformer": "affine",
        "padding": "border",
        "pyramid": True,
        "localisation": "modern",
        "localisation_size": (20, 20),
    },
    "similarity in tiles, reflection": {
        "transformer": "similarity",
        "parallel": 2,
        "tile": 0.5,
        "padding": "reflection",
        "localisation": "tutorial",
    },
    "attention, a level outside": {"transformer": "attention", "padding": 0.4, "coordinates": True, "slope": 0.1},
    "rotation, several samples, the tutorial's classifier": {
        "transformer": "rotation",
        "samples": 2,
        "rectified": (16, 20),
        "classifier": "tutorial",
        "localisation": "cnn",
        "normalise": "before",
    },
    "projective": {"transformer": "projective"},
    "in colour": {"transformer": "similarity", "normalise": "before"},
    "tps": {"transformer": "tps"},
    "affine steps": {"transformer": "affine", "steps": 3, "samples": 2},
    "tps in shared steps": {"transformer": "tps", "control_points": 3, "steps": 2, "shared_steps": True},
    "projective in shared steps, a level outside": {
        "transformer": "projective",
        "steps": 2,
        "shared_steps": True,
        "padding": 0.3,
    },
    "translation in tiles, a backbone each": {
        "transformer": "translation",
        "parallel": 2,
        "tile": 0.5,
        "rectified": (32, 32),
        "classifier": "timm:test_resnet",
    },
    "affine steps in tiles, normalised before": {
        "transformer": "affine",
        "parallel": 2,
        "steps": 2,
        "tile": 0.6,
        "normalise": "before",
        "coordinates": True,
    },
    "affine on features, shared stage": {"transformer": "affine", "feature_stage": 1, "shared_stage": True},
    "tps on features of stage 2": {"transformer": "tps", "feature_stage": 2, "samples": 2, "padding": "border"},
    "a backbone of timm": {"rectified": (32, 32), "classifier": "timm:test_resnet"},
    "a backbone of torchvision, in colour": {"rectified": (32, 32), "classifier": "torchvision:shufflenet_v2_x0_5"},
}
RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "onnx": OnnxRuntime,
    "torchscript": TorchScriptRuntime,
    "program": ProgramRuntime,
}
COVERED = ("in colour", "projective", "tps", "affine steps", "a backbone of timm")
"""Compositions whose parts are all in others; an export takes seconds."""
EACH_KIND = (
    "affine, border, from a pyramid",
    "similarity in tiles, reflection",
    "attention, a level outside",
    "rotation, several samples, the tutorial's classifier",
    "projective in shared steps, a level outside",
    "tps on features of stage 2",
    "translation in tiles, a backbone each",
)
"""A composition of each kind of transformer, for the runtimes that get the same network as ONNX."""
EXPORTED = [("onnx", name) for name in COMPOSITIONS if name not in COVERED]
EXPORTED += [(runtime, name) for runtime in ("torchscript", "program") for name in EACH_KIND]
every_composition = pytest.mark.parametrize("name", COMPOSITIONS)


def composed(name: str) -> Recipe:
    """The recipe of a composition."""
    recipe = small(**COMPOSITIONS[name])
    if recipe.classifier.startswith("timm:"):
        pytest.importorskip("timm")
    return in_colour(recipe) if name.endswith("in colour") else recipe


def interface(recipe: Recipe) -> Signature:
    """What the manifest would say of a run of ``recipe``."""
    info = RunInfo.model_construct(  # unchecked, for the sake of colour
        recipe=recipe,
        seed=0,
        classes=tuple("0123456789"),
        channels=len(recipe.mean),
        network_parameters=1,
        created=datetime.now(UTC),
        versions={},
    )
    return signature(info)


def pictures(recipe: Recipe, count: int = 9) -> NDArray[np.uint8]:
    """Smooth ones, as real pictures are; `compare` adds noise."""
    rows, columns = np.meshgrid(*(np.linspace(0, 6, side) for side in recipe.canvas), indexing="ij")
    waves = [np.sin(rows * (1 + n / 3) + n) * np.cos(columns - n) for n in range(count * len(recipe.mean))]
    levels = (np.stack(waves) * 127 + 128).astype(np.uint8)
    return levels.reshape(count, len(recipe.mean), *recipe.canvas).transpose(0, 2, 3, 1).copy()


def served(recipe: Recipe) -> ServedNetwork:
    """A network that looks far from the identity, another way at each picture."""
    return ServedNetwork(randomised(build(recipe)), temperature=1.3).eval()


@every_composition
def test_what_is_compared_lies_far_from_the_identity_and_differs_from_picture_to_picture(name: str) -> None:
    recipe = composed(name)
    stated, images = interface(recipe), pictures(recipe)
    found = trained(served(recipe), tuple(stated.outputs))(images)
    for transform in stated.transforms:
        assert np.abs(found[transform.theta] - np.eye(2, 3)).max() > 0.05
        assert found[transform.theta].std(axis=0).max() > 1e-3
        assert found[transform.rectified].shape == (9, transform.height, transform.width, len(recipe.mean))


@pytest.mark.parametrize(("runtime", "name"), EXPORTED)
def test_an_exported_network_answers_as_the_trained_one(runtime: str, name: str) -> None:
    recipe = composed(name)
    network, stated, images = served(recipe), interface(recipe), pictures(recipe)
    outputs = tuple(stated.outputs)
    content = RUNTIMES[runtime]().serialise(folded(network), torch.from_numpy(images[:2]), outputs)
    exported = RUNTIMES[runtime]().load(content, outputs)
    parity = compare(trained(network, outputs), exported, stated, images, exact(network, outputs))
    assert max(parity.rounding_probabilities or 0, parity.rounding_parameters or 0) < 1e-4, (
        "float64 is the same network"
    )
    if runtime == "onnx":
        check_onnx(onnx.load_from_string(content), outputs)


def check_onnx(model: onnx.ModelProto, outputs: tuple[str, ...]) -> None:
    """Opset 18, names in the stated order, nothing that ONNX Runtime has no CUDA kernel for or TensorRT refuses."""
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert tuple(output.name for output in model.graph.output) == outputs
    operators = {node.op_type for node in model.graph.node}
    assert "GridSample" in operators
    assert "AffineGrid" not in operators
    assert model.graph.node[0].op_type == "Cast", "TensorRT transposes no uint8"


def test_constants_are_folded_into_the_weights() -> None:
    recipe = small(transformer="similarity", padding="border", localisation="modern")
    images, outputs = pictures(recipe), tuple(interface(recipe).outputs)
    content = OnnxRuntime().serialise(folded(served(recipe)), torch.from_numpy(images[:2]), outputs)
    graph = onnx.load_from_string(content).graph
    count = Counter(node.op_type for node in graph.node)
    assert count["Sub"] == 2, "the mean, of the picture and of the rectified image"
    assert count["Div"] == count["BatchNormalization"] == count["ReduceMean"] == count["Concat"] == 0
    assert (count["Mul"], count["Add"]) == (2, 2), "the grid"
    sampler = next(node for node in graph.node if node.op_type == "GridSample")
    assert "zeros" in str(sampler.attribute), "the border is a limit of the grid"
    used = {name for node in graph.node for name in node.input}
    assert {each.name for each in graph.initializer} <= used


def test_folding_leaves_the_trained_network_as_it_was() -> None:
    network = served(small())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (network.temperature, network.white) == (1.3, 255)


def test_a_difference_in_any_transformer_is_seen() -> None:
    recipe = small(steps=2, parallel=2)
    network, stated = served(recipe), interface(recipe)
    outputs, images = tuple(stated.outputs), pictures(recipe)
    for position in range(4):
        other = served(recipe)
        heads(other.network)[position].bias.data += 1e-3
        with pytest.raises(ParityError, match="parameters by 0"):
            compare(trained(network, outputs), trained(other, outputs), stated, images)


def test_a_single_affine_transformer_needs_no_parameters_beside_theta() -> None:
    stated = interface(small())
    assert list(stated.outputs) == ["probabilities", "theta", "rectified"]
    assert [(t.name, t.kind, t.parameters) for t in stated.transforms] == [("transformer", "affine", "theta")]


@pytest.mark.parametrize("kind", ["projective", "tps"])
def test_what_theta_does_not_say_in_full_has_parameters_of_its_own(kind: str) -> None:
    assert list(interface(small(transformer=kind)).outputs) == ["probabilities", "theta", "parameters", "rectified"]


def test_several_transformers_carry_their_names_and_sizes_in_the_order_of_the_data_flow() -> None:
    stated = interface(small(steps=2, feature_stage=1))
    names = ["step1", "step2", "features"]
    assert [(t.name, t.branch, t.step, t.reads, t.height, t.width) for t in stated.transforms] == [
        ("step1", 1, 1, "picture", *CANVAS),
        ("step2", 1, 2, "picture", *RECTIFIED),
        ("features", 1, 1, "features", *RECTIFIED),
    ]
    each = [f"{output}_{name}" for name in names for output in ("theta", "parameters", "rectified")]
    assert list(stated.outputs) == ["probabilities", *each]


def test_the_rectified_image_is_that_of_the_picture_whatever_the_network_sampled() -> None:
    recipe = small(normalise="before")
    network = ServedNetwork(build(recipe)).eval()  # at the identity: the picture, made smaller
    images = np.full((1, *CANVAS, 1), 77, np.uint8)
    found = trained(network, tuple(interface(recipe).outputs))(images)["rectified"]
    np.testing.assert_array_equal(found, np.full((1, *RECTIFIED, 1), 77))


def test_shapes_of_the_parameters_are_stated_as_they_are() -> None:
    for name in COMPOSITIONS:
        recipe = composed(name)
        stated = interface(recipe)
        found = trained(served(recipe), tuple(stated.outputs))(pictures(recipe))
        for transform in stated.transforms:
            assert found[transform.parameters].shape == (9, *transform.parameters_shape)


def test_a_kind_that_the_format_does_not_know_is_refused() -> None:
    with pytest.raises(ArtifactError, match="'spiral' cannot be exported"):
        interface(small().model_copy(update={"transformer": "spiral"}))


def test_pictures_of_two_channels_are_refused() -> None:
    with pytest.raises(ArtifactError, match="2 channels"):
        interface(small(distortion="addition", mean=(0.1, 0.1), std=(0.3, 0.3)))


def test_the_sizes_of_all_steps_are_those_of_their_views() -> None:
    first, last = transforms(small(steps=2, view=(9, 11), margin=1.3))
    assert (first.height, first.width) == (9, 11)
    assert (last.height, last.width) == small().rectified
