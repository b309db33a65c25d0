"""Two processes against one, with the same batches."""

from pathlib import Path

import lightning
import pytest
import torch

from tests.small_runs import begin
from training.distributed import share_statistics
from training.errors import CollapseError, RecipeError
from training.fitting.runs import Run
from training.fitting.trainer import fit
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe, change_recipe

CHANGES: dict[str, object] = {
    "epochs": 1,
    "batch_size": 80,
    "upright": 1.0,
    "area": 0.05,
    "optimiser": "sgd",  # AdamW makes a step of a gradient that is nothing but rounding
    "learning_rate": 0.02,
}


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """All weights in a row."""
    return torch.cat([value.double().flatten() for value in state.values()])


@pytest.mark.parametrize("classifier", ["conv", "tutorial"])
def test_two_processes_end_with_the_weights_of_one(
    classifier: str, small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = change_recipe(small_recipe, {**CHANGES, "classifier": classifier})
    lightning.seed_everything(0, verbose=False)
    begun = flat(begin(tmp_path / "1", recipe).info().network().state_dict())
    begin(tmp_path / "2", recipe)
    ends = []
    for devices in (1, 2):
        run = Run(tmp_path / str(devices))
        fit(run, data_root, devices=devices, progress=False)
        ends.append(flat(run.trained_network().state_dict()))
    # torch's own batch normalisation sums a channel up with a relative error of some 1e-4 on the CPU.
    assert (ends[0] - ends[1]).norm() < 5e-4 * (ends[0] - begun).norm()
    rows = [(tmp_path / devices / "metrics.csv").read_text().splitlines()[1].split(",") for devices in "12"]
    assert [float(v) for v in rows[1]] == pytest.approx([float(v) for v in rows[0]], rel=0.05, abs=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"batch_size": 81}))
    with pytest.raises(RecipeError, match="multiple of 2"):
        fit(run, data_root, devices=2, progress=False)


def test_more_devices_than_there_are_is_refused(
    small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    run = begin(tmp_path / "run", small_recipe)
    with pytest.raises(RecipeError, match=r"2 devices cannot train: .*; lower --devices"):
        fit(run, data_root, devices=2, progress=False)


def test_a_collapse_in_several_processes_is_told_as_that_of_one(
    small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    hopeless = {"optimiser": "sgd", "learning_rate": 1e30, "clip": None, "warmup": 0.0}
    run = begin(tmp_path / "run", change_recipe(small_recipe, hopeless))
    told = r"^training diverged: the loss is \w+ in epoch 0; .* or set clip; no epoch was completed$"
    with pytest.raises(CollapseError, match=told):
        fit(run, data_root, devices=2, progress=False)


def test_sharing_statistics_changes_no_parameter_and_nothing_for_a_process_alone(small_recipe: Recipe) -> None:
    network = SpatialTransformerClassifier(small_recipe, 10, 1)
    images = torch.rand(4, 1, 42, 42)
    before, state = network(images).logits, {name: value.clone() for name, value in network.state_dict().items()}
    plain = SpatialTransformerClassifier(small_recipe, 10, 1)
    plain.load_state_dict(state)
    share_statistics(plain)
    assert plain.state_dict().keys() == state.keys()
    assert torch.equal(network.eval()(images).logits, plain.eval()(images).logits)
    assert torch.isfinite(before).all()
