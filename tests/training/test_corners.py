"""A folder of pictures with corners and without classes, from the command line to a straightened answer."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.conftest import start_service
from tests.training.data.folder.reading import split
from training.__main__ import main
from training.data.pictures import read_pictures
from training.fitting.runs import Run, begin_run
from training.fitting.trainer import fit
from training.networks.geometry import corner_points
from training.recipes.catalogue import find_recipe
from training.recipes.recipe import change_recipe

SMALL: dict[str, object] = {
    "epochs": 1,
    "batch_size": 8,
    "canvas": [32, 32],
    "view": [24, 24],
    "rectified": [24, 24],
    "classifier_widths": [4, 4],
}


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """Twenty bright cards on dark noise; the corners of most are known, of some a box, of two nothing."""
    root = tmp_path / "cards"
    root.mkdir()
    generator = np.random.default_rng(0)
    rows = [["path", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"]]
    for number in range(20):
        picture = Image.fromarray(generator.integers(0, 60, (60, 80, 3), np.uint8))
        corners = np.array([[20, 15], [60, 15], [60, 45], [20, 45]]) + generator.integers(-8, 9, (4, 2))
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners.tolist()], fill=(230, 220, 180))
        picture.save(root / f"{number}.png")
        if number % 5 == 1:
            rows.append([f"{number}.png", *map(str, [*corners.min(axis=0), *corners.max(axis=0)]), "", "", "", ""])
        elif number % 10:
            rows.append([f"{number}.png", *map(str, corners.flatten())])
    with (root / "corners.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    return root


def test_a_folder_with_corners_and_a_single_class_becomes_a_straightener(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    changes = [argument for name, value in SMALL.items() for argument in ("--set", f"{name}={value}")]
    assert main(["run", "corners", "--data-root", str(cards), "--out", "run", "--model", "cards", *changes]) == 0
    run = Run(tmp_path / "run")
    assert run.info().classes == ("thing",)
    with run.metrics_file.open() as table:
        assert float(next(csv.DictReader(table))["corner_loss"]) > 0
    evaluation = run.evaluation()
    scores = evaluation.corners
    assert scores is not None
    assert scores.after is not None
    assert scores.before is not None
    assert scores.after.overlap > scores.before.overlap, "it starts on the canonical crop"
    assert evaluation.worth is None
    printed = capsys.readouterr().out
    assert "corners are known in 12 train, 3 validation, 3 test pictures" in printed
    assert "corners before" in printed
    assert "test accuracy" not in printed
    report = (run.folder / "report.md").read_text()
    assert f"{scores.after.error_px:.1f} pixels" in report
    assert not (run.pictures / "confusion.png").exists()
    (cards / "corners.csv").unlink()  # the run keeps its own
    assert run.source(cards).test().corners is not None
    manifest = json.loads((tmp_path / "models" / "cards" / "1" / "manifest.json").read_text())
    assert (manifest["classes"], manifest["accuracy"], manifest["transforms"][-1]["kind"]) == (
        ["thing"],
        None,
        "projective",
    )
    with start_service("--models", tmp_path / "models") as service:
        content = (cards / "3.png").read_bytes()
        answer = service.client.post("/rectify", content=content, headers={"content-type": "image/png"})
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-class"], answer.headers["x-probability"]) == ("thing", "1.000000")
        corners = np.array(json.loads(answer.headers["x-corners"]))
        seen = read_pictures([cards / "3.png"], run.info().recipe.canvas, channels=3)
        with torch.inference_mode():
            mapped = run.trained_network()(seen.float() / 255).warps[-1].map(corner_points())
        np.testing.assert_allclose(corners, ((mapped[0] + 1) / 2 * torch.tensor([80, 60])).numpy(), atol=0.05)
        with Image.open(io.BytesIO(answer.content)) as straight:
            widths = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[3])
            assert straight.width == pytest.approx(np.mean(widths), abs=2)


def test_a_wrong_corner_is_told_before_a_run_folder_is_made(
    cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (cards / "corners.csv").open("a") as table:
        table.write("10.png,1,1,2,nan,,,,\n")
    assert main(["run", "corners", "--data-root", str(cards), "--out", str(tmp_path / "run")]) == 1
    assert "corners.csv, line 20: y2 of 10.png is 'nan'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_without_corners_are_trained_as_if_there_were_none(cards: Path, tmp_path: Path) -> None:
    for number in range(20):
        folder = cards / ("even" if number % 2 == 0 else "odd")
        folder.mkdir(exist_ok=True)
        (cards / f"{number}.png").rename(folder / f"{number}.png")
    (cards / "corners.csv").unlink()
    recipe = change_recipe(find_recipe("corners"), SMALL)
    entries = split(cards, recipe)
    weights = []
    for name, part in (("none", None), ("test", "test"), ("all", "train")):
        marked = [entry.path for entry in entries if entry.part == part]
        if marked:
            rows = [f"{path},20,15,60,15,60,45,20,45" for path in marked]
            (cards / "corners.csv").write_text("\n".join(["path,x1,y1,x2,y2,x3,y3,x4,y4", *rows]) + "\n")
        run = begin_run(tmp_path / name, recipe, 0, cards, SMALL)
        fit(run, cards, progress=False)
        weights.append(run.trained_network().state_dict())
    without, tested, trained = weights
    assert all(torch.equal(value, tested[name]) for name, value in without.items())
    assert any(not torch.equal(value, trained[name]) for name, value in without.items())
