"""``python -m export.onnx`` and its siblings as their users run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.format.artifact import read_artifact
from tests.export.commands import ROOT, Done, Export, one_line
from training.fitting.runs import Run

COMMANDS = ["onnx", "inspect", "check", "adopt", "compose", "push", "pull", "sign"]


def test_a_run_is_exported_and_the_second_time_refused(trained_run: Run, tmp_path: Path) -> None:
    options = [str(trained_run.folder), "--out", str(tmp_path), "--name", "mine", "--version", "3"]
    command = [sys.executable, "-m", "export.onnx", *options]
    done, again = (
        subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT) for _ in range(2)
    )
    assert done.returncode == 0, done.stderr
    for word in ("golden.npz", "probabilities", "accuracy", "rectified", "opset 18"):
        assert word in done.stdout
    assert read_artifact(tmp_path / "mine" / "3").manifest.runtime == "onnx"
    assert "--force" in one_line(Done(again.returncode, again.stdout, again.stderr))


def test_a_run_that_was_given_a_name_is_exported_under_it(trained_run: Run, export: Export, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    told = json.loads(trained_run.info_file.read_text()) | {"model": "mine"}
    (tmp_path / "run" / trained_run.info_file.name).write_text(json.dumps(told))
    (tmp_path / "mine" / "1").mkdir(parents=True)
    assert "mine" in one_line(export("onnx", tmp_path / "run", "--out", tmp_path, "--version", "1"))


@pytest.mark.parametrize("runtime", ["torchscript", "program"])
def test_each_runtime_has_a_command(runtime: str, trained_run: Run, export: Export, tmp_path: Path) -> None:
    done = export(runtime, trained_run.folder, "--out", tmp_path, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout
    assert read_artifact(tmp_path / "mine" / "1").manifest.runtime == runtime


def test_json_is_the_manifest_and_nothing_else_and_the_price_goes_to_stderr(
    trained_run: Run, data_root: Path, export: Export, tmp_path: Path
) -> None:
    done = export(
        "onnx", trained_run.folder, "--out", tmp_path, "--precision", "fp16", "--data-root", data_root, "--json",
        "--max-drop", "1", "--layout", "triton",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    model = tmp_path / trained_run.info().recipe.name
    assert Path(printed["folder"]) == model / "1"
    manifest = read_artifact(model / "1").manifest
    assert printed["manifest"] == json.loads(manifest.model_dump_json())
    assert manifest.precision == "float16"
    assert "a corner moves by" in done.stderr
    assert {file.name for file in model.iterdir()} == {"config.pbtxt", "labels.txt", "1"}
    assert (model / "labels.txt").read_text().splitlines() == list(manifest.classes)
    assert (model / "1" / "model.onnx").is_file(), "as Triton and the service expect it"


def test_a_folder_that_is_no_run_is_one_clear_line(export: Export, tmp_path: Path) -> None:
    assert "is this a run folder?" in one_line(export("onnx", tmp_path))


def test_a_place_that_cannot_be_written_is_one_clear_line(trained_run: Run, export: Export, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "nothing was changed" in one_line(export("torchscript", trained_run.folder, "--out", tmp_path / "file"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str, export: Export) -> None:
    done = export(command, "--help")
    assert done.returncode == 0
    assert f"python -m export.{command} " in done.stdout.partition("Examples:")[2]
    assert "Exit codes: 0" in done.stdout


def test_a_wrong_option_is_exit_code_2(export: Export) -> None:
    assert export("inspect", "--no-such-option").returncode == 2


@pytest.mark.parametrize("place", ["models/digits/2", "models/digits/2/model.onnx", "models/digits/3"])
def test_inspect_explains_a_folder_or_the_model_file_alone(place: str, export: Export) -> None:
    done = export("inspect", place)
    assert done.returncode == 0, done.stderr
    for words in ("(N, 42, 42, 1)", "(N, 2, 3)", "theta maps output to input", "of 10,000 pictures", "golden pictures"):
        assert words in " ".join(done.stdout.split())
    printed = json.loads(export("inspect", place, "--json").stdout)
    assert printed == json.loads(read_artifact(ROOT / place).manifest.model_dump_json())


def test_inspect_of_what_is_no_artifact_is_one_clear_line(export: Export, tmp_path: Path) -> None:
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
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)
