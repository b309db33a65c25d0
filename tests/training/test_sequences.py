"""Runs on sequences: trained, evaluated by object and by whole sequence, reported and compared."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_runs import begin
from training.data.batches import distorted
from training.data.random_streams import Stream
from training.data.splits import Split
from training.fitting.runs import Run
from training.fitting.trainer import Training, fit
from training.recipes.recipe import change_recipe
from training.reports.evaluation import answers, evaluate
from training.reports.facts import evaluation_facts
from training.reports.pairing import comparison_facts
from training.reports.report import write_report
from training.reports.visualise import read_metrics


@pytest.fixture(scope="module")
def plain_run(sequence_run: Run, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The plain twin of the sequence's run."""
    changes: dict[str, object] = {
        "recurrent": False,
        "tile": 0.5,
        "transformer": "none",
        "localisation_size": None,
        "classifier_widths": (4, 8, 8, 8),
        "epochs": 1,
    }
    folder = tmp_path_factory.mktemp("runs") / "plain"
    run = begin(folder, change_recipe(sequence_run.info().recipe, changes), data_root=data_root)
    fit(run, data_root, progress=False)
    evaluate(run, data_root)
    return run


@pytest.mark.parametrize("name", ["sequence_run", "plain_run"])
def test_accuracy_is_that_of_objects_and_that_of_whole_sequences_stands_beside_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(name)
    evaluation, (logits, labels) = run.evaluation(), run.answers()
    assert logits.shape == (200, 2, 10)
    assert labels.shape == (200, 2)
    right = logits.argmax(dim=2) == labels
    assert evaluation.pictures == 200
    assert evaluation.accuracy == pytest.approx(float(right.double().mean()))
    assert evaluation.sequences is not None
    assert evaluation.sequences.objects == 2
    assert evaluation.sequences.accuracy == pytest.approx(float(right.all(dim=1).double().mean()))
    low, high = evaluation.accuracy_interval
    assert low <= evaluation.accuracy <= high


def test_every_object_counts_once_in_the_confusions_and_classes(sequence_run: Run) -> None:
    evaluation = sequence_run.evaluation()
    assert sum(count for _, _, count in evaluation.confusions) == 400
    assert evaluation.class_accuracy.keys() == set("0123456789")


def test_the_worth_of_all_crops_is_measured_and_what_needs_a_single_frame_is_left_out(sequence_run: Run) -> None:
    evaluation = sequence_run.evaluation()
    assert evaluation.worth is not None
    assert evaluation.worth.accuracy == pytest.approx(evaluation.accuracy, abs=1e-6)
    assert (evaluation.pose, evaluation.reliability, evaluation.uprightness) == (None, None, None)


def test_the_spread_of_theta_is_that_of_all_crops(sequence_run: Run, data_root: Path) -> None:
    spread = sequence_run.evaluation().theta_spread
    assert spread is not None
    images = sequence_run.source(data_root).test()
    found = answers(sequence_run.trained_network(), distorted(sequence_run.info().recipe, images, Stream.TEST)).thetas
    assert found is not None
    assert spread == pytest.approx(float(found.double().std(dim=0, correction=0).mean()), abs=1e-5)


def test_the_spread_that_the_guard_watches_is_that_of_all_crops(sequence_run: Run) -> None:
    recipe = sequence_run.info().recipe
    module = Training(sequence_run.trained_network(), recipe, 0, 10).eval()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    images = torch.randint(256, (20, 1, *recipe.canvas), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        module.validation_step(Split(images, torch.zeros(20, 2, dtype=torch.int64)), 0)
        thetas = torch.stack([warp.theta for warp in module(images).warps], dim=1)
    spread = float(module.theta_spread.compute())
    assert spread == pytest.approx(float(thetas.double().std(dim=0, correction=0).mean()), rel=1e-3)


def test_each_epoch_says_how_many_sequences_are_right(sequence_run: Run) -> None:
    columns = read_metrics(sequence_run.metrics_file)
    whole, single = columns["validation_sequence_accuracy"], columns["validation_accuracy"]
    assert len(whole) == 2
    assert all(0 <= one <= other <= 1 for one, other in zip(whole, single, strict=True))


def test_samples_are_pictures_of_the_canvas_with_all_labels(sequence_run: Run) -> None:
    with np.load(sequence_run.samples_file) as samples:
        assert samples["images"].shape == (64, 40, 64, 1)
        assert samples["labels"].shape == (64, 2)


def test_the_report_says_both_accuracies_and_has_the_pictures_that_make_sense(
    sequence_run: Run, data_root: Path
) -> None:
    facts = evaluation_facts(sequence_run, sequence_run.evaluation())
    assert "of the 400 objects of 200 pictures" in facts["test accuracy"]
    assert "over pictures" in facts["test accuracy"]
    assert facts["whole sequences right"].endswith("%)")
    text = write_report(sequence_run, data_root).read_text()
    made = {file.name for file in sequence_run.pictures.iterdir()}
    assert made == {"rectified.png", "curves.png", "confusion.png", "theta.png", "epochs.gif"}
    assert all(name in text for name in made)


def test_two_runs_are_compared_object_by_object(sequence_run: Run, plain_run: Run) -> None:
    first, second = (run.evaluation().accuracy for run in (sequence_run, plain_run))
    facts = comparison_facts(sequence_run, plain_run)
    assert facts["difference"].startswith(f"{100 * (first - second):+.2f} points")
    assert facts["difference"].endswith(" over pictures)")
    assert facts["accuracy of the first run"] == f"{first:.2%} of 400 objects"
    assert facts["right in the first run alone"].endswith(" objects")
    assert facts["exact sign test over pictures"].startswith("p ")


def test_the_same_seed_distorts_the_test_pictures_in_the_same_way(sequence_run: Run, plain_run: Run) -> None:
    assert torch.equal(sequence_run.answers()[1], plain_run.answers()[1])
