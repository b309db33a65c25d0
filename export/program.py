"""Export a run to a torch.export program, ``model.pt2``: ``python -m export.program RUN``.

It runs in PyTorch without this project (``torch.export.load("model.pt2").module()``), and is the input of AOTInductor,
ExecuTorch and other compilers. The service does not load it.
"""

import io
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.command import main
from export.format.golden import Outputs
from export.format.manifest import RuntimeName
from export.parity import Model


class ProgramRuntime:
    """Programs written and run by `torch.export`."""

    name: RuntimeName = "program"
    title = "a torch.export program"
    opset: int | None = None
    folder = "programs"
    versions: Mapping[str, str] = MappingProxyType({"torch": torch.__version__})

    def serialise(self, network: nn.Module, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """Return the content of ``model.pt2``."""
        content = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            for node in program.graph.nodes:  # stack traces contain paths of this machine
                node.meta.pop("stack_trace", None)
            torch.export.save(program, content)
        return content.getvalue()

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """Load ``content`` to run on the CPU."""
        program = torch.export.load(io.BytesIO(content)).module()

        def run(images: NDArray[np.uint8]) -> Outputs:
            with torch.inference_mode():
                answers = program(torch.from_numpy(images))
            return {name: answer.numpy() for name, answer in zip(outputs, answers, strict=True)}

        return run


if __name__ == "__main__":
    main(ProgramRuntime())
