import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small_runs import begin
from training.data.splits import Split
from training.errors import RunError
from training.fitting.runs import Run
from training.fitting.trainer import Training, fit
from training.networks.network import SpatialTransformerClassifier
from training.recipes.catalogue import find_recipe
from training.recipes.recipe import Recipe, change_recipe
from training.reports.evaluation import evaluate, kept_epoch


def weights(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    return state


def test_a_run_folder_is_complete_in_itself(trained_run: Run) -> None:
    info = trained_run.info()
    assert info.recipe.epochs == 2
    assert {"python", "torch", "torchvision", "lightning"} <= info.versions.keys()
    with trained_run.metrics_file.open() as table:
        rows = list(csv.DictReader(table))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0].keys() == {
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "theta_spread",
        "outside",
        "theta_distance",
        "localisation_gradient",
    }
    assert trained_run.best_checkpoint.is_file()
    assert trained_run.snapshots_file.is_file()
    assert list((trained_run.folder / "tensorboard").glob("events.*"))


def test_training_learns_and_moves_the_transformer(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"epochs": 5, "batch_size": 16}))
    fit(run, data_root, progress=False)
    with run.metrics_file.open() as table:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.2
    assert rows[-1]["theta_spread"] > 0.01
    assert kept_epoch(run) == rows[-1]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    trained_run: Run, small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    for seed, equal in ((0, True), (1, False)):
        run = begin(tmp_path / str(seed), small_recipe, seed)
        fit(run, data_root, progress=False)
        same = [torch.equal(value, weights(trained_run)[name]) for name, value in weights(run).items()]
        assert all(same) is equal


def test_a_run_interrupted_between_epochs_ends_with_the_weights_of_an_unbroken_one(
    trained_run: Run, small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "broken", small_recipe)
    with monkeypatch.context() as patch:
        patch.setattr("training.fitting.trainer.Training.on_train_epoch_start", stop_in_the_second_epoch, raising=False)
        with pytest.raises(PowerCutError):
            fit(run, data_root, progress=False)
    assert [row["epoch"] for row in csv.DictReader(run.metrics_file.open())] == ["0"]
    fit(run, data_root, progress=False)
    for name, value in weights(trained_run).items():
        assert torch.equal(value, weights(run)[name]), name
    assert run.metrics_file.read_text() == trained_run.metrics_file.read_text()


@pytest.mark.parametrize("classifier", ["tutorial", "cifar"])
def test_a_run_that_drops_units_and_is_interrupted_within_an_epoch_ends_with_the_weights_of_an_unbroken_one(
    classifier: str, small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = change_recipe(small_recipe, {"classifier": classifier})
    unbroken, broken = (begin(tmp_path / name, recipe) for name in ("unbroken", "broken"))
    fit(unbroken, data_root, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            "training.fitting.trainer.Training.on_train_batch_end", stop_within_the_second_epoch, raising=False
        )
        with pytest.raises(PowerCutError):
            fit(broken, data_root, progress=False)
    fit(broken, data_root, progress=False)
    ends = [weights(run) for run in (unbroken, broken)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_guarded_run_keeps_its_snapshots_when_it_is_resumed(trained_run: Run) -> None:
    with np.load(trained_run.snapshots_file) as arrays:
        assert arrays["images"].shape == (10, 1, 42, 42)
        assert arrays["theta"].shape == (2, 10, 2, 3)
        assert arrays["rectified"].shape == (2, 10, 1, 28, 28)
        assert arrays["rectified"].dtype == np.uint8
        assert not np.array_equal(arrays["theta"][0], arrays["theta"][1])


KNOBS: dict[str, dict[str, object]] = {
    "sgd": {"optimiser": "sgd", "schedule": "constant", "warmup": 0.0, "clip": None},
    "average": {"average": 0.9},
    "bf16": {"precision": "bf16"},
    "shared stage in bf16": {"shared_stage": True, "precision": "bf16"},
    "identity penalty": {"identity_penalty": 0.1},
    "upright": {"upright": 1.0, "area": 0.05},
    "upright, close on the ink": {"upright": 1.0, "area": 0.05, "area_of": "ink"},
    "label smoothing": {"label_smoothing": 0.1},
    "steps": {"steps": 2, "transformer": "similarity"},
    "parallel": {"parallel": 2, "transformer": "attention"},
    "tps": {"transformer": "tps"},
    "plain": {"transformer": "none"},
    "addition": {"distortion": "addition", "mean": [0.05, 0.05], "std": [0.2, 0.2]},
}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_trains_evaluates_and_changes_the_weights(
    knob: str, trained_run: Run, small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"epochs": 1, **KNOBS[knob]}))
    fit(run, data_root, progress=False)
    evaluation = evaluate(run, data_root)
    assert evaluation == run.evaluation(), "what was written can be read"
    assert 0 <= evaluation.accuracy <= 1
    assert (evaluation.uprightness is not None) == (knob not in ("plain", "addition"))
    plain, changed = weights(trained_run), weights(run)
    assert changed.keys() != plain.keys() or any(not torch.equal(plain[name], changed[name]) for name in plain)


def test_bf16_leaves_the_geometry_in_float32(small_recipe: Recipe) -> None:
    recipe = change_recipe(small_recipe, {"precision": "bf16"})
    training = Training(SpatialTransformerClassifier(recipe, 10, 1), recipe, seed=0, classes=10)
    training.setup("fit")
    seen: list[torch.dtype] = []
    training.network.classifier.stages[0][0].register_forward_hook(  # type: ignore[index]
        lambda module, inputs, output: seen.append(output.dtype)
    )
    output = training(torch.zeros(2, 1, 42, 42))
    assert seen == [torch.bfloat16]
    assert {t.dtype for t in (output.logits, output.warps[0].theta, output.warps[0].rectified)} == {torch.float32}


def test_a_run_is_resumed_from_its_last_epoch_even_when_that_is_not_its_best(
    small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "validation_step", worse_and_worse)
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"epochs": 3, "schedule": "constant"}))
    fit(run, data_root, progress=False)
    steps = [torch.load(file, weights_only=True)["global_step"] for file in (run.best_checkpoint, run.last_checkpoint)]
    assert steps[0] < steps[1] == 3 * (640 // small_recipe.batch_size)


def test_a_run_that_was_moved_keeps_its_best_checkpoint_when_it_is_resumed(
    small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "validation_step", worse_and_worse)
    run = begin(tmp_path / "here", change_recipe(small_recipe, {"epochs": 3, "schedule": "constant"}))
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_epoch_start", stop_in_the_second_epoch, raising=False)
        with pytest.raises(PowerCutError):
            fit(run, data_root, progress=False)
    best = run.best_checkpoint.read_bytes()
    moved = Run(run.folder.rename(tmp_path / "there"))
    fit(moved, data_root, progress=False)
    assert kept_epoch(moved)["epoch"] == 0
    assert moved.best_checkpoint.read_bytes() == best


def worse_and_worse(training: Training, batch: Split, batch_index: int) -> None:
    """A validation whose loss rises with every epoch, while the accuracy is highest in the second one."""
    epoch = training.current_epoch
    values = {"validation_accuracy": (0.8, 0.9, 0.7)[epoch], "validation_loss": 1 + epoch / 10, "theta_spread": 1.0}
    for name, value in values.items():
        training.log(name, value, batch_size=1)


@pytest.mark.parametrize(("schedule", "kept"), [("cosine", 2), ("constant", 0)])
def test_a_run_keeps_its_last_epoch_under_a_falling_rate_and_that_of_least_loss_under_a_constant_one(
    schedule: str, kept: int, small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "validation_step", worse_and_worse)
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"epochs": 3, "schedule": schedule, "average": 0.9}))
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_epoch_start", stop_in_the_second_epoch, raising=False)
        with pytest.raises(PowerCutError):
            fit(run, data_root, progress=False)
    fit(run, data_root, progress=False)
    assert kept_epoch(run)["epoch"] == kept
    evaluation = evaluate(run, data_root)
    assert evaluation.best_epoch == kept
    if kept == 2:
        last = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
        assert all(
            torch.equal(value, last[f"network.{name}"]) for name, value in run.trained_network().state_dict().items()
        )


def test_a_damaged_checkpoint_is_not_resumed_from(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.checkpoints.mkdir()
    run.last_checkpoint.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(RunError, match=r"last\.ckpt .*; delete it"):
        fit(run, data_root, progress=False)


def test_a_training_stopped_by_ctrl_c_says_how_to_go_on(
    small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: torch.nn.Module) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fitting.trainer.Training.on_train_epoch_start", interrupt, raising=False)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RunError, match="--resume"):
            fit(begin(tmp_path / "run", small_recipe), data_root, progress=False)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning has switched it off


class PowerCutError(Exception):
    """Ends a training in the middle."""


def stop_in_the_second_epoch(training: torch.nn.Module) -> None:
    if training.current_epoch == 1:
        raise PowerCutError


def stop_within_the_second_epoch(training: torch.nn.Module, outputs: object, batch: Split, batch_index: int) -> None:
    if training.current_epoch == 1 and batch_index == 3:
        raise PowerCutError


def test_a_checkpoint_holds_the_class_means() -> None:
    recipe = change_recipe(find_recipe("gtsrb-small"), {"canonical": 1.0, "classifier_widths": [4]})
    first, again = (Training(SpatialTransformerClassifier(recipe, 3, 3), recipe, seed=0, classes=3) for _ in range(2))
    pose, resumed = first.objective.canonical_pose, again.objective.canonical_pose
    assert pose is not None
    assert resumed is not None
    pose.means += 0.1
    checkpoint: dict[str, Any] = {}
    first.on_save_checkpoint(checkpoint)
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(resumed.means, pose.means)
