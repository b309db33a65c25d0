"""Digits are distorted as affNIST says, and any exported network for shifted digits can be asked about them."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from benchmarks.accuracy import affnist
from benchmarks.inference.artifacts import Untrained
from export.exporter import Destination, export_run
from export.onnx import OnnxRuntime
from training.recipes.digits import AFFNIST, MNIST_RTS
from training.recipes.recipe import Recipe, change_recipe


def bars(count: int) -> Tensor:
    """Pictures of an upright bar of 4x20 pixels, to the right of the middle."""
    images = torch.zeros(count, 1, 28, 28)
    images[..., 4:24, 17:21] = 255
    return images


def spread(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of the ink of ``(N, 1, H, W)``: its centre ``(N, 2)`` as (x, y), and its covariance ``(N, 2, 2)``, in pixels."""
    weights = images[:, 0] / images.sum(dim=(1, 2, 3))[:, None, None]
    rows, columns = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    points = torch.stack([columns, rows], dim=-1)
    centre = torch.einsum("nhw,hwk->nk", weights, points)
    from_centre = points - centre[:, None, None]
    return centre, torch.einsum("nhw,nhwk,nhwl->nkl", weights, from_centre, from_centre)


def test_bars_lean_and_stretch_as_far_as_affnist_says() -> None:
    distorted = affnist.affine_distorted(bars(3000), Generator().manual_seed(0))
    _, covariance = spread(distorted)
    lean = torch.rad2deg(torch.atan2(covariance[:, 0, 1], covariance[:, 1, 1]))  # of the bar's long side
    farthest = 20 + math.degrees(math.atan(0.2 * 1.2 / 0.8))
    assert farthest - 4 < lean.abs().max() < farthest
    assert lean.mean().abs() < 1
    area = distorted.sum(dim=(1, 2, 3)) / bars(1).sum()
    assert area.min() == pytest.approx(0.8**2, abs=0.05)
    assert area.max() == pytest.approx(1.2**2, abs=0.05)


def test_all_ink_stays_on_the_canvas_and_reaches_each_of_its_edges() -> None:
    distorted = affnist.affine_distorted(bars(3000), Generator().manual_seed(0))
    assert distorted.shape == (3000, 1, 40, 40)
    area = distorted.sum(dim=(1, 2, 3)) / bars(1).sum()
    assert area.min() > 0.8**2 - 0.05, "a bar at an edge is whole"
    inked = distorted[:, 0] > 0
    for edge in (inked[:, 0], inked[:, -1], inked[:, :, 0], inked[:, :, -1]):
        assert edge.any()
    centre, _ = spread(distorted)
    assert (centre.mean(dim=0) - 20).abs().max() < 0.5
    assert torch.corrcoef(centre.T)[0, 1].abs() < 0.1, "both directions are drawn apart"


def test_digits_that_are_not_distorted_are_only_moved() -> None:
    moved = affnist.affine_distorted(bars(500), Generator().manual_seed(0), strength=0.0)
    assert torch.allclose(moved.sum(dim=(1, 2, 3)), bars(1).sum())
    centre, covariance = spread(moved)
    assert torch.allclose(covariance, covariance[:1].expand_as(covariance), atol=1e-3)
    assert centre.std(dim=0).min() > 5


def test_the_ink_can_be_shifted_to_each_edge_and_no_farther() -> None:
    image = torch.zeros(1, 1, 5, 9)
    image[..., 1:3, 4:6] = 1
    least, most = affnist.free_shifts(image)
    assert least.tolist() == [[-4, -1]]
    assert most.tolist() == [[3, 2]]


def exported(recipe: Recipe, folder: Path) -> Path:
    """An untrained network of ``recipe``."""
    run = Untrained.create(folder / "run", recipe, 0, tuple("0123456789"), folder)
    export_run(run, OnnxRuntime(), Destination(folder / "models", recipe.name, 1))
    return folder / "models" / recipe.name / "1"


@pytest.mark.parametrize("recipe", AFFNIST, ids=lambda recipe: recipe.name)
def test_a_network_is_asked_about_shifted_and_distorted_digits(
    recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(change_recipe(recipe, {"localisation": "fcn", "classifier_widths": [4, 4]}), tmp_path)
    monkeypatch.setattr(sys, "argv", ["affnist", str(folder), "--data-root", str(data_root), "--views", "2"])
    affnist.main()
    head, _, *rows = capsys.readouterr().out.splitlines()[-5:]
    assert head == "| model | digits | right | right with 2 views |"
    assert [row.split(" | ")[1] for row in rows] == ["shifted, as in training", "at any place", "affinely distorted"]
    assert all(row.startswith(f"| {folder} |") and row.endswith("% |") for row in rows)


def test_a_network_for_other_pictures_is_refused(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(change_recipe(MNIST_RTS, {"localisation": "fcn", "classifier_widths": [4, 4]}), tmp_path)
    monkeypatch.setattr(sys, "argv", ["affnist", str(folder), "--data-root", str(data_root)])
    with pytest.raises(SystemExit):
        affnist.main()
    assert "train it with the recipe affnist" in capsys.readouterr().err
