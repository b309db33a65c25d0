"""Export a run to ONNX: ``python -m export.onnx RUN``.

Opset 18, symbolic batch, no AffineGrid, nothing but the standard domain: every node has a CUDA kernel in ONNX Runtime.
"""

from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.command import main
from export.errors import ArtifactError
from export.golden import Outputs
from export.graph import INPUT, ServedNetwork
from export.manifest import RuntimeName
from export.parity import Model

OPSET = 18


class OnnxRuntime:
    """Written by `torch.onnx`, run by ONNX Runtime."""

    name: RuntimeName = "onnx"
    title = "ONNX"
    opset: int | None = OPSET
    folder = "models"
    versions: Mapping[str, str] = MappingProxyType(
        {"onnx": onnx.__version__, "onnxscript": version("onnxscript"), "onnxruntime": onnxruntime.__version__}
    )

    def serialise(self, network: ServedNetwork, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """The content of ``model.onnx``."""
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
            raise ArtifactError("torch.onnx made no model of this network")
        model = program.model_proto
        strip_traces(model)
        content: bytes = model.SerializeToString()
        return content

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """Run ``content`` on the CPU."""
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def run(images: NDArray[np.uint8]) -> Outputs:
            return dict(zip(outputs, session.run(list(outputs), {INPUT: images}), strict=True))

        return run


def strip_traces(model: onnx.ModelProto) -> None:
    """Take the exporter's stack traces, with their paths of this machine, out of ``model``."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


if __name__ == "__main__":
    main(OnnxRuntime())
