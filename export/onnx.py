"""Export a run to ONNX: ``python -m export.onnx RUN``.

The model has opset 18, a symbolic batch size and only operators of the standard domain, without AffineGrid. ONNX
Runtime has a CUDA kernel for each of them.
"""

from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from export.command import main
from export.format.errors import ArtifactError
from export.format.golden import Outputs
from export.format.manifest import RuntimeName
from export.graph import INPUT
from export.parity import Model

OPSET = 18


class OnnxRuntime:
    """ONNX, written by `torch.onnx` and run by ONNX Runtime."""

    name: RuntimeName = "onnx"
    title = "ONNX"
    opset: int | None = OPSET
    folder = "models"
    versions: Mapping[str, str] = MappingProxyType(
        {"onnx": onnx.__version__, "onnxscript": version("onnxscript"), "onnxruntime": onnxruntime.__version__}
    )

    def serialise(self, network: nn.Module, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """Return the content of ``model.onnx``."""
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise ArtifactError("torch.onnx cannot export this network")
        model = program.model_proto
        pool_globally(model.graph)
        strip_traces(model)
        content: bytes = model.SerializeToString()
        return content

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """Load ``content`` to run on the CPU."""
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def run(images: NDArray[np.uint8]) -> Outputs:
            return dict(zip(outputs, session.run(list(outputs), {INPUT: images}), strict=True))

        return run


def pool_globally(graph: onnx.GraphProto) -> None:
    """Turn means over height and width into GlobalAveragePool, which ONNX Runtime computes faster."""
    axes = {each.name: each for each in graph.initializer}
    for node in graph.node:
        keeps = any(each.name == "keepdims" and each.i for each in node.attribute)
        if node.op_type != "ReduceMean" or not keeps or node.input[1] not in axes:
            continue
        if sorted(axis % 4 for axis in numpy_helper.to_array(axes[node.input[1]]).tolist()) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]
    used = {name for node in graph.node for name in node.input}
    for name in axes.keys() - used:
        graph.initializer.remove(axes[name])


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces from ``model``, because they contain paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


if __name__ == "__main__":
    main(OnnxRuntime())
