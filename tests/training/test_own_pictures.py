"""A folder of one's own pictures, from the command line to an exported model."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.small_runs import begin
from training.__main__ import main, show_split
from training.fitting.runs import Run, begin_run
from training.fitting.trainer import fit
from training.recipes.photographs import MY_IMAGES
from training.recipes.recipe import Recipe, change_recipe

SMALL: dict[str, object] = {"epochs": 2, "classifier_width": 4, "classifier_stages": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 noisy pictures: bright to the left, and bright to the right."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for side, name in enumerate(("left", "right")):
        (root / name).mkdir()
        for number in range(24):
            pixels = generator.integers(0, 80, (40, 40, 3), np.uint8)
            pixels[:, 20 * side : 20 * side + 20] += 150
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_folder_becomes_a_trained_evaluated_and_exported_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    changes = [argument for name, value in SMALL.items() for argument in ("--set", f"{name}={value}")]
    assert main(["run", "my-images", "--data-root", str(pictures), "--out", "run", *changes]) == 0
    printed = capsys.readouterr().out
    assert "left" in printed
    assert "32x32" in printed
    run = Run(tmp_path / "run")
    assert run.info().classes == ("left", "right")
    assert run.evaluation().pictures == 8
    assert (run.folder / "report.md").is_file()
    manifest = json.loads((tmp_path / "models" / "my-images" / "1" / "manifest.json").read_text())
    assert manifest["classes"] == ["left", "right"]


def as_parquet(pictures: Path, root: Path) -> None:
    """The pictures without directories, and a table."""
    files = sorted(pictures.glob("*/*.png"))
    root.mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, root / f"{number}.png")
    rows = {"path": [f"{number}.png" for number in range(len(files))], "label": [file.parent.name for file in files]}
    pq.write_table(pa.table(rows), root / "labels.parquet")


def as_shards(pictures: Path, root: Path) -> None:
    """The same pictures in two tars."""
    root.mkdir()
    for number in range(2):
        with tarfile.open(root / f"{number}.tar", "w") as archive:
            for side, name in enumerate(("left", "right")):
                for file in sorted((pictures / name).iterdir())[number::2]:
                    archive.add(file, f"{side}{file.name}")
                    label = tarfile.TarInfo(f"{side}{file.stem}.cls")
                    label.size = len(name)
                    archive.addfile(label, io.BytesIO(name.encode()))


@pytest.mark.parametrize("write", [as_parquet, as_shards])
def test_a_table_and_shards_are_trained_on_as_directories_are(
    write: Callable[[Path, Path], None], pictures: Path, tmp_path: Path
) -> None:
    write(pictures, tmp_path / "others")
    changes = {**SMALL, "epochs": 1, "stream": True}
    run = begin_run(tmp_path / "run", change_recipe(MY_IMAGES, changes), 0, tmp_path / "others", changes)
    assert (run.info().classes, run.info().recipe.canvas) == (("left", "right"), (32, 32))
    fit(run, tmp_path / "others", progress=False)
    assert run.trained_network().recipe.epochs == 1
    assert run.source(tmp_path / "others").test().labels.bincount().tolist() == [4, 4]


def test_classes_are_told_by_the_names_that_they_have(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, label in (("left", "[red]"), ("right", "[bold]right")):
        shutil.copytree(pictures / name, tmp_path / "pictures" / label)
    run = begin_run(tmp_path / "run", change_recipe(MY_IMAGES, SMALL), 0, tmp_path / "pictures", SMALL)
    show_split(run)
    printed = capsys.readouterr().out
    assert "[red]" in printed
    assert "[bold]right" in printed


def test_a_run_keeps_its_split_when_pictures_are_added(pictures: Path, tmp_path: Path) -> None:
    run = begin_run(tmp_path / "run", change_recipe(MY_IMAGES, SMALL), 0, pictures, SMALL)
    before = [part.labels.tolist() for part in run.source(pictures).training()]
    Image.new("RGB", (40, 40)).save(pictures / "left" / "later.png")
    after = [part.labels.tolist() for part in run.source(pictures).training()]
    (pictures / "left" / "later.png").unlink()
    assert before == after


def test_a_mistake_is_told_before_a_run_folder_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures" / "only").mkdir(parents=True)
    out = tmp_path / "run"
    assert main(["run", "my-images", "--data-root", str(tmp_path / "pictures"), "--out", str(out)]) == 1
    assert "at least two classes" in capsys.readouterr().err
    assert not out.exists()


def test_a_data_set_that_recipes_name_needs_no_split(small_recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    assert not run.split_file.exists()
    assert len(run.source(data_root).test().labels) == 200


def test_augmentation_reaches_the_network(pictures: Path, tmp_path: Path) -> None:
    losses = []
    for name, light in (("plain", 0.0), ("lit", 2.0)):
        recipe = change_recipe(
            MY_IMAGES, {**SMALL, "epochs": 1, "upright": 0.0, "area": 0.0, "augmentation.light": light}
        )
        run = begin_run(tmp_path / name, recipe, 0, pictures, SMALL)
        fit(run, pictures, progress=False)
        losses.append(run.metrics_file.read_text().splitlines()[1])
    assert losses[0] != losses[1]
