"""The reference that drift is measured against comes with every export, and can be given to an older artifact."""

from pathlib import Path

import numpy as np
import pytest

from export.format.artifact import MANIFEST, Artifact, read_artifact, seal, write_artifact
from export.format.errors import ArtifactError
from export.format.modelfile import bare_onnx
from export.reference import add_reference
from tests.conftest import REPOSITORY
from training.fitting.runs import Run

BUNDLED = sorted((REPOSITORY / "models").glob("*/[0-9]*"))


@pytest.fixture
def artifact(models: Path) -> Artifact:
    """The small run's artifact, with the reference that export wrote."""
    return read_artifact(models / "digits" / "1")


def without_reference(artifact: Artifact) -> Artifact:
    """As an older version exported it."""
    older = artifact.manifest.model_copy(update={"reference": None, "reliability": None})
    write_artifact(artifact.folder, *seal(older, artifact.model, artifact.golden_pictures))
    return read_artifact(artifact.folder)


def test_export_writes_what_the_run_said_of_its_validation_pictures(artifact: Artifact) -> None:
    reference = read_artifact(artifact.folder).manifest.reference
    assert reference is not None
    assert (reference.dataset, reference.pictures) == ("mnist validation, rts", 160)
    assert {d.quantity for d in reference.distributions} >= {"rotation", "scale", "outside", "confidence", "classes"}
    assert all(sum(d.shares) == pytest.approx(1, abs=1e-4) for d in reference.distributions)


def test_an_older_artifact_gets_the_same_reference_and_keeps_its_model(
    artifact: Artifact, trained_run: Run, data_root: Path
) -> None:
    older = without_reference(artifact)
    assert older.manifest.reference is None
    add_reference(older.folder, trained_run, data_root)
    newer = read_artifact(older.folder)
    assert newer.manifest.reference is not None
    assert artifact.manifest.reference is not None
    for ours, theirs in zip(
        newer.manifest.reference.distributions, artifact.manifest.reference.distributions, strict=True
    ):
        assert (ours.quantity, ours.transform) == (theirs.quantity, theirs.transform)
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-4)
    found, stated = newer.manifest.reliability, artifact.manifest.reliability
    assert found is not None
    assert stated is not None
    assert found.dataset == stated.dataset == "mnist validation, rts"
    assert (found.intercept, found.slope) == pytest.approx((stated.intercept, stated.slope), abs=0.02)
    files = {"reference", "reliability", "files"}
    assert newer.manifest.model_dump(exclude=files) == older.manifest.model_dump(exclude=files)
    assert np.array_equal(newer.golden()[0], older.golden()[0])
    if newer.manifest.runtime == "onnx":
        assert bare_onnx(newer.model) == bare_onnx(older.model)


def test_doing_it_twice_changes_nothing(artifact: Artifact, trained_run: Run, data_root: Path) -> None:
    add_reference(artifact.folder, trained_run, data_root)
    once = (artifact.folder / MANIFEST).read_bytes()
    add_reference(artifact.folder, trained_run, data_root)
    assert (artifact.folder / MANIFEST).read_bytes() == once


def test_the_run_of_another_model_is_refused(trained_run: Run, data_root: Path) -> None:
    with pytest.raises(ArtifactError, match=r"was not exported from .* epochs.* differ"):
        add_reference(BUNDLED[0], trained_run, data_root)


def test_what_is_no_folder_of_an_artifact_is_refused(trained_run: Run, data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="name an artifact's folder"):
        add_reference(tmp_path, trained_run, data_root)


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_bundled_models_have_a_reference(folder: Path) -> None:
    assert read_artifact(folder).manifest.reference is not None
