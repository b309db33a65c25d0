"""The guard sees a transformer die or leave the picture, and does what the recipe says."""

import csv
import math
from pathlib import Path

import pytest
import torch

from tests.networks import build
from tests.small_runs import begin
from training.errors import CollapseError
from training.fitting.collapse import Health, symptom, warning
from training.fitting.runs import Run
from training.fitting.trainer import Training, fit
from training.networks.spatial import Warp
from training.recipes.recipe import Recipe, change_recipe

WELL = Health(loss=0.1, spread=0.2, outside=0.1, distance=0.3, gradient=1.0)
CHANCE = math.log(10)
KILLED_IN = 2


def test_a_healthy_epoch_has_no_symptom_and_no_warning() -> None:
    assert symptom(WELL, best_loss=0.09, best_spread=0.21, chance_loss=CHANCE) is None
    assert warning(WELL) is None


def test_a_loss_back_near_chance_is_a_collapse() -> None:
    found = symptom(WELL._replace(loss=2.2), best_loss=0.3, best_spread=0.2, chance_loss=CHANCE)
    assert found is not None
    assert "loss rose from 0.300 to 2.200" in found


def test_a_loss_that_was_never_low_is_no_collapse() -> None:
    assert symptom(WELL._replace(loss=2.3), best_loss=2.0, best_spread=0.2, chance_loss=CHANCE) is None


def test_a_transformer_that_left_the_picture_is_a_collapse_whatever_the_loss() -> None:
    found = symptom(WELL._replace(outside=0.99), best_loss=2.3, best_spread=0.2, chance_loss=CHANCE)
    assert found is not None
    assert "99%" in found


def test_a_theta_that_no_longer_depends_on_the_picture_is_a_collapse() -> None:
    found = symptom(WELL._replace(spread=0.0), best_loss=0.1, best_spread=0.2, chance_loss=CHANCE)
    assert found is not None
    assert "no longer depends on the picture" in found


def test_a_transformer_that_has_not_begun_to_look_is_no_collapse() -> None:
    assert symptom(WELL._replace(spread=0.0), best_loss=2.3, best_spread=0.001, chance_loss=CHANCE) is None


@pytest.mark.parametrize(
    ("change", "word"), [({"outside": 0.7}, "70%"), ({"distance": 3.0}, "identity"), ({"gradient": 0.0}, "gradient")]
)
def test_what_may_lead_to_a_collapse_is_named(change: dict[str, float], word: str) -> None:
    found = warning(WELL._replace(**change))
    assert found is not None
    assert word in found


def kill_localisation(training: Training) -> None:
    """What one large step can do: hidden units of the localisation network fall silent, for ever."""
    if training.current_epoch == KILLED_IN:
        with torch.no_grad():
            for network in training.network.localisation_networks():
                head = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
                head.weight.zero_()
                head.bias.copy_(torch.tensor([0.0, 0, 3, 0, 0, 3]))


def rows(run: Run) -> list[dict[str, float]]:
    with run.metrics_file.open() as table:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    """Learns enough in two epochs to have something to lose."""
    return change_recipe(small_recipe, {"epochs": 5, "batch_size": 16, "schedule": "constant", "validation_size": 80})


def train(recipe: Recipe, folder: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = begin(folder, recipe)
    monkeypatch.setattr(Training, "on_train_epoch_start", kill_localisation, raising=False)
    fit(run, data_root, progress=False)
    return run


def test_restore_goes_back_to_good_weights_with_a_lower_localisation_rate(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(change_recipe(recipe, {"on_collapse": "restore"}), tmp_path / "run", data_root, monkeypatch)
    losses = [row["train_loss"] for row in rows(run)]
    assert losses[KILLED_IN] > losses[KILLED_IN - 1] + 0.1, "the blow was real"
    assert losses[-1] < losses[KILLED_IN - 1]
    assert rows(run)[-1]["theta_spread"] > 0.01
    last = torch.load(run.last_checkpoint, weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    highest = last["lr_schedulers"][0]["base_lrs"]
    rates = {group["localisation"]: rate for group, rate in zip(groups, highest, strict=True)}
    assert rates[True] == pytest.approx(recipe.learning_rate * recipe.localisation_rate / 10)
    assert rates[False] == pytest.approx(recipe.learning_rate)
    assert "transformer_collapsed" in capsys.readouterr().out


def test_restore_takes_the_collapsed_weights_out_of_the_running_mean(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"on_collapse": "restore", "average": 0.99, "epochs": KILLED_IN + 1}
    run = train(change_recipe(recipe, changes), tmp_path / "run", data_root, monkeypatch)
    assert rows(run)[-1]["outside"] > 0.95, "the blow was real"
    last = torch.load(run.last_checkpoint, weights_only=True)
    for name, value in last["state_dict"].items():
        assert torch.equal(value, last["current_model_state"][name]), name


def test_stop_ends_the_run_with_the_cure_and_keeps_the_best_checkpoint(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CollapseError, match="localisation_rate"):
        train(change_recipe(recipe, {"on_collapse": "stop"}), tmp_path / "run", data_root, monkeypatch)
    assert Run(tmp_path / "run").trained_network() is not None


def test_warn_says_so_and_goes_on(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(change_recipe(recipe, {"on_collapse": "warn"}), tmp_path / "run", data_root, monkeypatch)
    assert len(rows(run)) == recipe.epochs
    assert rows(run)[-1]["train_loss"] > rows(run)[KILLED_IN - 1]["train_loss"]
    said = capsys.readouterr().out
    assert "transformer_collapsed" in said
    assert "localisation_rate" in said


@pytest.mark.parametrize(
    ("loss", "theta", "told"), [(math.inf, 0.0, "the loss is inf"), (1.0, math.nan, "theta is nan")]
)
def test_a_loss_or_theta_that_is_no_number_ends_training_and_validation(
    recipe: Recipe, loss: float, theta: float, told: str
) -> None:
    training = Training(build(recipe), recipe, 0, 10)
    thetas = torch.full((2, 2, 3), theta)
    warp = Warp(thetas, thetas, thetas, thetas, thetas, lambda points: points)
    training.check_finite(torch.tensor(1.0), (warp._replace(theta=torch.zeros(2, 2, 3)),))
    with pytest.raises(CollapseError, match=f"training diverged: {told} in epoch 0"):
        training.check_finite(torch.tensor(loss), (warp,))


def test_weights_that_only_validation_shows_to_be_no_numbers_end_the_run(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(training: Training) -> None:
        statistics = next(module for module in training.modules() if isinstance(module, torch.nn.BatchNorm2d))
        assert statistics.running_var is not None
        statistics.running_var.fill_(math.nan)

    run = begin(tmp_path / "run", recipe)
    monkeypatch.setattr(Training, "on_train_epoch_start", poison, raising=False)
    with pytest.raises(CollapseError, match=r"diverged: the loss is nan in epoch 0; .*; no epoch was completed"):
        fit(run, data_root, progress=False)
    assert not run.metrics_file.exists()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(training: Training) -> None:
        if training.current_epoch == 1:
            with torch.no_grad():
                next(training.network.classifier.parameters()).fill_(math.nan)

    run = begin(tmp_path / "run", recipe)
    monkeypatch.setattr(Training, "on_train_epoch_start", poison, raising=False)
    with pytest.raises(CollapseError, match=r"diverged: the loss is nan in epoch 1; .* learning_rate .* evaluate "):
        fit(run, data_root, progress=False)
    assert all(torch.isfinite(p).all() for p in run.trained_network().parameters())
