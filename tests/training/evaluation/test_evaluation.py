import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_runs import begin
from training.errors import RunError
from training.evaluation.evaluation import best_epoch, evaluate
from training.evaluation.rectification import measure_boxes
from training.fitting.runs import Run
from training.recipes.recipe import Recipe


def test_the_evaluation_counts_every_test_picture_once(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    confusion = torch.tensor(evaluation.confusion)
    assert evaluation.pictures == confusion.sum() == 200
    assert evaluation.accuracy == pytest.approx(float(confusion.trace()) / 200)
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
    evaluation = json.loads(trained_run.evaluation_file.read_text())
    assert predicted.bincount(minlength=10).le(torch.tensor(evaluation["confusion"]).sum(0)).all()


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
        best_epoch(run)


def test_the_interval_holds_the_accuracy_and_narrows_with_more_pictures(trained_run: Run) -> None:
    evaluation = trained_run.evaluation()
    low, high = evaluation.accuracy_interval
    assert low < evaluation.accuracy < high
    share, count = evaluation.accuracy, evaluation.pictures
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / count) ** 0.5, rel=0.1)


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
