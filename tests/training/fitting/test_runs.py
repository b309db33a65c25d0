from pathlib import Path

import pytest
import torch

from tests.small_runs import begin
from training.errors import RunError
from training.fitting.runs import Run
from training.recipes.recipe import Recipe


def test_a_run_remembers_what_it_was_begun_with(small_recipe: Recipe, tmp_path: Path) -> None:
    info = begin(tmp_path / "run", small_recipe, seed=5).info()
    assert (info.recipe, info.seed, info.classes, info.channels) == (small_recipe, 5, tuple("0123456789"), 1)
    assert info.network_parameters == sum(p.numel() for p in info.network().parameters())


def test_a_run_knows_where_its_data_set_was_unless_told_otherwise(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = begin(tmp_path / "run", small_recipe, data_root=Path("here"))
    assert run.data_root() == tmp_path / "here"
    assert run.data_root(Path("there")) == Path("there")


def test_runs_of_older_versions_are_read() -> None:
    for file in (Path(__file__).parents[3] / "docs" / "results").rglob("run.json"):
        assert Run(file.parent).data_root() == Path("data")
        assert Run(file.parent).info().model is None


def test_a_folder_in_use_is_never_written_to(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="--out"):
        begin(tmp_path, small_recipe)
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]


def test_what_was_begun_can_be_taken_back(small_recipe: Recipe, tmp_path: Path) -> None:
    begin(tmp_path / "made" / "run", small_recipe).take_back()
    assert not (tmp_path / "made" / "run").exists()
    (tmp_path / "found").mkdir()
    begin(tmp_path / "found", small_recipe).take_back()
    assert list((tmp_path / "found").iterdir()) == []


def test_nothing_is_taken_back_where_there_is_more(small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    (run.folder / "notes.txt").write_text("mine")
    run.take_back()
    assert {file.name for file in run.folder.iterdir()} == {"notes.txt", "run.json"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--out"):
        begin(tmp_path / "file" / "run", small_recipe)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is this a run folder"):
        Run(tmp_path).info()


def test_a_damaged_run_file_is_named(small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.info_file.write_text(run.info_file.read_text()[:-20])
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run.info()


def test_what_was_not_evaluated_says_how_to(small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    for read in (run.evaluation, run.samples):
        with pytest.raises(RunError, match="python -m training evaluate"):
            read()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_damaged_samples_say_how_to_make_them_again(content: bytes, small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.samples_file.write_bytes(content)
    with pytest.raises(RunError, match=r"samples\.npz; run: python -m training evaluate"):
        run.samples()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(content: bytes, small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.checkpoints.mkdir()
    run.best_checkpoint.write_bytes(content)
    with pytest.raises(RunError, match=r"best\.ckpt"):
        run.trained_network()


def test_a_checkpoint_that_is_none_is_named(small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.checkpoints.mkdir()
    torch.save([1], run.best_checkpoint)
    with pytest.raises(RunError, match=r"best\.ckpt"):
        run.trained_network()


def test_a_checkpoint_of_another_network_is_refused(small_recipe: Recipe, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small_recipe)
    run.checkpoints.mkdir()
    torch.save({"state_dict": {"network.other": torch.zeros(1)}}, run.best_checkpoint)
    with pytest.raises(RunError, match="does not fit"):
        run.trained_network()
