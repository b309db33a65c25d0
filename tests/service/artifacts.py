"""Variants of the bundled artifact, some of which no service should take."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.format.artifact import GOLDEN, MANIFEST, Artifact, Manifest, Outputs, pack_golden, seal, write_artifact
from tests.service.pictures import ARTIFACT

MODEL = ARTIFACT.manifest.model_file


def write(folder: Path, manifest: Manifest = ARTIFACT.manifest, base: Artifact = ARTIFACT, **files: bytes) -> Path:
    """The bundled artifact, or ``base``, in ``folder``, with another manifest, other ``model`` or ``golden``."""
    contents = {name: (base.folder / name).read_bytes() for name in manifest.files}
    contents |= {{"model": MODEL, "golden": GOLDEN}[name]: content for name, content in files.items()}
    write_artifact(folder, *seal(manifest, contents[MODEL], contents[GOLDEN]))
    return folder


def write_labelled(folder: Path, prefix: str, **stated: object) -> Path:
    """The bundled model with ``prefix`` before the names of its classes, to know it by, and ``stated`` otherwise."""
    classes = tuple(prefix + label for label in ARTIFACT.manifest.classes)
    return write(folder, ARTIFACT.manifest.model_copy(update={"classes": classes} | stated))


def write_twin(folder: Path, **place: int) -> Path:
    """The bundled model with a second transformer at ``place``, whose numbers are the negative of the first one's."""
    manifest = ARTIFACT.manifest
    first = manifest.transforms[0]
    names = {kind: getattr(first, kind) for kind in ("theta", "parameters", "rectified")}
    second = first.model_copy(
        update={"name": "second"} | place | {kind: f"second_{name}" for kind, name in names.items()}
    )
    model = onnx.load_model_from_string((ARTIFACT.folder / MODEL).read_bytes())
    images, golden = ARTIFACT.golden()
    for output in [output for output in model.graph.output if output.name in names.values()]:
        number = output.name != first.rectified
        copy = model.graph.output.add()
        copy.CopyFrom(output)
        copy.name = f"second_{output.name}"
        model.graph.node.append(onnx.helper.make_node("Neg" if number else "Identity", [output.name], [copy.name]))
        golden[copy.name] = -golden[output.name] if number else golden[output.name]
    twin = manifest.model_copy(update={"transforms": (first, second), "outputs": tuple(golden)})
    files = {"model": model.SerializeToString(), "golden": pack_golden(manifest.input.name, images, golden)}
    return write(folder, twin, **files)


def write_endless(folder: Path) -> Path:
    """The bundled model behind a loop that never ends, so that loading it does not end either."""
    model = onnx.load_model_from_string((ARTIFACT.folder / MODEL).read_bytes())
    name, make = ARTIFACT.manifest.input.name, onnx.helper
    for node in model.graph.node:
        node.input[:] = ["delayed" if given == name else given for given in node.input]
    number = make.make_tensor_value_info("number", onnx.TensorProto.INT64, [])
    going, goes_on = (make.make_tensor_value_info(text, onnx.TensorProto.BOOL, []) for text in ("going", "goes_on"))
    before, after = (make.make_tensor_value_info(text, onnx.TensorProto.UINT8, None) for text in ("before", "after"))
    steps = [make.make_node("Identity", [old], [new]) for old, new in (("going", "goes_on"), ("before", "after"))]
    body = make.make_graph(steps, "step", [number, going, before], [goes_on, after])
    model.graph.node.insert(0, make.make_node("Loop", ["", "", name], ["delayed"], body=body))
    return write(folder, model=model.SerializeToString())


def write_moody(folder: Path, *, hangs: bool) -> Path:
    """The bundled model, which hangs or fails if the first pixel of a picture is 128 or more."""
    model = onnx.load_model_from_string((ARTIFACT.folder / MODEL).read_bytes())
    name, make, graph = ARTIFACT.manifest.input.name, onnx.helper, model.graph
    for node in graph.node:
        node.input[:] = ["calm" if given == name else given for given in node.input]
    numbers = {"zeros": [0, 0, 0], "ones": [1, 1, 1], "axes": [1, 2, 3], "bad": 128, "nothing": [0]}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.array(value), key) for key, value in numbers.items())
    nodes = [
        make.make_node("Slice", [name, "zeros", "ones", "axes"], ["pixel"]),
        make.make_node("Cast", ["pixel"], ["level"], to=onnx.TensorProto.INT64),
        make.make_node("ReduceMax", ["level"], ["most"], keepdims=0),
        make.make_node("GreaterOrEqual", ["most", "bad"], ["is_bad"]),
    ]
    if hangs:
        number = make.make_tensor_value_info("number", onnx.TensorProto.INT64, [])
        going, goes_on = (make.make_tensor_value_info(text, onnx.TensorProto.BOOL, []) for text in ("going", "goes_on"))
        before, after = (
            make.make_tensor_value_info(text, onnx.TensorProto.UINT8, None) for text in ("before", "after")
        )
        steps = [make.make_node("Identity", [old], [new]) for old, new in (("going", "goes_on"), ("before", "after"))]
        body = make.make_graph(steps, "step", [number, going, before], [goes_on, after])
        nodes.append(make.make_node("Loop", ["", "is_bad", name], ["calm"], body=body))
    else:
        nodes += [
            make.make_node("Cast", ["is_bad"], ["outside"], to=onnx.TensorProto.INT64),
            make.make_node("Gather", ["nothing", "outside"], ["found"]),
            make.make_node("Cast", ["found"], ["added"], to=onnx.TensorProto.UINT8),
            make.make_node("Add", [name, "added"], ["calm"]),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return write(folder, model=model.SerializeToString())


def golden(change: Callable[[Outputs], Outputs]) -> bytes:
    """Golden answers that were tampered with."""
    images, outputs = ARTIFACT.golden()
    return pack_golden(ARTIFACT.manifest.input.name, images, change(outputs))


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Other values in ``manifest.json``; None deletes."""
    content = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def shifted(name: str, by: float) -> Callable[[Outputs], Outputs]:
    """Adds ``by`` to one of the golden outputs."""

    def change(outputs: Outputs) -> Outputs:
        return outputs | {name: (outputs[name].astype(np.float64) + by).clip(0).astype(outputs[name].dtype)}

    return change
