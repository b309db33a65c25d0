from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.networks import CANVAS, build, small
from tests.small_runs import begin
from training.data.batches import distortion
from training.errors import RunError
from training.fitting.runs import Run
from training.fitting.trainer import fit
from training.networks.geometry import affine_points
from training.networks.spatial import Warp
from training.recipes.recipe import Recipe, change_recipe
from training.reports.animate import FRAMES, SIDE, animate_run, path
from training.reports.evaluation import evaluate
from training.reports.outlines import EDGE_POINTS, border, rectified_figure
from training.reports.report import write_report
from training.reports.visualise import draw_run, read_metrics


def corners(theta: list[list[float]], height: int, width: int) -> NDArray[np.float32]:
    """Of the outline that is drawn for an affine map, in pixels: ``(4, 2)``."""
    matrix = torch.tensor([theta])
    nothing = torch.empty(0)
    warp = Warp(matrix, matrix, nothing, nothing, nothing, partial(affine_points, matrix))
    points = border(warp, height, width)[0]
    assert len(points) == 4 * (EDGE_POINTS + 1)
    found: NDArray[np.float32] = points[:: EDGE_POINTS + 1]
    return found


def test_the_identity_outlines_the_whole_picture() -> None:
    outline = corners([[1, 0, 0], [0, 1, 0]], height=42, width=60)
    np.testing.assert_allclose(outline, [[0, 0], [60, 0], [60, 42], [0, 42]])


def test_a_known_theta_outlines_the_region_it_reads() -> None:
    outline = corners([[0.5, 0.0, 0.25], [0.0, 0.5, -0.5]], height=40, width=40)
    np.testing.assert_allclose(outline, [[15, 0], [35, 0], [35, 20], [15, 20]])


def test_a_quarter_turn_starts_at_the_corner_that_becomes_top_left() -> None:
    np.testing.assert_allclose(corners([[0, -1, 0], [1, 0, 0]], 10, 10)[0], [10, 0])


def test_a_run_gets_its_pictures(trained_run: Run, data_root: Path) -> None:
    files = draw_run(trained_run, data_root)
    assert {file.name for file in files} == {
        "rectified.png",
        "curves.png",
        "confusion.png",
        "confused.png",
        "theta.png",
        "reliability.png",
        "means.png",
    }
    for file in files:
        with Image.open(file) as picture:
            assert picture.width > 300
            assert picture.convert("L").getextrema() != (255, 255)


def test_answers_below_pictures_are_as_sure_as_those_of_the_service() -> None:
    images = torch.randint(0, 256, (3, 1, *CANVAS), dtype=torch.uint8)
    network = build(small()).eval()
    with torch.inference_mode():
        sure = (network(images.float() / 255).logits / 0.25).softmax(dim=1).max(dim=1).values
    figure = rectified_figure(images, network, tuple("abcdefghij"), temperature=0.25)
    told = [axes.get_xlabel().split()[-1] for axes in figure.axes[-3:]]
    assert told == [f"{share:.1%}" for share in sure.tolist()]


@pytest.mark.parametrize("table", [None, "", "epoch,train_loss\n", "epoch,train_loss\n0,0.5\n", "epoch\nfirst\n"])
def test_a_table_of_metrics_that_is_damaged_or_missing_is_named(table: str | None, tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    if table is not None:
        file.write_text(table)
    with pytest.raises(RunError, match=r"metrics\.csv has no metrics; continue the run with --resume"):
        read_metrics(file)


def test_a_run_gets_its_moving_pictures(trained_run: Run, data_root: Path) -> None:
    epochs, moving = animate_run(trained_run, data_root)
    with Image.open(epochs) as picture:
        assert (getattr(picture, "n_frames", 1), picture.size) == (2, (10 * SIDE, 2 * SIDE))
    with Image.open(moving) as picture:
        assert picture.size == (2 * SIDE, SIDE)
        assert getattr(picture, "n_frames", 1) > FRAMES / 2, "most frames differ from the one before"


@pytest.mark.parametrize(
    ("name", "canvas"), [("r", 28), ("rts", 42), ("p", 42), ("e", 28), ("tc", 60), ("addition", 42)]
)
def test_a_moving_picture_moves_smoothly_and_ends_where_it_began(name: str, canvas: int, small_recipe: Recipe) -> None:
    channels = [0.1] * (2 if name == "addition" else 1)
    changes: dict[str, object] = {"distortion": name, "canvas": [canvas, canvas], "mean": channels, "std": channels}
    image = torch.zeros(1, 1, 28, 28)
    image[:, :, 8:20, 10:18] = 255
    moved = path(distortion(change_recipe(small_recipe, changes)), image, torch.zeros(1, dtype=torch.int64)).images
    assert len(moved) == FRAMES

    def step(before: Tensor, after: Tensor) -> float:
        return float((before - after).abs().mean())

    steps = [step(moved[frame - 1], moved[frame]) for frame in range(FRAMES)]
    assert max(steps) > 0
    assert steps[0] <= 3 * float(np.median(steps)) + 1, "the last frame leads back to the first one"


def test_a_report_shows_every_picture_and_the_figures(trained_run: Run, data_root: Path) -> None:
    text = write_report(trained_run, data_root).read_text()
    for name in ("rectified.png", "moving.gif", "epochs.gif", "theta.png", "curves.png", "confusion.png", "means.png"):
        assert f"(pictures/{name})" in text
        assert (trained_run.folder / "pictures" / name).is_file()
    evaluation = trained_run.evaluation()
    assert f"{evaluation.accuracy:.2%} of 200 pictures" in text
    assert evaluation.uprightness is not None
    assert f"{evaluation.uprightness.rotation_deg:.1f} degrees" in text
    assert evaluation.worth is not None
    assert f"{evaluation.worth.mean_theta:.2%} with its mean" in text
    assert f"without it {abs(100 * evaluation.worth.lost):.2f} points are" in text


def test_a_network_without_a_transformer_gets_the_pictures_that_it_has(
    small_recipe: Recipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = change_recipe(small_recipe, {"epochs": 1, "transformer": "none", "scene": "(left|right)"})
    run = begin(tmp_path / "run", recipe)
    fit(run, data_root, progress=False)
    evaluate(run, data_root)
    text = write_report(run, data_root).read_text()
    assert r"| scene | (left\|right) |" in text
    assert "rectified.png" in text
    assert "theta.png" not in text
    assert "means.png" not in text
    assert "the transformer is" not in text
    assert "gif" not in text


def test_a_run_that_was_not_evaluated_has_no_report(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        write_report(begin(tmp_path / "run", small_recipe), data_root)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_damaged_snapshots_are_named(content: bytes, small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.snapshots_file.write_bytes(content)
    with pytest.raises(RunError, match=r"cannot read .*snapshots\.npz"):
        animate_run(run, data_root)
