"""Shared by the tests of all runtimes."""

import pytest

from export.exporter import Runtime
from export.onnx import OnnxRuntime
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime


@pytest.fixture(scope="module", params=[OnnxRuntime, TorchScriptRuntime, ProgramRuntime])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime in turn."""
    made: Runtime = request.param()
    return made
