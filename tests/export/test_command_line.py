"""``python -m export.onnx`` and ``python -m export.torchscript`` as their users run them."""

import subprocess
import sys
from pathlib import Path

import pytest

from export.artifact import read_artifact
from training.runs import Run


def export(runtime: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"export.{runtime}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_a_run_is_exported_and_the_second_time_refused(runtime: str, trained_run: Run, tmp_path: Path) -> None:
    options: list[str | Path] = [trained_run.folder, "--out", tmp_path, "--name", "mine", "--version", "3"]
    done = export(runtime, *options)
    assert done.returncode == 0, done.stderr
    assert "probabilities" in done.stdout
    assert read_artifact(tmp_path / "mine" / "3").manifest.runtime == runtime
    again = export(runtime, *options)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "--force" in again.stderr
    assert again.stderr.count("\n") == 1


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path: Path) -> None:
    done = export("onnx", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is this a run folder?" in done.stderr
    assert done.stderr.count("\n") == 1
