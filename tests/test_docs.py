"""What the documentation shows is run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from export.artifact import read_artifact

ROOT = Path(__file__).parents[1]
PROGRAM = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "artifacts.md").read_text(), re.DOTALL)[0]
FOREIGN = "\nprint(sorted({'torch', 'onnx', 'export', 'service', 'training', 'PIL', 'pydantic'} & set(sys.modules)))"


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_twenty_lines_run_a_lone_model_file_with_onnx_runtime_and_numpy_alone(version: str, tmp_path: Path) -> None:
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 20
    artifact = read_artifact(ROOT / "models" / "digits" / version)
    (tmp_path / "model.onnx").write_bytes(artifact.model)
    command = [sys.executable, "-c", PROGRAM + FOREIGN, "model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    *answers, gap, foreign = done.stdout.splitlines()
    _, golden = artifact.golden()
    best = golden[artifact.manifest.probabilities].argmax(axis=1)
    assert [line.split()[0] for line in answers] == [artifact.manifest.classes[index] for index in best]
    assert re.fullmatch(r"differs .* by (0\.0e\+00|1\.0e\+00|\d\.\de-\d\d) at most", gap)
    assert foreign == "[]"
