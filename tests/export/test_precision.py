"""Smaller precisions keep the geometry, say what they cost, and are refused when that is too much."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export.exporter import Destination, Runtime, Smaller, export_run
from export.format.artifact import Artifact, read_artifact
from export.format.errors import ArtifactError, PriceError
from export.format.manifest import Precision, Price
from export.graph import Signature, folded, signature
from export.onnx import OnnxRuntime
from export.parity import difference, measure, trained
from export.precision import corner_gap, in_half, quantisable, quantise
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from service.inference.backends import open_backend
from tests.export.test_kinds import composed, interface, pictures, served
from training.fitting.runs import Run

Shown = list[tuple[Price, float, int]]
SMALLER: dict[str, tuple[Runtime, Precision]] = {
    "onnx fp16": (OnnxRuntime(), "float16"),
    "onnx int8": (OnnxRuntime(), "int8"),
    "torchscript fp16": (TorchScriptRuntime(), "float16"),
}


@pytest.fixture(scope="module", params=SMALLER)
def smaller_model(
    request: pytest.FixtureRequest, trained_run: Run, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Shown]:
    """The small run in each smaller precision, and what was shown before it was kept."""
    runtime, precision = SMALLER[request.param]
    shown: Shown = []
    smaller = Smaller(precision, data_root, 1.0, lambda *price: shown.append(price))
    destination = Destination(tmp_path_factory.mktemp("models"), "digits")
    return read_artifact(export_run(trained_run, runtime, destination, smaller).folder), shown


def test_its_price_was_shown_and_is_in_the_manifest(smaller_model: tuple[Artifact, Shown], trained_run: Run) -> None:
    artifact, ((price, accuracy, size),) = smaller_model
    manifest = artifact.manifest
    assert manifest.price == price
    assert manifest.accuracy is not None
    assert manifest.accuracy.accuracy == accuracy
    assert manifest.accuracy.pictures == trained_run.evaluation().pictures
    assert price.accuracy_before == pytest.approx(trained_run.evaluation().accuracy, abs=0.005)
    assert 0 < price.probabilities < 0.5
    assert price.corners_mean_px <= price.corners_px < 1
    assert size < price.bytes_before
    assert size < artifact.manifest.files[manifest.model_file].bytes, "with the manifest inside"


def test_it_answers_to_its_golden_pictures_as_recorded(smaller_model: tuple[Artifact, Shown]) -> None:
    artifact, _ = smaller_model
    manifest = artifact.manifest
    images, expected = artifact.golden()
    found = open_backend(artifact, "cpu", threads=1).run(images)
    gap = difference(expected, found, interface_of(artifact))
    assert gap.probabilities <= manifest.tolerance.probabilities
    assert gap.parameters <= manifest.tolerance.parameters
    assert gap.rectified <= manifest.tolerance.rectified


def interface_of(artifact: Artifact) -> Signature:
    """The manifest's inputs and outputs, as parity knows them."""
    return Signature(artifact.manifest.input, artifact.manifest.transforms, artifact.manifest.outputs)


def test_one_that_loses_more_than_it_may_is_shown_but_not_kept(
    trained_run: Run, data_root: Path, tmp_path: Path
) -> None:
    shown: Shown = []
    never = Smaller("float16", data_root, -1.0, lambda *price: shown.append(price))
    with pytest.raises(PriceError, match="nothing was written"):
        export_run(trained_run, TorchScriptRuntime(), Destination(tmp_path / "models", "digits"), never)
    assert len(shown) == 1
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("runtime", [TorchScriptRuntime(), ProgramRuntime()], ids=lambda runtime: runtime.name)
def test_int8_is_for_onnx_alone(runtime: Runtime, trained_run: Run, data_root: Path, tmp_path: Path) -> None:
    smaller = Smaller("int8", data_root, 1.0, lambda *_: None)
    with pytest.raises(ArtifactError, match="--precision fp16"):
        export_run(trained_run, runtime, Destination(tmp_path, "digits"), smaller)


def onnx_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of each tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {i.name: i.data_type for i in inferred.initializer}


@pytest.mark.parametrize(
    "name", ["affine, border, from a pyramid", "tps in shared steps", "affine steps in tiles, normalised before"]
)
def test_grid_and_sampler_stay_in_float32(name: str) -> None:
    recipe = composed(name)
    network, stated, images = served(recipe), interface(recipe), pictures(recipe)
    outputs = tuple(stated.outputs)
    content = OnnxRuntime().serialise(in_half(folded(network)), torch.from_numpy(images[:2]), outputs)
    model = onnx.load_from_string(content)
    types = onnx_types(model)
    samplers = [node for node in model.graph.node if node.op_type == "GridSample"]
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {types[name] for node in samplers for name in node.input} == {TensorProto.FLOAT}
    full = [node.op_type for node in convolutions if types[node.output[0]] != TensorProto.FLOAT16]
    steps = sum(output.startswith("theta") for output in outputs)
    assert full == ["Gemm"] * steps, "the last layer of each localisation network, once a step"
    gap = measure(trained(network, outputs), OnnxRuntime().load(content, outputs), stated, images)
    assert 0 < gap.parameters < 1e-2


@pytest.mark.parametrize("name", ["affine on features, shared stage", "tps in shared steps"])
def test_int8_leaves_every_theta_as_it_was(name: str) -> None:
    recipe = composed(name)
    network, stated, images = served(recipe), interface(recipe), pictures(recipe)
    outputs = tuple(stated.outputs)
    content = OnnxRuntime().serialise(folded(network), torch.from_numpy(images[:2]), outputs)
    assert 0 < len(quantisable(onnx.load_from_string(content), stated)) < 10
    smaller = quantise(content, images, stated)
    gap = measure(trained(network, outputs), OnnxRuntime().load(smaller, outputs), stated, images)
    assert gap.parameters < 1e-5
    assert 1e-5 < gap.probabilities < 0.1
    onnx.checker.check_model(onnx.load_from_string(smaller), full_check=True)


def test_corners_are_compared_in_pixels_of_the_picture(trained_run: Run) -> None:
    stated = signature(trained_run.info())
    one = {"theta": np.tile(np.eye(2, 3, dtype=np.float32), (5, 1, 1))}
    other = {"theta": one["theta"] + np.array([[0, 0, 2 * 3 / 42], [0, 0, 2 * 4 / 42]], np.float32)}
    np.testing.assert_allclose(corner_gap(one, other, "theta", stated), np.full((5, 4), 5.0), atol=1e-4)
