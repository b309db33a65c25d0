import os
import shutil
from pathlib import Path

import pytest

from service.repository.plan import Change
from service.repository.poller import Poller
from service.repository.version_policy import Policy
from service.settings import Settings

EVERYTHING = Policy()


def put(models: Path, name: str, version: int, content: str = "model") -> Path:
    folder = models / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(content)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    put(tmp_path, "digits", 1)
    put(tmp_path, "signs", 1)
    return tmp_path


def settled(models: Path, **settings: object) -> Poller:
    """A watch that has seen what there is."""
    watch = Poller(Settings.model_validate({"models": models, **settings}))
    watch.changes()
    assert watch.changes() == []
    return watch


def test_at_first_everything_is_a_change(models: Path) -> None:
    assert Poller(Settings(models=models)).changes() == [Change("digits", EVERYTHING), Change("signs", EVERYTHING)]


def test_a_new_version_and_a_new_model_are_changes_once(models: Path) -> None:
    watch = settled(models)
    put(models, "digits", 2)
    put(models, "letters", 1)
    assert watch.changes() == [Change("digits", EVERYTHING), Change("letters", EVERYTHING)]
    assert watch.changes() == []


def test_a_version_that_is_replaced_is_a_change(models: Path) -> None:
    watch = settled(models)
    before = (models / "digits" / "1" / "model.onnx").stat()
    put(models, "digits", 1, "nodel")
    os.utime(models / "digits" / "1" / "model.onnx", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert watch.changes() == [Change("digits", EVERYTHING)]


def test_a_version_that_the_policy_leaves_out_is_no_change(models: Path) -> None:
    put(models, "digits", 5)
    watch = settled(models, versions="latest")
    put(models, "digits", 4)
    assert watch.changes() == []


def test_a_model_whose_folder_goes_is_unloaded_but_not_when_all_go(models: Path) -> None:
    watch = settled(models)
    shutil.rmtree(models / "digits")
    assert watch.changes() == [Change("digits", None)]
    shutil.rmtree(models / "signs")
    assert watch.changes() == [], "a disk that is gone looks like this"
    models.rmdir()
    assert watch.changes() == []


def test_a_model_outside_the_start_up_set_is_left_alone_until_somebody_loads_it(models: Path) -> None:
    watch = settled(models, load="signs")
    put(models, "digits", 2)
    assert watch.changes() == []
    watch.note(Change("digits", Policy(latest=1)))
    assert watch.changes() == [Change("digits", Policy(latest=1))]


def test_a_model_that_somebody_unloaded_stays_so(models: Path) -> None:
    watch = settled(models)
    watch.note(Change("digits", None))
    put(models, "digits", 2)
    assert watch.changes() == []
