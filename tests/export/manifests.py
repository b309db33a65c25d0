"""A manifest of a made-up model, and the smallest file that passes for its model."""

from datetime import UTC, datetime

import onnx
from onnx import TensorProto, helper

from export.format.manifest import Accuracy, ImageInput, Manifest, Parity, Tolerance, Transform


def manifest() -> Manifest:
    """Of a model for pictures of 4x4 pixels."""
    return Manifest(
        created=datetime(2026, 1, 1, tzinfo=UTC),
        runtime="onnx",
        opset=18,
        precision="float32",
        classes=("cat", "dog"),
        input=ImageInput(name="image", height=4, width=4, channels=1, resize="bilinear", background=(0,)),
        outputs=("probabilities", "theta", "rectified"),
        probabilities="probabilities",
        transforms=(
            Transform(
                name="first",
                kind="affine",
                branch=1,
                step=1,
                reads="picture",
                theta="theta",
                parameters="theta",
                parameters_shape=(2, 3),
                rectified="rectified",
                height=4,
                width=4,
            ),
        ),
        recipe={"name": "made-up"},
        accuracy=Accuracy(dataset="none", pictures=1, accuracy=1.0),
        parity=Parity(probabilities=0, parameters=0, rectified=0, within_one_level=1),
        tolerance=Tolerance(probabilities=1e-3, parameters=1e-3, rectified=2),
        versions={},
        files={},
    )


def tiny_onnx() -> bytes:
    """A model that gives its input back."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 1])
    rectified = helper.make_tensor_value_info("rectified", TensorProto.UINT8, ["batch", 4, 4, 1])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["rectified"])], "tiny", [image], [rectified])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def without_graph() -> bytes:
    """Protobuf, but no model."""
    content: bytes = onnx.ModelProto(ir_version=10).SerializeToString()
    return content
