"""``python -m training`` as its users run it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.format.artifact import NAME
from training.__main__ import main
from training.errors import RecipeError, RunError
from training.fitting.runs import MODEL_NAME, Run
from training.recipes.catalogue import RECIPES
from training.recipes.recipe import parse_changes


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
    assert not [said for said in ("TPU available", "Tip:", "Loading") if said in done.stderr], "Lightning is quiet"
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
        "pictures/reliability.png",
        "pictures/means.png",
        "pictures/epochs.gif",
        "pictures/moving.gif",
    }


def test_run_records_the_changes_and_the_seed(finished: Path) -> None:
    info = Run(finished).info()
    assert (info.recipe.epochs, info.recipe.classifier_width, info.seed) == (1, 4, 3)


def test_resuming_a_finished_run_changes_nothing_but_the_reports(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, evaluation = (finished / "metrics.csv").read_text(), (finished / "evaluation.json").read_text()
    assert main(["run", "--resume", str(finished)]) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert (finished / "metrics.csv").read_text() == metrics
    assert (finished / "evaluation.json").read_text() == evaluation


def test_evaluate_measures_again_with_the_data_that_the_run_was_begun_with(finished: Path) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    (finished / "evaluation.json").unlink()
    assert main(["evaluate", str(finished)]) == 0
    assert json.loads((finished / "evaluation.json").read_text()) == before


def test_report_draws_again(finished: Path) -> None:
    (finished / "report.md").unlink()
    (finished / "pictures" / "moving.gif").unlink()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.md").is_file()
    assert (finished / "pictures" / "moving.gif").is_file()


def test_a_resumed_run_is_exported_under_the_name_that_it_was_begun_with(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr("training.__main__.export", lambda run, name: names.append(name))
    resume = ["run", "--resume", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr("training.fitting.trainer.fit", interrupted)
        assert main([*small(data_root, tmp_path / "run"), "--model", "mine"]) == 1
    assert main(resume) == 0
    assert names == ["mine"]
    assert main(resume) == 0
    assert names == ["mine"], "what is finished is not exported again"
    assert main([*resume, "--model", "other"]) == 0
    assert names == ["mine", "other"]


def interrupted(*_: object, **__: object) -> None:
    raise RunError("stopped")


def small(data_root: Path, out: Path) -> list[str]:
    """A run of a second."""
    options = ["--set", "validation_size=160", "--set", "classifier_width=4", "--epochs", "1"]
    return ["run", "mnist-rts", "--data-root", str(data_root), "--out", str(out), *options]


@pytest.mark.parametrize("mistake", [["--devices", "3"], ["--set", "batch_size=641"]])
def test_a_run_that_cannot_begin_leaves_its_folder_free_for_one_that_can(
    mistake: list[str], data_root: Path, tmp_path: Path
) -> None:
    assert main([*small(data_root, tmp_path / "run"), *mistake]) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_begun_before_stays_when_it_cannot_go_on(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("training.fitting.trainer.fit", interrupted)
        assert main(small(data_root, tmp_path / "run")) == 1
    assert main(["run", "--resume", str(tmp_path / "run"), "--devices", "3"]) == 1
    assert Run(tmp_path / "run").info().seed == 0


def test_names_of_models_are_those_that_export_takes() -> None:
    assert MODEL_NAME.pattern == NAME.pattern


@pytest.mark.parametrize("command", ["run", "summary", "report", "study"])
def test_help_gives_each_example_a_line_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert re.search(rf"Examples?:\n\n +python -m training {command}", capsys.readouterr().out)


def test_recipes_lists_each_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist"], "the recipes are: my-images"),
        (["run"], "name a recipe"),
        (["run", "mnist-rts", "--set", "epochs"], "KEY=VALUE"),
        (["run", "mnist-rts", "--set", "epoch=3"], "no field epoch"),
        (["run", "mnist-rts", "--epochs", "0"], "epochs"),
        (["run", "--resume", "nowhere"], "is this a run folder"),
        (["run", "--resume", "nowhere", "--seed", "1"], "leave out"),
        (["run", "mnist-rts", "--model", "a/b"], "'a/b' is not a valid model name"),
        (["evaluate", "nowhere"], "is this a run folder"),
        (["report", "nowhere"], "is this a run folder"),
        (["study", "mnist"], "the studies are: distorted-mnist"),
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


def test_a_terminal_that_lacks_characters_gets_escapes() -> None:
    code = r"from training.__main__ import main; print(main(['run', '\u03c6']), '\u2501')"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: there is no recipe ")  # click writes UTF-8 where the encoding is ASCII
    assert done.stdout.split() == [b"1", rb"\u2501"]


def test_a_run_of_many_classes_is_exported_before_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    for label in range(300):
        (tmp_path / "pictures" / f"class {label}").mkdir(parents=True)
        for number in range(3):
            pixels = noise.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"class {label}" / f"{number}.png")
    done: list[str] = []
    monkeypatch.setattr("training.__main__.export", lambda run, name: done.append(name))
    monkeypatch.setattr("training.reports.report.write_report", lambda run, root: done.append("report"))
    small = ["localisation=fcn", "classifier_width=4", "classifier_stages=2", "canvas=[16,16]", "rectified=[8,8]"]
    options = [part for change in [*small, "upright=0", "area=0"] for part in ("--set", change)]
    places = ["--data-root", str(tmp_path / "pictures"), "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main(["run", "my-images", *places, *options]) == 0
    assert done == ["my-images", "report"]
    evaluation = Run(tmp_path / "run").evaluation()
    assert len(evaluation.confusions) <= evaluation.pictures == 300
    assert (tmp_path / "run" / "evaluation.json").stat().st_size < 300 * 300
