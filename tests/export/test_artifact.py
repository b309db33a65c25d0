import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from export.artifact import (
    ArtifactError,
    Outputs,
    claim_version,
    find_artifacts,
    pack_golden,
    read_artifact,
    record,
    seal,
    write_artifact,
)
from tests.export.manifests import manifest, tiny_onnx

IMAGES = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
ANSWERS: Outputs = {
    "probabilities": np.full((2, 2), 0.5, np.float32),
    "theta": np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
    "rectified": IMAGES,
}
FINISHED, FILES = seal(manifest(), tiny_onnx(), pack_golden("image", IMAGES, ANSWERS))
MODEL = FILES["model.onnx"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact as it is written."""
    place = tmp_path / "pets" / "1"
    write_artifact(place, FINISHED, FILES)
    return place


def edit(folder: Path, **changes: object) -> None:
    """Change fields of the manifest in ``folder``."""
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_is_written_is_read(folder: Path) -> None:
    artifact = read_artifact(folder)
    assert artifact.manifest == FINISHED
    assert artifact.model == artifact.model_file.read_bytes() == FILES["model.onnx"]
    images, answers = artifact.golden()
    np.testing.assert_array_equal(images, IMAGES)
    assert answers.keys() == ANSWERS.keys()
    for name, answer in ANSWERS.items():
        np.testing.assert_array_equal(answers[name], answer)


def test_nothing_is_left_beside_the_artifact(folder: Path) -> None:
    assert [entry.name for entry in folder.parent.iterdir()] == ["1"]


def test_a_version_is_replaced_as_a_whole(folder: Path) -> None:
    (folder / "stale.txt").write_text("of the old version")
    write_artifact(folder, FINISHED, FILES)
    assert {entry.name for entry in folder.iterdir()} == {"manifest.json", *FILES}


def test_a_failed_write_keeps_what_was_there(folder: Path) -> None:
    (folder / "mark").write_text("old")
    with pytest.raises(ArtifactError, match="nothing was changed"):
        write_artifact(folder, FINISHED, {"no/such/folder": b""})
    assert (folder / "mark").read_text() == "old"
    assert [entry.name for entry in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    "content", [FILES["model.onnx"][:-1] + b"x", FILES["model.onnx"] + b"x", FILES["model.onnx"][:-9], b""]
)
def test_a_changed_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        read_artifact(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        read_artifact(folder)


def test_a_newer_format_is_refused_with_the_cure(folder: Path) -> None:
    edit(folder, format_version=3, something_new=True)
    with pytest.raises(ArtifactError, match="upgrade stn-serve"):
        read_artifact(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": "one"},
        {"classes": ["only one"]},
        {"outputs": ["probabilities", "theta"]},
        {"transforms": []},
        {"unknown": 1},
        {"runtime": "torchscript"},
        {"files": {}},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edit(folder, **changes)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_artifact(folder)


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '"text"', "\x00"])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_artifact(folder)


def test_a_manifest_cannot_name_files_elsewhere(folder: Path) -> None:
    outside = record(b"secret")
    (folder.parent / "secret").write_bytes(b"secret")
    edit(folder, files=json.loads(FINISHED.model_dump_json())["files"] | {"../secret": outside.model_dump()})
    with pytest.raises(ArtifactError, match="plain file name"):
        read_artifact(folder)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_artifact(tmp_path)


def test_artifacts_are_found_by_name_and_number(tmp_path: Path) -> None:
    for place in ("b/2", "b/10", "a/1", "a/not-a-version", "a/007", ".hidden/1", "a/.2.99.new", "a/0"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    assert [(name, version) for name, version, _ in find_artifacts(tmp_path)] == [("a", 1), ("b", 2), ("b", 10)]


def test_a_missing_models_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="models folder"):
        list(find_artifacts(tmp_path / "none"))


def test_a_model_folder_that_may_not_be_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_folder = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:  # the tests may run as root, whom no permission stops
        if path == folder.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ArtifactError, match=f"cannot read {folder.parent}: Permission denied"):
        list(find_artifacts(folder.parents[1]))


def test_the_next_version_is_one_above_the_highest(folder: Path) -> None:
    models = folder.parent.parent
    assert claim_version(models, "pets", None, force=False) == models / "pets" / "2"
    assert claim_version(models, "cars", None, force=False) == models / "cars" / "1"


def test_an_existing_version_is_only_given_out_by_force(folder: Path) -> None:
    models = folder.parent.parent
    with pytest.raises(ArtifactError, match="--force"):
        claim_version(models, "pets", 1, force=False)
    assert claim_version(models, "pets", 1, force=True) == folder


@pytest.mark.parametrize("version", [1, None])
def test_a_folder_that_cannot_be_looked_at_is_a_clear_error(tmp_path: Path, version: int | None) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        claim_version(tmp_path / ("x" * 300), "pets", version, force=False)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b", "x" * 65, "ä"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot name a model"):
        claim_version(tmp_path, name, 1, force=False)


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        manifest().runtime = "torchscript"  # type: ignore[misc]
