"""``python -m export.onnx`` and its siblings as their users run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.format.artifact import read_artifact
from training.fitting.runs import Run

ROOT = Path(__file__).parents[2]
COMMANDS = ["onnx", "inspect", "check", "adopt", "compose", "push", "pull", "sign"]


def export(command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", f"export.{command}", *map(str, arguments)]
    return subprocess.run(full, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """What a command says that failed."""
    assert done.returncode == code, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "program"])
def test_a_run_is_exported_and_the_second_time_refused(runtime: str, trained_run: Run, tmp_path: Path) -> None:
    options: list[str | Path] = [trained_run.folder, "--out", tmp_path, "--name", "mine", "--version", "3"]
    done = export(runtime, *options)
    assert done.returncode == 0, done.stderr
    for word in (
        "golden.npz",
        "probabilities",
        "accuracy",
        "rectified",
        "opset 18" if runtime == "onnx" else "float32",
    ):
        assert word in done.stdout
    assert read_artifact(tmp_path / "mine" / "3").manifest.runtime == runtime
    if runtime == "onnx":
        assert "--force" in one_line(export(runtime, *options))


def test_json_is_the_manifest_and_nothing_else_and_the_price_goes_to_stderr(
    trained_run: Run, data_root: Path, tmp_path: Path
) -> None:
    done = export(
        "onnx", trained_run.folder, "--out", tmp_path, "--precision", "fp16", "--data-root", data_root, "--json",
        "--max-drop", "1", "--layout", "triton",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    name = trained_run.info().recipe.name
    assert Path(printed["folder"]) == tmp_path / name / "1"
    assert printed["manifest"] == json.loads(read_artifact(tmp_path / name / "1").manifest.model_dump_json())
    assert printed["manifest"]["precision"] == "float16"
    assert "a corner moves by" in done.stderr
    assert (tmp_path / name / "config.pbtxt").is_file()


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path: Path) -> None:
    assert "is this a run folder?" in one_line(export("onnx", tmp_path))


def test_a_place_that_cannot_be_written_is_one_clear_line(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "nothing was changed" in one_line(export("torchscript", trained_run.folder, "--out", tmp_path / "file"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str) -> None:
    done = export(command, "--help")
    assert done.returncode == 0
    assert f"python -m export.{command} " in done.stdout.partition("Examples:")[2]
    assert "Exit codes: 0" in done.stdout


def test_a_wrong_option_is_exit_code_2() -> None:
    assert export("inspect", "--no-such-option").returncode == 2


@pytest.mark.parametrize("place", ["models/digits/2", "models/digits/2/model.onnx", "models/digits/3"])
def test_inspect_explains_a_folder_or_the_model_file_alone(place: str) -> None:
    done = export("inspect", place)
    assert done.returncode == 0, done.stderr
    for words in ("(N, 42, 42, 1)", "(N, 2, 3)", "theta maps output to input", "of 10,000 pictures", "golden pictures"):
        assert words in " ".join(done.stdout.split())
    printed = json.loads(export("inspect", place, "--json").stdout)
    assert printed == json.loads(read_artifact(ROOT / place).manifest.model_dump_json())


def test_inspect_of_what_is_no_artifact_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    assert "damaged or not a model" in one_line(export("inspect", tmp_path / "model.onnx"))


def test_inspect_starts_without_torch() -> None:
    code = "import sys, export.inspect; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_characters_gets_escapes(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "export.inspect", "models/digits/2"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)
