import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_runs import begin
from training.data.sources import Digits
from training.data.splits import Split
from training.errors import CollapseError, RunError
from training.evaluation.intervals import accuracy_interval
from training.evaluation.overlaps import measure_boxes
from training.evaluation.results import Evaluation
from training.fitting.runs import Run
from training.fitting.trainer import fit
from training.recipes.recipe import Recipe, change_recipe
from training.reports.confusions import confusion_matrix
from training.reports.evaluation import divergence, evaluate, kept_epoch
from training.reports.facts import evaluation_facts


def test_the_evaluation_counts_every_test_picture_once(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    right = sum(count for true, predicted, count in evaluation.confusions if true == predicted)
    assert evaluation.pictures == sum(count for _, _, count in evaluation.confusions) == 200
    assert evaluation.accuracy == pytest.approx(right / 200)
    assert evaluation.class_accuracy.keys() == set("0123456789")


def test_evaluating_again_gives_the_same(trained_run: Run, data_root: Path) -> None:
    before = trained_run.evaluation_file.read_bytes()
    evaluate(trained_run, data_root)
    assert trained_run.evaluation_file.read_bytes() == before


def test_the_evaluation_agrees_with_the_network_that_export_takes(trained_run: Run, data_root: Path) -> None:
    network, samples = trained_run.trained_network(), torch.from_numpy(trained_run.samples())
    assert samples.shape == (64, 42, 42, 1)
    with torch.inference_mode():
        predicted = network(samples.permute(0, 3, 1, 2).float() / 255).logits.argmax(1)
    answered = confusion_matrix(trained_run.evaluation().confusions, range(10)).sum(axis=0)
    assert predicted.bincount(minlength=10).le(torch.from_numpy(answered)).all()


def test_a_run_that_was_never_trained_cannot_be_evaluated(
    small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "new", small_recipe)
    with pytest.raises(RunError, match="--resume"):
        evaluate(run, data_root)


@pytest.mark.parametrize("table", ["", "epoch,train_loss\n", "epoch,validation_accuracy\n0,0.5\n1\n"])
def test_a_damaged_table_of_metrics_is_named(table: str, small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.metrics_file.write_text(table)
    with pytest.raises(RunError, match=r"metrics\.csv has no metrics"):
        kept_epoch(run)


def test_the_interval_holds_the_accuracy_and_narrows_with_more_pictures(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    low, high = evaluation.accuracy_interval
    assert low < evaluation.accuracy < high
    share, count = evaluation.accuracy, evaluation.pictures
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / count) ** 0.5, rel=0.1)


def test_the_worth_of_theta_is_measured_on_all_test_pictures_and_poses_on_some(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    worth, pose = evaluation.worth, evaluation.pose
    assert worth is not None
    assert pose is not None
    assert (worth.pictures, worth.accuracy) == (200, evaluation.accuracy)
    assert worth.lost == pytest.approx(worth.accuracy - max(worth.mean_theta, worth.identity), abs=1e-6)
    assert (pose.pictures, pose.class_lean_deg.keys()) == (200, evaluation.class_accuracy.keys())
    assert pose.turn_deg.given == pytest.approx(45 / 3**0.5, rel=0.15)


def test_the_accuracy_on_validation_pictures_has_an_interval_too(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    assert evaluation.validation_interval is not None
    low, high = evaluation.validation_interval
    assert low < evaluation.validation_accuracy < high


class Tracks(Digits):
    """Digits in tracks of ten pictures."""

    def _read(self, *, train: bool) -> Split:
        split = super()._read(train=train)
        return split._replace(groups=torch.arange(len(split.labels)) // 10)


def test_the_interval_is_over_groups_if_the_test_pictures_have_any(
    trained_run: Run, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path(shutil.copytree(trained_run.folder, tmp_path / "run")))
    monkeypatch.setattr("training.data.sources.Digits", Tracks)
    evaluation = evaluate(run, data_root)
    assert evaluation.groups == 20
    groups = run.groups()
    assert groups is not None
    logits, labels = run.answers()
    assert evaluation.accuracy_interval == accuracy_interval(logits.argmax(dim=1) == labels, groups)
    assert "over 20 groups of pictures" in evaluation_facts(run, evaluation)["test accuracy"]


def test_probabilities_are_measured_before_and_after_the_temperature(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    with np.load(trained_run.answers_file) as arrays:
        logits, labels = torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"])
    assert logits.shape == (200, 10)
    loss = torch.nn.functional.cross_entropy
    assert evaluation.calibration.loss == pytest.approx(float(loss(logits, labels)), abs=1e-5)
    cooled = float(loss(logits / evaluation.temperature, labels))
    assert evaluation.calibration_at_temperature.loss == pytest.approx(cooled, abs=1e-5)
    assert evaluation.temperature != 1


def test_boxes_are_compared_with_theta_and_with_simpler_guesses() -> None:
    boxes = torch.tensor([[[-0.5, -0.5], [0.5, 0.5]]]).repeat(4, 1, 1)
    theta = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]).repeat(4, 1, 1)
    found = measure_boxes(theta, boxes, training_boxes=1.2 * boxes)
    assert found.theta == pytest.approx(1)
    assert found.whole == pytest.approx(0.25)
    assert found.centre_side == pytest.approx(0.6)
    assert found.centre == pytest.approx((0.5 / 0.6) ** 2, abs=1e-3)


def test_an_evaluation_of_an_older_version_with_its_whole_matrix_is_read(trained_run: Run) -> None:
    now = trained_run.evaluation()
    older = now.model_dump() | {"confusion": confusion_matrix(now.confusions, range(10)).tolist()}
    older.pop("confusions")
    assert Evaluation.model_validate(older) == now


@pytest.mark.parametrize("rate", [1e3, 1e12])
def test_a_run_that_diverged_says_so_and_what_to_change(
    rate: float, small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"learning_rate": rate, "epochs": 1}))
    with pytest.raises(CollapseError, match=r"training diverged: .*; train again with a lower learning_rate"):
        fit(run, data_root, progress=False)
        evaluate(run, data_root)
    assert not run.evaluation_file.exists()


@pytest.mark.parametrize(
    ("loss", "spread", "told"),
    [
        (2.4, 0.1, None),
        (30.0, 0.0, None),
        (1e6, 0.1, "validation loss of 1e\\+06, guessing gives 2.3"),
        (float("nan"), 0.1, "validation loss of nan"),
        (2.0, 1e9, "spread of 1e\\+09"),
        (2.0, float("nan"), "spread of nan"),
    ],
)
def test_divergence_shows_in_the_kept_epoch(loss: float, spread: float, told: str | None) -> None:
    found = divergence({"validation_loss": loss, "theta_spread": spread}, classes=10)
    assert (found is None) == (told is None)
    assert told is None or re.search(told, str(found))
