"""Shared by the tests of all runtimes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from export.exporter import Destination, Runtime, export_run
from export.onnx import OnnxRuntime
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from tests.export.commands import export
from training.fitting.runs import Run

__all__ = ["export"]  # a fixture


@pytest.fixture(scope="module", params=[OnnxRuntime, TorchScriptRuntime, ProgramRuntime])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime in turn."""
    made: Runtime = request.param()
    return made


@pytest.fixture(scope="session")
def exports(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Runtime], Path]:
    """The folder of the small run's artifact for a runtime, made once; no test may change it."""
    models = tmp_path_factory.mktemp("exports")

    def folder(runtime: Runtime) -> Path:
        made = models / runtime.name / "digits" / "1"
        if not made.exists():
            export_run(trained_run, runtime, Destination(models / runtime.name, "digits"))
        return made

    return folder


@pytest.fixture(scope="module")
def exported(exports: Callable[[Runtime], Path], runtime: Runtime) -> Path:
    """The folder of the small run's artifact for each runtime."""
    return exports(runtime)


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """A copy of the folder of models with this artifact."""
    shutil.copytree(exported.parent, tmp_path / "models" / "digits")
    return tmp_path / "models"
