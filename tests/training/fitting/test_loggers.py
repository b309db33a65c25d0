"""Metrics of a run are recorded by the logger of Lightning that its user chose."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.errors import RecipeError, RunError
from training.fitting import loggers
from training.fitting.loggers import check_logger, identity
from training.fitting.runs import LoggerName, Run, begin_run
from training.fitting.trainer import fit
from training.recipes.recipe import Recipe, change_recipe


def logged(name: LoggerName, folder: Path, recipe: Recipe, data_root: Path) -> Run:
    """A run of two epochs with this logger."""
    run = begin_run(folder, recipe, 0, data_root, logger=name)
    fit(run, data_root, progress=False)
    return run


@pytest.fixture
def quick(small_recipe: Recipe) -> Recipe:
    return change_recipe(small_recipe, {"transformer": "none"})


def recorded(run: Run) -> list[float]:
    """The validation accuracies in the run's own table."""
    with run.metrics_file.open() as text:
        return [float(row["validation_accuracy"]) for row in csv.DictReader(text)]


def test_csv_records_every_epoch_in_a_table(tmp_path: Path, quick: Recipe, data_root: Path) -> None:
    run = logged("csv", tmp_path / "run", quick, data_root)
    assert run.info().logger == "csv"
    folder = run.folder / "csv" / "version_0"
    with (folder / "metrics.csv").open() as text:
        found = [float(row["validation_accuracy"]) for row in csv.DictReader(text) if row["validation_accuracy"]]
    assert found == pytest.approx(recorded(run), abs=1e-5)
    assert "learning_rate" in (folder / "hparams.yaml").read_text()
    assert not (run.folder / "tensorboard").exists()


def test_mlflow_records_in_the_run_folder_and_a_resumed_run_goes_on(
    tmp_path: Path, quick: Recipe, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = logged("mlflow", tmp_path / "run", quick, data_root)
    fit(run, data_root, progress=False)  # it is finished, but opens the logger again
    client = mlflow.MlflowClient(f"sqlite:///{run.folder / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name == quick.name)
    (only,) = client.search_runs([experiment.experiment_id])
    assert only.info.run_name == "run"
    assert only.data.params["learning_rate"] == str(quick.learning_rate)
    told = client.get_metric_history(only.info.run_id, "validation_accuracy")
    assert [each.value for each in sorted(told, key=lambda each: each.step)] == pytest.approx(recorded(run), abs=1e-5)


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """wandb reads the environment once in each process, unless it is told to begin again."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_records_offline(tmp_path: Path, quick: Recipe, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = logged("wandb", tmp_path / "run", quick, data_root)
    (file,) = (run.folder / "wandb").glob(f"offline-run-*/run-{identity(run)}.wandb")
    assert b"validation_accuracy" in file.read_bytes()


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_without_an_account_says_what_to_do(
    tmp_path: Path, quick: Recipe, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(RunError, match="WANDB_MODE=offline, and continue with --resume"):
        logged("wandb", tmp_path / "run", quick, data_root)


def test_mlflow_without_a_store_says_what_to_do(
    tmp_path: Path, quick: Recipe, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(RunError, match="MLflow does not record to gopher://nowhere"):
        logged("mlflow", tmp_path / "run", quick, data_root)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_names_the_extra(name: LoggerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=rf"--logger {name} needs {name}.*\[loggers\]"):
        check_logger(name)
    check_logger("tensorboard")
