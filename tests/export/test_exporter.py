"""A trained run becomes an artifact of either runtime, or nothing at all."""

import io
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from structlog.testing import capture_logs
from torch import nn

from export.exporter import Destination, Runtime, as_sent, export_run, name_pictures, worth_of
from export.format.artifact import read_artifact
from export.format.errors import ArtifactError, ParityError
from export.format.golden import Outputs
from export.graph import ServedNetwork
from export.onnx import OnnxRuntime
from export.parity import Model
from export.torchscript import TorchScriptRuntime
from tests.small_runs import begin
from training.data.splits import Split
from training.errors import RunError
from training.fitting.runs import Run
from training.recipes.recipe import Recipe
from training.reports.evaluation import evaluate


def test_the_artifact_says_what_was_trained(exported: Path, trained_run: Run) -> None:
    manifest = read_artifact(exported).manifest
    info = trained_run.info()
    assert exported.name == "1"
    assert manifest.classes == info.classes
    assert manifest.recipe == info.recipe.model_dump(mode="json") | {"seed": 0}
    assert manifest.accuracy is not None
    assert manifest.accuracy.accuracy == trained_run.evaluation().accuracy
    assert (manifest.input.height, manifest.input.width, manifest.input.channels) == (42, 42, 1)
    assert [(t.kind, t.height, t.width) for t in manifest.transforms] == [("affine", 28, 28)]


def test_parity_was_within_the_stated_bounds(exported: Path) -> None:
    parity = read_artifact(exported).manifest.parity
    assert parity.probabilities <= 1e-5
    assert parity.parameters <= 1e-5
    assert parity.rectified <= 1


@pytest.mark.parametrize("count", [1, 2, 33, 256])
def test_the_file_answers_as_the_network_does_at_any_batch(
    count: int, exported: Path, runtime: Runtime, trained_run: Run
) -> None:
    artifact = read_artifact(exported)
    images = np.random.default_rng(count).integers(0, 256, (count, 42, 42, 1), dtype=np.uint8)
    found = runtime.load(artifact.model_file.read_bytes(), artifact.manifest.outputs)(images)
    with torch.inference_mode():
        output = trained_run.trained_network()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(
        found["probabilities"], (output.logits / trained_run.evaluation().temperature).softmax(1), atol=1e-5
    )
    np.testing.assert_allclose(found["theta"], output.warps[0].theta, atol=1e-5)
    rectified = output.warps[0].rectified.permute(0, 2, 3, 1).numpy() * 255
    assert found["rectified"].dtype == np.uint8
    assert np.abs(found["rectified"] - rectified).max() <= 1
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-5)


def test_golden_answers_are_those_of_the_trained_network(exported: Path, trained_run: Run) -> None:
    images, answers = read_artifact(exported).golden()
    np.testing.assert_array_equal(images, trained_run.samples()[: len(images)])
    with torch.inference_mode():
        network = ServedNetwork(trained_run.trained_network(), trained_run.evaluation().temperature).eval()
        expected = network(torch.from_numpy(images))
    for found, wanted in zip(answers.values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_probabilities_are_those_at_the_temperature_that_was_fitted(exported: Path, trained_run: Run) -> None:
    temperature = trained_run.evaluation().temperature
    assert read_artifact(exported).manifest.temperature == temperature != 1
    images, answers = read_artifact(exported).golden()
    with torch.inference_mode():
        logits = trained_run.trained_network()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).logits
    np.testing.assert_allclose(answers["probabilities"], (logits / temperature).softmax(dim=1), atol=1e-6)


def test_the_manifest_states_what_the_transformer_is_worth(exported: Path, trained_run: Run) -> None:
    stated, evaluation = read_artifact(exported).manifest.worth, trained_run.evaluation()
    assert stated is not None
    assert evaluation.worth is not None
    assert evaluation.pose is not None
    for name in ("pictures", "accuracy", "mean_theta", "identity", "decoration"):
        assert getattr(stated, name) == getattr(evaluation.worth, name)
    for name in ("turn_deg", "shift", "size"):
        assert getattr(stated, name).model_dump() == getattr(evaluation.pose, name).model_dump()


def test_the_manifest_states_how_reliable_corners_are(exported: Path, trained_run: Run) -> None:
    stated, measured = read_artifact(exported).manifest.reliability, trained_run.evaluation().reliability
    assert stated is not None
    assert measured is not None
    for name in ("pictures", "views", "within", "intercept", "slope"):
        assert getattr(stated, name) == getattr(measured, name)
    scores = [stated.score(deviation) for deviation in (0, 0.01, 0.1, 1, 1e9)]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1


def test_a_run_whose_theta_was_not_measured_is_exported_without_its_worth(trained_run: Run) -> None:
    measured = trained_run.evaluation()
    assert worth_of(measured.model_copy(update={"worth": None})) is None
    alone = worth_of(measured.model_copy(update={"pose": None}))
    assert alone is not None
    assert alone.turn_deg is None


def test_no_path_of_this_machine_is_in_the_artifact(exported: Path) -> None:
    for file in exported.iterdir():
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(io.BytesIO(contents[0])) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for content in contents:
            assert str(Path(__file__).parents[2]).encode() not in content


def test_pictures_are_not_copied_to_be_sent() -> None:
    split = Split(torch.zeros(3, 2, 4, 5, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert as_sent(split).shape == (3, 4, 5, 2)
    assert np.shares_memory(as_sent(split), split.images.numpy())


@pytest.mark.parametrize("runtime", [TorchScriptRuntime], indirect=True)
def test_exporting_again_makes_the_next_version(models: Path, trained_run: Run) -> None:
    made = export_run(trained_run, TorchScriptRuntime(), Destination(models, "digits", None))
    assert made.folder == models / "digits" / "2"


def test_an_existing_version_is_kept_without_force(exported: Path, runtime: Runtime, trained_run: Run) -> None:
    before = (exported / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match="--force"):
        export_run(trained_run, runtime, Destination(exported.parent.parent, "digits", 1))
    assert (exported / "manifest.json").read_bytes() == before


def test_a_run_that_was_not_evaluated_is_not_exported(runtime: Runtime, small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    with pytest.raises(RunError, match="evaluate"):
        export_run(run, runtime, Destination(tmp_path / "models", "digits", None))
    assert not (tmp_path / "models").exists()


class Forgetful:
    """A runtime that writes a model which answers a little too low."""

    name = TorchScriptRuntime.name
    title = "TorchScript, a little wrong"
    opset: int | None = None
    folder = "models"
    versions: Mapping[str, str] = MappingProxyType({"wrong": "1"})

    def serialise(self, network: nn.Module, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        return TorchScriptRuntime().serialise(network, example, outputs)

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        right = TorchScriptRuntime().load(content, outputs)

        def wrong(images: NDArray[np.uint8]) -> Outputs:
            answers = right(images)
            return {**answers, "theta": answers["theta"] - np.float32(1e-3)}

        return wrong


def test_a_model_that_differs_is_not_written(trained_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"parameters by 0\.001"):
        export_run(trained_run, Forgetful(), Destination(tmp_path / "models", "digits", None))
    assert not (tmp_path / "models").exists()


@pytest.fixture
def onnx_model(exports: Callable[[Runtime], Path]) -> onnx.ModelProto:
    """The small run as ONNX."""
    return onnx.load(exports(OnnxRuntime()) / "model.onnx")


def test_onnx_is_valid_opset_18_of_the_standard_domain(onnx_model: onnx.ModelProto) -> None:
    onnx.checker.check_model(onnx_model, full_check=True)
    assert [(entry.domain, entry.version) for entry in onnx_model.opset_import] == [("", 18)]
    assert {node.domain for node in onnx_model.graph.node} == {""}


def test_onnx_samples_with_gridsample_and_has_no_affinegrid(onnx_model: onnx.ModelProto) -> None:
    operators = [node.op_type for node in onnx_model.graph.node]
    assert operators.count("GridSample") == 1
    assert "AffineGrid" not in operators


def test_onnx_takes_uint8_pictures_in_batches_of_any_size(onnx_model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert isinstance(image.shape[0], str)
    assert image.shape[1:] == [42, 42, 1]
    forms = {output.name: (output.type, output.shape[1:]) for output in session.get_outputs()}
    assert forms == {
        "probabilities": ("tensor(float)", [10]),
        "theta": ("tensor(float)", [2, 3]),
        "rectified": ("tensor(uint8)", [28, 28, 1]),
    }


def test_what_a_model_was_tested_on_is_named_with_the_distortion_if_there_was_one() -> None:
    assert name_pictures("mnist", "rts") == "mnist test, rts"
    assert name_pictures("gtsrb", "none") == "gtsrb test"


def test_a_model_that_answers_one_class_for_everything_is_exported_with_a_warning(
    trained_run: Run, data_root: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(trained_run.folder, tmp_path / "run"))
    checkpoint = torch.load(run.best_checkpoint, weights_only=True)
    checkpoint["state_dict"]["network.classifier.head.2.bias"][0] += 100
    torch.save(checkpoint, run.best_checkpoint)
    with capture_logs() as logs:
        evaluate(run, data_root)
    assert [(entry["event"], entry["label"]) for entry in logs] == [("one_class_answered", "0")]
    made = export_run(run, TorchScriptRuntime(), Destination(tmp_path / "models", "digits"))
    assert made.manifest.reference is not None
    (classes,) = (found for found in made.manifest.reference.distributions if found.quantity == "classes")
    assert (classes.edges, classes.shares) == ((-0.5, 0.5), (0.0, 1.0, 0.0))
