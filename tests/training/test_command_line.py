"""``python -m training`` as its users run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main, parse_changes
from training.catalogue import RECIPES
from training.errors import RecipeError
from training.runs import Run


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--set", "validation_size=160", "--set", "classifier_width=4", "--epochs", "1", "--seed", "3"]
    command = [sys.executable, "-m", "training", "run", "mnist-rts", *options]
    places = ["--data-root", str(data_root), "--out", str(folder)]
    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    return folder


def test_run_trains_evaluates_and_draws(finished: Path) -> None:
    made = {str(file.relative_to(finished)) for file in finished.rglob("*") if "tensorboard" not in str(file)}
    assert made == {
        "run.json",
        "metrics.csv",
        "evaluation.json",
        "answers.npz",
        "validation.npz",
        "samples.npz",
        "snapshots.npz",
        "report.md",
        "checkpoints",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures",
        "pictures/rectified.png",
        "pictures/curves.png",
        "pictures/confusion.png",
        "pictures/confused.png",
        "pictures/theta.png",
        "pictures/epochs.gif",
        "pictures/moving.gif",
    }


def test_run_records_the_changes_and_the_seed(finished: Path) -> None:
    info = Run(finished).info()
    assert (info.recipe.epochs, info.recipe.classifier_width, info.seed) == (1, 4, 3)


def test_resuming_a_finished_run_changes_nothing_but_the_reports(finished: Path, data_root: Path) -> None:
    metrics, evaluation = (finished / "metrics.csv").read_text(), (finished / "evaluation.json").read_text()
    assert main(["run", "--resume", str(finished), "--data-root", str(data_root)]) == 0
    assert (finished / "metrics.csv").read_text() == metrics
    assert (finished / "evaluation.json").read_text() == evaluation


def test_evaluate_measures_again(finished: Path, data_root: Path) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    (finished / "evaluation.json").unlink()
    assert main(["evaluate", str(finished), "--data-root", str(data_root)]) == 0
    assert json.loads((finished / "evaluation.json").read_text()) == before


def test_report_draws_again(finished: Path, data_root: Path) -> None:
    (finished / "report.md").unlink()
    (finished / "pictures" / "moving.gif").unlink()
    assert main(["report", str(finished), "--data-root", str(data_root)]) == 0
    assert (finished / "report.md").is_file()
    assert (finished / "pictures" / "moving.gif").is_file()


def test_recipes_lists_each_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist"], "there are: my-images"),
        (["run"], "name a recipe"),
        (["run", "mnist-rts", "--set", "epochs"], "KEY=VALUE"),
        (["run", "mnist-rts", "--set", "epoch=3"], "no field epoch"),
        (["run", "mnist-rts", "--epochs", "0"], "epochs"),
        (["run", "--resume", "nowhere"], "is this a run folder"),
        (["run", "--resume", "nowhere", "--seed", "1"], "leave out"),
        (["evaluate", "nowhere"], "is this a run folder"),
        (["report", "nowhere"], "is this a run folder"),
        (["study", "mnist"], "there are: distorted-mnist"),
        (["study", "distorted-mnist", "--only", "mnist-x"], "has no recipe mnist-x"),
        (["study", "distorted-mnist", "--out", "mine"], "choose another --out"),
        (["study", "distorted-mnist", "--out", f"{__file__}/distorted-mnist"], "Not a directory; choose another --out"),
        (["report", "nowhere/distorted-mnist"], "is this a run folder?"),
    ],
)
def test_a_mistake_is_answered_with_one_line_and_its_cure(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said


def test_changes_are_json_or_text() -> None:
    assert parse_changes(["epochs=3", "canvas=[28, 30]", "transformer=affine", "learning_rate=1e-3"]) == {
        "epochs": 3,
        "canvas": [28, 30],
        "transformer": "affine",
        "learning_rate": 1e-3,
    }
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_changes(["epochs"])
