"""What the documentation shows is run as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from export.artifact import read_artifact
from tests.conftest import Service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", README, re.DOTALL)
"""Programs in the README, and what they print where it is shown."""
PROGRAM = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "use" / "artifacts.md").read_text(), re.DOTALL)[0]
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
    (ROOT / "docs" / "use" / "open-inference.md").read_text(),
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


def at(folder: Path, program: Sequence[str]) -> str:
    """What ``program`` prints in a folder with the pictures that the examples name."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, cwd=folder, env=environment, check=True
    ).stdout


def test_the_answer_in_the_readme_is_what_the_service_answers(server: Service) -> None:
    (query, text), *_ = re.findall(r"curl -F image=@\S+ '\S*\?(.*?)'\n\n```json\n(.*?)```", README, re.DOTALL)
    shown = json.loads(text)
    with (ROOT / "docs/pictures/digit.png").open("rb") as picture:
        answer = server.client.post(f"/predict?{query}", files={"image": picture}).json()
    assert answer.keys() == shown.keys()
    for found, expected in zip(answer["predictions"], shown["predictions"], strict=True):
        assert found == expected | {"probability": pytest.approx(expected["probability"], rel=1e-3)}
    for key in ("theta", "corners"):
        assert np.array(answer[key]) == pytest.approx(np.array(shown[key]), abs=1e-3)
    assert answer["rectified"]["data"].startswith(shown["rectified"]["data"].removesuffix("…"))
    assert {**answer["rectified"], "data": ""} == {**shown["rectified"], "data": ""}


@pytest.mark.parametrize("program", [program for program, _ in EXAMPLES], ids=range(len(EXAMPLES)))
def test_the_programs_in_the_readme_run_and_print_what_it_says(program: str, server: Service, tmp_path: Path) -> None:
    shown = dict(EXAMPLES)[program]
    assert "http://127.0.0.1:8000" in program
    printed = at(tmp_path, ["-c", program.replace("http://127.0.0.1:8000", server.url)])
    assert printed
    assert not shown or printed == shown


def test_the_readme_has_programs_for_both_clients() -> None:
    programs = [program for program, _ in EXAMPLES]
    assert [name in programs[0] for name in ("Client(", "AsyncClient(")] == [True, False]
    assert "AsyncClient(" in programs[1]


def test_the_command_line_in_the_readme_says_what_it_shows(server: Service, tmp_path: Path) -> None:
    arguments = re.findall(r"    python (-m service client .*)", README)[0].split()
    (shown,) = re.findall(r"```\n(docs/pictures/digit.png: .*?)```", README, re.DOTALL)
    picture = tmp_path / "digit.png"
    picture.write_bytes((ROOT / "docs" / "pictures" / "digit.png").read_bytes())
    words = [str(picture) if word.endswith(".png") else word for word in arguments]
    printed = at(tmp_path, [*words, "--url", server.url]).replace(f"{tmp_path}", "docs/pictures")
    time = re.compile(r"[\d.]+ ms")
    assert time.sub("ms", printed) == time.sub("ms", shown)
