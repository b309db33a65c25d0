"""A straightener in front of another classifier answers as the two do apart, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax
from torch.nn import functional

from export.adopt.network import Normalisation
from export.compose.composition import Request, compose
from export.compose.sampling import Resampling, View
from export.exporter import Destination
from export.format.artifact import read_artifact
from export.format.errors import ArtifactError
from export.graph import transforms
from export.onnx import OnnxRuntime
from tests.export.adopt.adopting import write_classes
from tests.networks import CANVAS, RECTIFIED, build, randomised, small

DIGITS = Path(__file__).parents[3] / "models" / "digits" / "2"
SHAPE: list[str | int] = ["batch", 1, 20, 24]


def classifier(
    file: Path,
    shape: list[str | int] = SHAPE,
    *,
    classes: int = 10,
    version: int = 17,
    kind: int = TensorProto.FLOAT,
    flat: list[int] | None = None,
    softmaxed: bool = False,
) -> Path:
    """The file of a linear classifier, whose scores also depend on where channels, rows and columns are."""
    count = int(np.prod([side for side in shape[1:] if isinstance(side, int)]))
    weights = np.random.default_rng(0).normal(size=(count, classes)).astype(np.float32) / count**0.5
    nodes = [
        helper.make_node("Reshape", ["pixels", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["raw" if softmaxed else "scores"]),
    ]
    if softmaxed:
        nodes.append(helper.make_node("Softmax", ["raw"], ["scores"], axis=1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("scores", kind, [shape[0], classes])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(flat or [-1, count], np.int64), "flat"),
        ],
    )
    opsets = [helper.make_opsetid("", version)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    return file


def wanted(folder: Path, **changes: object) -> Request:
    """The request to compose digits/2 with a classifier of 20x24 pixels in ``folder``."""
    usual = Request(
        straightener=DIGITS,
        other=folder / "other.onnx",
        size=(20, 24),
        normalisation=Normalisation((0.2,), (0.5,)),
        classes=write_classes(folder, 10),
    )
    return usual._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "version", "softmaxed"),
    [(SHAPE, 13, False), (["n", 20, 24, 1], 20, True), ([1, 1, 20, 24], 17, False), (["n", 3, 20, 24], 17, False)],
    ids=["older", "channels last, softmax, newer", "one at a time", "colour"],
)
def test_a_composed_model_answers_as_the_two_apart(
    shape: list[str | int], version: int, softmaxed: bool, tmp_path: Path
) -> None:
    file = classifier(tmp_path / "other.onnx", shape, version=version, softmaxed=softmaxed)
    channels = 3 if 3 in shape else 1
    numbers = Normalisation((0.2,) * channels, (0.5,) * channels)
    artifact = compose(wanted(tmp_path, normalisation=numbers, input="pixels"), Destination(tmp_path, "both"))
    assert read_artifact(artifact.folder).manifest == artifact.manifest
    assert artifact.manifest.classes[3] == "class 3"
    images, _ = artifact.golden()
    found = OnnxRuntime().load(artifact.model, artifact.manifest.outputs)(images)

    straightener = read_artifact(DIGITS)
    theta = OnnxRuntime().load(straightener.model, straightener.manifest.outputs)(images)["theta"]
    np.testing.assert_array_equal(found["theta"], theta)
    grid = functional.affine_grid(torch.from_numpy(theta), [len(images), 1, 40, 48], align_corners=False)
    canvas = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    view = functional.avg_pool2d(functional.grid_sample(canvas, grid, align_corners=False), 2)  # 42 to 20 pixels
    np.testing.assert_allclose(found["rectified"][..., 0], (view[:, 0] * 255).round(), atol=1)
    pixels = ((view.expand(-1, channels, -1, -1) - 0.2) / 0.5).numpy()
    given = pixels.transpose(0, 2, 3, 1) if shape[-1] == 1 else pixels
    session = onnxruntime.InferenceSession(file.read_bytes())
    scores = np.concatenate([session.run(None, {"pixels": np.ascontiguousarray(one[None])})[0] for one in given])
    np.testing.assert_allclose(found["probabilities"], scores if softmaxed else softmax(scores, axis=1), atol=1e-5)


def weights_apart(folder: Path) -> None:
    model = onnx.load(classifier(folder / "whole.onnx"))
    onnx.save(model, folder / "other.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")


def test_weights_beside_the_model_are_taken_into_it(tmp_path: Path) -> None:
    weights_apart(tmp_path)
    assert (tmp_path / "weights.bin").is_file()
    artifact = compose(wanted(tmp_path), Destination(tmp_path / "models", "both"))
    assert b"weights.bin" not in artifact.model


def lost_weights(folder: Path) -> None:
    weights_apart(folder)
    (folder / "weights.bin").unlink()


def made(**changes: object) -> Callable[[Path], object]:
    return lambda folder: classifier(folder / "other.onnx", **changes)  # type: ignore[arg-type]


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: None, "cannot read .*other.onnx"),
    "no ONNX": (lambda folder: (folder / "other.onnx").write_text("hello"), "damaged or not an ONNX model"),
    "no weights": (lost_weights, "weights.bin"),
    "another size": (made(shape=["n", 1, 32, 32]), "nx1x32x32|is .*1x32x32.*--size 20x24"),
    "four channels": (made(shape=["n", 4, 20, 24]), "1 or 3 channels"),
    "a vector": (made(shape=["n", 480]), "2 axes"),
    "several at a time": (made(shape=[8, 1, 20, 24]), "takes 8 pictures at a time"),
    "a fixed batch": (made(shape=[1, 1, 20, 24], flat=[1, 480]), "one picture at a time; export it again"),
    "fewer classes": (made(classes=9), "9 classes, and --classes names 10"),
    "float64": (made(kind=TensorProto.DOUBLE), "DOUBLE; only classifiers of float32"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    write, message = OTHERS[name]
    write(tmp_path)
    with pytest.raises(ArtifactError, match=message) as refused:
        compose(wanted(tmp_path), Destination(tmp_path / "models", "both"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "models").exists()


def test_names_and_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    classifier(tmp_path / "other.onnx")
    cases: list[tuple[dict[str, object], str]] = [
        ({"input": "image"}, "has pixels, and no 'image'; name one with --input"),
        ({"output": "y"}, "has scores, and no 'y'; name one with --output"),
        ({"normalisation": Normalisation((0.5,) * 3, (0.5,) * 3)}, "3 numbers for 1 channels"),
        ({"straightener": tmp_path}, "manifest"),
        ({"classes": tmp_path / "none.txt"}, "cannot read"),
    ]
    for changes, message in cases:
        with pytest.raises(ArtifactError, match=message):
            compose(wanted(tmp_path, **changes), Destination(tmp_path / "models", "both"))


@pytest.mark.parametrize("kind", ["affine", "projective", "tps"])
def test_the_whole_map_is_sampled_as_the_network_samples_it(kind: str) -> None:
    network = randomised(build(small(transformer=kind)))
    (transform,) = transforms(network.recipe)
    images = np.random.default_rng(0).integers(0, 256, (3, *CANVAS, 1), dtype=np.uint8)
    with torch.no_grad():
        warp = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).warps[0]
        view = View(RECTIFIED, 1, False, Normalisation((0.0,), (1.0,)), "zeros")
        resampling = Resampling(transform, RECTIFIED, view)
        seen, levels = resampling(torch.from_numpy(images), warp.parameters)
    torch.testing.assert_close(seen, warp.rectified, atol=1e-5, rtol=0)
    expected: NDArray[np.float32] = (warp.rectified * 255).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(levels, expected, atol=1)
