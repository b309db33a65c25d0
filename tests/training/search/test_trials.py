"""A search trains trials as ordinary runs, judges them by validation, and goes on after it was killed."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from tests.small_runs import begin
from training.__main__ import main
from training.errors import RunError
from training.fitting.runs import Run
from training.fitting.trainer import fit
from training.recipes.recipe import Recipe
from training.search.ranges import Space, parse_space
from training.search.trials import STARTUP_TRIALS, Best, Reports, Search, accuracies, repeat, run_search

PAIRS = ["learning_rate=1e-4..1e-2", "classifier_width=4|6"]


def described(recipe: Recipe, data_root: Path, pairs: list[str]) -> tuple[Search, Space]:
    space, fixed = parse_space(pairs)
    texts = dict(pair.split("=", 1) for pair in pairs)
    quick = recipe.model_copy(update={"transformer": "none", **fixed})
    return Search(recipe=quick, fixed=(), space=texts, seed=0, data_root=data_root), space


def studied(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")


@pytest.fixture(scope="module")
def searched(small_recipe: Recipe, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Best]:
    """A search of three trials."""
    folder = tmp_path_factory.mktemp("runs") / "search"
    search, space = described(small_recipe, data_root, PAIRS)
    said: list[str] = []
    best = run_search(folder, search, space, 3, said.append, progress=False)
    assert len(said) == 3
    return folder, best


def test_trials_are_ordinary_runs_with_the_settings_of_the_study(searched: tuple[Path, Best]) -> None:
    folder, _ = searched
    trials = studied(folder).trials
    assert len(trials) == 3
    for trial in trials:
        run = Run(folder / f"trial-{trial.number:03}")
        recipe = run.info().recipe
        assert recipe.learning_rate == trial.params["learning_rate"]
        assert str(recipe.classifier_width) == trial.params["classifier_width"]
        assert trial.value == accuracies(run)[run.kept_epoch()]
        assert not run.evaluation_file.exists(), "the test set is not read"
        assert list(trial.intermediate_values.values()) == pytest.approx(list(accuracies(run).values()), abs=1e-6)


def test_the_best_trial_has_the_highest_validation_accuracy(searched: tuple[Path, Best]) -> None:
    folder, best = searched
    assert best.accuracy == max(trial.value or 0.0 for trial in studied(folder).trials)
    assert best.settings["learning_rate"] == best.run.info().recipe.learning_rate
    assert best.settings["classifier_width"] == best.run.info().recipe.classifier_width


def test_the_command_repeats_the_best_trial(
    searched: tuple[Path, Best], small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    _, best = searched
    search, _ = described(small_recipe, data_root, PAIRS)
    fixed = {name: getattr(small_recipe, name) for name in ("epochs", "validation_size", "batch_size")}
    words = shlex.split(repeat(search, {**fixed, "transformer": "none"}, best))
    assert words[:3] == ["python", "-m", "training"]
    assert main([*words[3:], "--out", str(tmp_path / "again")]) == 0
    assert Run(tmp_path / "again").info().recipe == best.run.info().recipe
    assert (tmp_path / "again" / "metrics.csv").read_text() == best.run.metrics_file.read_text()


def test_the_same_command_adds_only_what_is_missing(
    searched: tuple[Path, Best], small_recipe: Recipe, data_root: Path
) -> None:
    folder, best = searched
    search, space = described(small_recipe, data_root, PAIRS)
    again = run_search(folder, search, space, 3, pytest.fail, progress=False)
    assert (again.run.folder, again[1:]) == (best.run.folder, best[1:])


def test_another_search_in_the_same_folder_is_refused(
    searched: tuple[Path, Best], small_recipe: Recipe, data_root: Path
) -> None:
    folder, _ = searched
    search, space = described(small_recipe, data_root, ["learning_rate=1e-3..1e-2"])
    with pytest.raises(RunError, match=r"a search of its own \(space differ\)"):
        run_search(folder, search, space, 3, print, progress=False)
    search, space = described(small_recipe, data_root, PAIRS)
    with FileLock(folder / "search.lock"), pytest.raises(RunError, match="another process"):
        run_search(folder, search, space, 3, print, progress=False)


def test_a_folder_with_something_else_is_left_alone(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    search, space = described(small_recipe, data_root, PAIRS)
    with pytest.raises(RunError, match="is in use; choose another --out"):
        run_search(tmp_path, search, space, 1, print, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_trials_whose_settings_contradict_each_other_are_told_and_count(
    small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    search, space = described(small_recipe, data_root, ["momentum=0.0..0.9", "optimiser=adamw|sgd"])
    search = search.model_copy(update={"recipe": search.recipe.model_copy(update={"epochs": 1})})
    said: list[str] = []
    best = run_search(tmp_path / "search", search, space, 4, said.append, progress=False)
    assert best.settings["optimiser"] == "sgd"
    failed = [text for text in said if "failed" in text]
    assert failed
    assert all("optimiser=adamw" in text and "momentum has no effect" in text for text in failed)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_a_search_that_was_killed_goes_on_with_the_interrupted_trial(data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    changes = ["learning_rate=1e-4..1e-2", "validation_size=160", "batch_size=32", "transformer=none", "epochs=3"]
    arguments = ["search", "mnist-rts", "--data-root", str(data_root), "--out", str(out), "--trials", "2"]
    arguments += [word for change in changes for word in ("--set", change)]
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + 300
    while not (out / "trial-000" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, "the search ended before it was killed"
        assert time.monotonic() < ends
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = accuracies(Run(out / "trial-000"))
    assert main(arguments) == 0
    trials = studied(out).trials
    states = [trial.state for trial in trials]
    assert states.count(TrialState.FAIL) <= 1
    assert sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states) == 2
    after = accuracies(Run(out / "trial-000"))
    assert before.items() <= after.items(), "no epoch was trained twice"
    assert len(after) == 3


def test_a_trial_that_lags_behind_is_pruned(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS))
    for _ in range(STARTUP_TRIALS):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={0: 1.0, 1: 1.0}))
    run = begin(tmp_path / "run", small_recipe.model_copy(update={"transformer": "none"}), data_root=data_root)
    reports = Reports(study.ask())
    fit(run, data_root, progress=False, watchers=(reports,))
    assert reports.pruned
    assert len(accuracies(run)) == 1
    assert run.last_checkpoint.exists(), "it can still be continued as a run"
