import errno
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from export.format.artifact import (
    ArtifactError,
    Outputs,
    claim_version,
    find_artifacts,
    pack_golden,
    read_artifact,
    read_bytes,
    record,
    seal,
    write_artifact,
)
from export.format.golden import unpack_golden
from export.format.modelfile import Inside, embed
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
    edit(folder, format_version=4, something_new=True)
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
    with pytest.raises(ArtifactError, match="is not a valid model name"):
        claim_version(tmp_path, name, 1, force=False)


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        manifest().runtime = "torchscript"  # type: ignore[misc]


def test_a_lone_model_file_is_an_artifact(folder: Path, tmp_path: Path) -> None:
    whole = read_artifact(folder)
    file = tmp_path / "pets.onnx"
    file.write_bytes(MODEL)
    alone = read_artifact(file)
    assert alone.manifest.inside == whole.manifest.inside
    np.testing.assert_array_equal(alone.golden()[0], IMAGES)
    assert list(find_artifacts(file)) == [("pets", 1, file)]


def test_a_folder_that_holds_the_model_file_alone_is_an_artifact(folder: Path) -> None:
    whole = read_artifact(folder)
    for name in ("manifest.json", "golden.npz"):
        (folder / name).unlink()
    assert read_artifact(folder).manifest == whole.manifest


def test_a_lone_file_without_a_manifest_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_onnx())
    with pytest.raises(ArtifactError, match="contains no manifest"):
        read_artifact(tmp_path / "model.onnx")


def test_a_lone_file_of_another_sort_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"something")
    with pytest.raises(ArtifactError, match=r"model files end with \.onnx"):
        read_artifact(tmp_path / "model.h5")


def test_golden_pictures_in_a_lone_file_are_checked(tmp_path: Path) -> None:
    other = pack_golden("image", IMAGES + 1, ANSWERS)
    inside = FINISHED.inside.model_dump_json().encode()
    (tmp_path / "model.onnx").write_bytes(embed("onnx", tiny_onnx(), Inside(inside, other)))
    with pytest.raises(ArtifactError, match="does not describe this file"):
        read_artifact(tmp_path / "model.onnx")


def test_a_manifest_that_was_edited_is_refused(folder: Path) -> None:
    edit(folder, classes=["dog", "cat"])
    with pytest.raises(ArtifactError, match=r"not the manifest that model\.onnx was exported with"):
        read_artifact(folder)


def test_an_artifact_of_the_first_format_is_read(tmp_path: Path) -> None:
    first = json.loads((Path(__file__).parents[2] / "data" / "manifest-1.json").read_text())
    model, golden = tiny_onnx(), b"golden"
    files = {"model.onnx": record(model).model_dump(), "golden.npz": record(golden).model_dump()}
    for name, content in {"model.onnx": model, "golden.npz": golden}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "manifest.json").write_text(json.dumps(first | {"files": files}))
    assert read_artifact(tmp_path).manifest.recipe["name"] == first["recipe"]["name"]


@pytest.mark.parametrize("size", [0, 10**12])
def test_a_size_that_is_not_the_files_is_refused_before_it_is_read(folder: Path, size: int) -> None:
    files = json.loads(FINISHED.model_dump_json())["files"]
    edit(folder, files=files | {"model.onnx": files["model.onnx"] | {"bytes": size}})
    with pytest.raises(ArtifactError, match=r"files|cut off"):
        read_artifact(folder)


def test_a_file_that_grew_is_not_read(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.truncate(2**40)  # a hole: no disk holds it, and no memory would
    with pytest.raises(ArtifactError, match="larger than"):
        read_artifact(folder)


def npz(**arrays: bytes) -> bytes:
    """An archive of such members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in arrays.items():
            archive.writestr(f"{name}.npy", body)
    return content.getvalue()


def npy(array: NDArray[Any], **header: object) -> bytes:
    """An array as numpy writes it, with another header."""
    content = io.BytesIO()
    fields = np.lib.format.header_data_from_array_1_0(array) | header
    np.lib.format.write_array_header_1_0(content, fields)
    return content.getvalue() + array.tobytes()


GOOD = {name: npy(array) for name, array in {"image": IMAGES, **ANSWERS}.items()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not an archive",
        npz(image=GOOD["image"]),
        npz(**GOOD | {"theta": npy(ANSWERS["theta"], shape=(10**12, 2, 3))}),
        npz(**GOOD | {"theta": npy(ANSWERS["theta"], shape=(2, 3, 2))}),
        npz(**GOOD | {"theta": npy(ANSWERS["theta"], descr="<f8")}),
        npz(**GOOD | {"theta": npy(ANSWERS["theta"][:1])}),
        npz(**GOOD | {"theta": npy(ANSWERS["theta"])[:-1]}),
        npz(**GOOD | {"theta": npy(np.array([os.getcwd], object), descr="|O", shape=(2, 2, 3))}),
        npz(**GOOD | {"image": npy(np.zeros((2000, 4, 4, 1), np.uint8))}),
        npz(**GOOD | {"image": bytes(50 * 2**20)}),
        pack_golden("image", IMAGES, ANSWERS)[:-40],
    ],
    ids=str.split("empty foreign incomplete absurd shape type too-few cut objects too-many bomb no-end"),
)
def test_golden_pictures_that_are_damaged_or_mean_harm_are_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"golden\.npz is damaged"):
        unpack_golden(content, FINISHED, "golden.npz")


WRITER = """
import itertools, sys
from pathlib import Path
from export.format.artifact import write_artifact
from tests.export.format.test_artifact import FILES, FINISHED
for turn in itertools.count():
    write_artifact(Path(sys.argv[1]), FINISHED, FILES)
    if turn == 0:
        print("begun", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange two folders in one step")
def test_a_writer_that_is_killed_leaves_a_whole_version(folder: Path) -> None:
    for turn in range(6):
        command = [sys.executable, "-c", WRITER, str(folder)]
        writer = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(0.002 * turn)
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        assert read_artifact(folder).manifest == FINISHED


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_disk_that_takes_no_more_keeps_what_was_there(folder: Path) -> None:
    import resource

    (folder / "mark").write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(MODEL) // 2, limits[1]))
    try:
        with pytest.raises(ArtifactError, match="File too large; nothing was changed"):
            write_artifact(folder, FINISHED, FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "mark").read_text() == "old"
    assert [entry.name for entry in folder.parent.iterdir()] == ["1"]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for place in (tmp_path / "fifo", tmp_path / "loop", tmp_path / "socket", tmp_path, Path("/dev/zero")):
            with pytest.raises(ArtifactError, match=r"is not a regular file|cannot read"):
                read_bytes(place)


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    regular = (tmp_path / "file").stat()
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(Path, "stat", lambda _, **__: regular)
    with pytest.raises(ArtifactError, match="is not a regular file"):
        read_bytes(tmp_path / "fifo")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    short = os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, 3, 0, 0, 0))
    monkeypatch.setattr("export.format.artifact.os.fstat", lambda _: short)
    with pytest.raises(ArtifactError, match="grew while it was read"):
        read_bytes(tmp_path / "file")
