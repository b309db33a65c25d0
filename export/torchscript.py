"""Export a run to TorchScript, which libtorch runs: ``python -m export.torchscript RUN``."""

import io
import warnings
import zipfile
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


class TorchScriptRuntime:
    """TorchScript, traced and frozen by `torch.jit`, which PyTorch has deprecated."""

    name: RuntimeName = "torchscript"
    title = "TorchScript"
    opset: int | None = None
    folder = "models"
    versions: Mapping[str, str] = MappingProxyType({"torch": torch.__version__})

    def serialise(self, network: nn.Module, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """Return the content of ``model.pt``."""
        content = io.BytesIO()
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.filterwarnings("ignore", message=".*torch.jit")
            script = torch.jit.trace(network, example)  # type: ignore[no-untyped-call]
            torch.jit.save(torch.jit.freeze(script), content)
        return strip_traces(content)

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """Load ``content`` to run on the CPU."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit")
            script = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]

        def run(images: NDArray[np.uint8]) -> Outputs:
            with torch.inference_mode():
                answers = script(torch.from_numpy(images))
            return {name: answer.numpy() for name, answer in zip(outputs, answers, strict=True)}

        return run


def strip_traces(archive: io.BytesIO) -> bytes:
    """Remove torch's source positions from ``archive``, because they contain paths of this machine."""
    stripped = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(stripped, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry.filename, old.read(entry))
    return stripped.getvalue()


if __name__ == "__main__":
    main(TorchScriptRuntime())
