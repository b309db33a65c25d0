"""What the documentation shows is run as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.artifact import read_artifact
from tests.conftest import Service

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


OPEN_INFERENCE = re.findall(
    r"```(?:python|sh)\n(.*?)```\n\n```(?:json)?\n(.*?)```",
    (ROOT / "docs" / "open-inference.md").read_text(),
    re.DOTALL,
)


@pytest.mark.parametrize(("program", "shown"), OPEN_INFERENCE, ids=["tritonclient", "curl"])
def test_the_examples_of_the_open_inference_protocol_print_what_is_shown(
    server: Service, program: str, shown: str
) -> None:
    address = server.url.removeprefix("http://")
    assert "127.0.0.1:8000" in program
    here = program.replace("127.0.0.1:8000", address)
    command = [sys.executable, "-c", here] if "import" in program else ["bash", "-c", here]
    if command[0] == "bash" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert digits_rounded(done.stdout) == digits_rounded(shown)


def digits_rounded(text: str) -> str:
    """Numbers to four places and without blanks, since another processor rounds the last ones otherwise."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.4f}", "".join(text.split()))
