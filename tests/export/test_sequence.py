"""A network that reads a sequence becomes an artifact of every kind: one theta, image and row of classes an object."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.compose.sampling import straightening
from export.exporter import Destination, Runtime, Smaller, export_run
from export.format.artifact import Artifact, read_artifact
from export.format.errors import ArtifactError
from export.onnx import OnnxRuntime
from export.reference import add_reference
from training.fitting.runs import Run


@pytest.fixture(scope="module")
def artifact(sequence_run: Run, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact of the sequence's run."""
    models = tmp_path_factory.mktemp("models")
    return read_artifact(export_run(sequence_run, runtime, Destination(models, "sequence")).folder)


def test_the_manifest_describes_the_answer_and_the_transform_of_each_object(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert manifest.sequence == 2
    assert manifest.answers()["probabilities"].shape == (2, 10)
    assert [(t.name, t.branch, t.step) for t in manifest.transforms] == [("object1", 1, 1), ("object2", 2, 1)]
    assert manifest.outputs[1:4] == ("theta_object1", "parameters_object1", "rectified_object1")
    assert manifest.worth is not None
    assert manifest.reliability is None


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_file_answers_as_the_network_does_at_any_batch(
    count: int, artifact: Artifact, runtime: Runtime, sequence_run: Run
) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 40, 64, 1), dtype=np.uint8)
    found = runtime.load(artifact.model_file.read_bytes(), artifact.manifest.outputs)(images)
    with torch.inference_mode():
        output = sequence_run.trained_network()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    expected = (output.logits / sequence_run.evaluation().temperature).softmax(dim=2)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    for number, warp in enumerate(output.warps, start=1):
        np.testing.assert_allclose(found[f"theta_object{number}"], warp.theta, atol=1e-5)
        assert found[f"rectified_object{number}"].shape == (count, 14, 16, 1)


def test_golden_pictures_hold_the_answers_for_all_objects(artifact: Artifact) -> None:
    images, answers = artifact.golden()
    assert answers["probabilities"].shape == (len(images), 2, 10)
    assert artifact.manifest.parity.probabilities < 1e-4


def test_drift_is_told_from_the_confidence_and_each_objects_theta(artifact: Artifact) -> None:
    assert artifact.manifest.reference is not None
    quantities = {(d.transform, d.quantity) for d in artifact.manifest.reference.distributions}
    assert {("", "confidence"), ("object1", "shift_x"), ("object2", "shift_x")} <= quantities
    assert ("", "classes") not in quantities


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_it_can_be_made_smaller_and_its_accuracy_is_that_of_its_objects(
    precision: str, sequence_run: Run, data_root: Path, tmp_path: Path
) -> None:
    less = Smaller("float16" if precision == "float16" else "int8", data_root, 1.0, lambda *_: None)
    manifest = export_run(sequence_run, OnnxRuntime(), Destination(tmp_path, "sequence"), less).manifest
    assert manifest.price is not None
    assert manifest.price.accuracy_before == pytest.approx(sequence_run.evaluation().accuracy, abs=0.005)
    assert manifest.accuracy is not None
    assert manifest.accuracy.accuracy == pytest.approx(sequence_run.evaluation().accuracy, abs=0.05)
    assert manifest.price.probabilities > 0


def test_a_reference_can_be_added_and_no_reliability(sequence_run: Run, data_root: Path, tmp_path: Path) -> None:
    folder = export_run(sequence_run, OnnxRuntime(), Destination(tmp_path, "sequence")).folder
    made = add_reference(folder, sequence_run, data_root)
    assert made.reference is not None
    assert made.reliability is None


def test_it_is_refused_as_a_straightener(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="several objects"):
        straightening(artifact.manifest)
