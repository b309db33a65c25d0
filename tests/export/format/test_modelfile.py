"""Model files are looked into without running anything; those that mean harm or are damaged are refused."""

import io
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from export.format.artifact import FileRecord, Outputs, RuntimeName, read_artifact, record, seal, write_artifact
from export.format.errors import ArtifactError
from export.format.golden import pack_golden
from export.format.modelfile import Inside, embed, look_inside
from tests.export.manifests import manifest, tiny_onnx, without_graph

IMAGES = np.zeros((2, 4, 4, 1), np.uint8)
ANSWERS: Outputs = {
    "probabilities": np.full((2, 2), 0.5, np.float32),
    "theta": np.zeros((2, 2, 3), np.float32),
    "rectified": IMAGES,
}
GOLDEN = pack_golden("image", IMAGES, ANSWERS)
INSIDE = Inside(b'{"made": "up"}', b"PK golden \x00\xff")


def external(place: str) -> onnx.TensorProto:
    """Weights that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return tensor


def model(*nodes: onnx.NodeProto, weights: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    """A model of ``nodes``."""
    side = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [side], weights or []))


def in_subgraph(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A model with ``tensor`` in both branches of a condition."""
    branch = helper.make_graph([], "branch", [], [], [tensor])
    return model(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


EXTERNAL = {
    "initialiser": model(weights=[external("weights.bin")]),
    "absolute path": model(weights=[external("/etc/passwd")]),
    "path that leads out": model(weights=[external("../../secret")]),
    "constant": model(helper.make_node("Constant", [], ["y"], value=external("weights.bin"))),
    "subgraph": in_subgraph(external("weights.bin")),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_onnx_that_refers_to_other_files_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="refers to other files"):
        look_inside("onnx", EXTERNAL[name].SerializeToString(), "model.onnx")


def test_onnx_runtime_alone_would_read_such_a_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    content = model(helper.make_node("Neg", ["w"], ["y"]), weights=[external("weights.bin")])
    content.opset_import[0].version, content.ir_version = 18, 10
    (tmp_path / "model.onnx").write_bytes(content.SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], [0, -1, -2, -3])


def test_what_is_embedded_in_onnx_is_found_by_us_and_by_onnx_itself() -> None:
    content = embed("onnx", tiny_onnx(), INSIDE)
    assert look_inside("onnx", content, "it") == INSIDE
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["stn_manifest"].encode() == INSIDE.manifest
    assert look_inside("onnx", tiny_onnx(), "it") == Inside(None, None)


def script() -> bytes:
    """The smallest TorchScript."""
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), content)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_is_embedded_in_torchscript_is_found_by_us_and_by_torch_itself() -> None:
    content = embed("torchscript", script(), INSIDE)
    assert look_inside("torchscript", content, "it") == INSIDE
    extra: dict[str, str | bytes] = {"manifest.json": ""}
    torch.jit.load(io.BytesIO(content), _extra_files=extra)  # type: ignore[no-untyped-call]
    assert extra["manifest.json"] == INSIDE.manifest


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "program"])
@pytest.mark.parametrize("saved_by", ["pickle", "torch"])
def test_a_renamed_pickle_is_refused_and_never_run(runtime: str, saved_by: str, tmp_path: Path) -> None:
    stolen = io.BytesIO()
    bomb = Bomb(tmp_path / "run")
    if saved_by == "pickle":
        pickle.dump(bomb, stolen)
    else:
        torch.save({"weights": bomb}, stolen)
    suffix = {"onnx": ".onnx", "torchscript": ".pt", "program": ".pt2"}[runtime]
    file = tmp_path / f"model{suffix}"
    file.write_bytes(stolen.getvalue())
    with pytest.raises(ArtifactError, match="damaged or not a model"):
        read_artifact(file)
    named = manifest().model_copy(update={"runtime": runtime})
    write_artifact(tmp_path / "pets" / "1", named.model_copy(update={"files": records(file)}), contents(file))
    with pytest.raises(ArtifactError, match="damaged or not a model"):
        read_artifact(tmp_path / "pets" / "1")
    assert not (tmp_path / "run").exists()


def contents(file: Path) -> dict[str, bytes]:
    """The files of an artifact around a model file that was never sealed."""
    return {file.name: file.read_bytes(), "golden.npz": GOLDEN}


def records(file: Path) -> dict[str, FileRecord]:
    """Their true checksums."""
    return {name: record(content) for name, content in contents(file).items()}


SEALED = seal(manifest(), tiny_onnx(), GOLDEN)[1]["model.onnx"]
PLACE = st.integers(0, 99)
DAMAGED = st.builds(lambda start, put, end: SEALED[:start] + put + SEALED[end:], PLACE, st.binary(max_size=9), PLACE)


@pytest.mark.parametrize("length", [0, 1, 10, len(SEALED) // 2, len(SEALED) - 1])
def test_a_truncated_model_file_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(SEALED[:length])
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        read_artifact(tmp_path / "model.onnx")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | DAMAGED)
def test_any_bytes_are_read_or_refused_but_nothing_else(content: bytes) -> None:
    for runtime in get_args(RuntimeName):
        with suppress(ArtifactError):
            look_inside(runtime, content, "it")


@pytest.mark.parametrize("content", [without_graph(), b"", b"\x08\x0a", b"not a model", b"\xff" * 40])
def test_what_is_no_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="damaged or not a model"):
        look_inside("onnx", content, "it")


def test_an_archive_that_unpacks_to_more_than_it_may_is_refused() -> None:
    content = io.BytesIO(script())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/manifest.json", bytes(300 * 2**20), compresslevel=1)
    with pytest.raises(ArtifactError, match="too large"):
        look_inside("torchscript", content.getvalue(), "it")
