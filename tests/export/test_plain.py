"""A classifier without a transformer becomes an artifact too: its theta is the identity."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.compose.sampling import straightening
from export.exporter import Destination, Runtime, Smaller, export_run
from export.format.artifact import Artifact, read_artifact
from export.format.errors import ArtifactError
from export.format.manifest import Precision
from export.onnx import OnnxRuntime
from tests.small_runs import begin
from training.fitting.runs import Run
from training.fitting.trainer import fit
from training.recipes.digits import MNIST_RTS
from training.recipes.recipe import change_recipe
from training.reports.evaluation import evaluate


@pytest.fixture(scope="module")
def plain_run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without a transformer, trained and evaluated."""
    changes: dict[str, object] = {
        "transformer": "none",
        "epochs": 1,
        "validation_size": 160,
        "batch_size": 64,
        "classifier_width": 4,
    }
    run = begin(tmp_path_factory.mktemp("runs") / "plain", change_recipe(MNIST_RTS, changes), data_root=data_root)
    fit(run, data_root, progress=False)
    evaluate(run, data_root)
    return run


@pytest.fixture(scope="module")
def artifact(plain_run: Run, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact of the plain run."""
    models = tmp_path_factory.mktemp("models")
    return read_artifact(export_run(plain_run, runtime, Destination(models, "plain")).folder)


def test_the_manifest_says_that_there_is_no_transformer(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert [(t.kind, t.theta, t.height, t.width) for t in manifest.transforms] == [("none", "theta", 42, 42)]
    assert (manifest.worth, manifest.reliability) == (None, None)
    assert manifest.accuracy is not None


@pytest.mark.parametrize("count", [1, 5])
def test_theta_is_the_identity_and_the_rectified_image_the_whole_picture(
    count: int, artifact: Artifact, runtime: Runtime, plain_run: Run
) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 42, 42, 1), dtype=np.uint8)
    found = runtime.load(artifact.model_file.read_bytes(), artifact.manifest.outputs)(images)
    np.testing.assert_array_equal(found["theta"], np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)))
    np.testing.assert_array_equal(found["rectified"], images)
    with torch.inference_mode():
        logits = plain_run.trained_network()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).logits
    expected = (logits / plain_run.evaluation().temperature).softmax(1)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)


def test_drift_is_told_from_classes_and_confidence_alone(artifact: Artifact) -> None:
    reference = artifact.manifest.reference
    assert reference is not None
    assert {d.quantity for d in reference.distributions} == {"confidence", "classes"}


@pytest.mark.parametrize(("runtime", "precision"), [(OnnxRuntime(), "float16"), (OnnxRuntime(), "int8")])
def test_it_can_be_made_smaller(
    runtime: Runtime, precision: Precision, plain_run: Run, data_root: Path, tmp_path: Path
) -> None:
    less = Smaller(precision, data_root, 1.0, lambda *_: None)
    made = export_run(plain_run, runtime, Destination(tmp_path, "plain"), less)
    images, answers = made.golden()
    np.testing.assert_array_equal(answers["rectified"], images)


@pytest.mark.parametrize("runtime", [OnnxRuntime], indirect=True)
def test_its_onnx_file_samples_nothing(artifact: Artifact) -> None:
    model = onnx.load(artifact.model_file)
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model, full_check=True)


def test_it_is_refused_as_a_straightener(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="no transformer"):
        straightening(artifact.manifest)
