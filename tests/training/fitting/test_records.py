import tempfile
from pathlib import Path

import pytest
import torch

from tests.small_runs import begin
from training.fitting.records import CheckpointFiles
from training.fitting.trainer import fit
from training.recipes.recipe import Recipe, change_recipe


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, content: bytes) -> None:
        with file.open("wb") as opened:
            opened.write(content[:10])
        raise OSError("no space left on device")

    last = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFiles().save_checkpoint({"epoch": 0}, last)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        CheckpointFiles().save_checkpoint({"epoch": 1}, last)
    assert torch.load(last, weights_only=True) == {"epoch": 0}
    assert list(last.parent.iterdir()) == [last]


def test_checkpoints_are_not_written_to_the_folder_of_temporary_files(
    small_recipe: Recipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    run = begin(tmp_path / "run", change_recipe(small_recipe, {"epochs": 1}))
    fit(run, data_root, progress=False)
    assert {file.name for file in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
