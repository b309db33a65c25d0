import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.format.artifact import ArtifactError
from service.repository.plan import Change
from service.repository.poller import LONGEST_RETRY_S, Poller, scan_folder
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
    """A poller that has seen the folder as it is."""
    poller = Poller(Settings.model_validate({"models": models, **settings}))
    poller.changes(scan_folder(models))
    assert poller.changes(scan_folder(models)) == []
    return poller


def test_at_first_everything_is_a_change(models: Path) -> None:
    poller = Poller(Settings(models=models))
    assert poller.changes(scan_folder(models)) == [Change("digits", EVERYTHING), Change("signs", EVERYTHING)]


def test_a_new_version_and_a_new_model_are_changes_once(models: Path) -> None:
    poller = settled(models)
    put(models, "digits", 2)
    put(models, "letters", 1)
    assert poller.changes(scan_folder(models)) == [Change("digits", EVERYTHING), Change("letters", EVERYTHING)]
    assert poller.changes(scan_folder(models)) == []


def test_a_change_that_failed_is_one_again_after_a_growing_pause(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 0.0
    monkeypatch.setattr("service.repository.poller.time.monotonic", lambda: moment)
    poller = settled(models, poll_s=10)
    for pause_s in (20, 40, 80):
        poller.record_outcome("digits", failed=True)
        moment += pause_s - 1
        assert poller.changes(scan_folder(models)) == []
        moment += 1
        assert poller.changes(scan_folder(models)) == [Change("digits", EVERYTHING)]
    poller.record_outcome("digits", failed=False)
    moment += LONGEST_RETRY_S
    assert poller.changes(scan_folder(models)) == []


def test_a_version_that_is_replaced_is_a_change(models: Path) -> None:
    poller = settled(models)
    before = (models / "digits" / "1" / "model.onnx").stat()
    put(models, "digits", 1, "nodel")
    os.utime(models / "digits" / "1" / "model.onnx", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert poller.changes(scan_folder(models)) == [Change("digits", EVERYTHING)]


def test_a_version_that_the_policy_leaves_out_is_no_change(models: Path) -> None:
    put(models, "digits", 5)
    poller = settled(models, versions="latest")
    put(models, "digits", 4)
    assert poller.changes(scan_folder(models)) == []


def test_a_model_whose_folder_goes_is_unloaded_but_not_when_all_go(models: Path) -> None:
    poller = settled(models)
    shutil.rmtree(models / "digits")
    assert poller.changes(scan_folder(models)) == [Change("digits", None)]
    shutil.rmtree(models / "signs")
    assert poller.changes(scan_folder(models)) == [], "a disk that is gone looks like this"
    models.rmdir()
    with pytest.raises(ArtifactError, match="cannot read the models folder"):
        scan_folder(models)


def test_a_model_outside_the_start_up_set_is_left_alone_until_somebody_loads_it(models: Path) -> None:
    poller = settled(models, load="signs")
    put(models, "digits", 2)
    assert poller.changes(scan_folder(models)) == []
    poller.record_request(Change("digits", Policy(latest=1)))
    assert poller.changes(scan_folder(models)) == [Change("digits", Policy(latest=1))]


def test_a_model_that_somebody_unloaded_stays_so(models: Path) -> None:
    poller = settled(models)
    poller.record_request(Change("digits", None))
    put(models, "digits", 2)
    assert poller.changes(scan_folder(models)) == []


def test_a_model_whose_folder_cannot_be_read_stays_as_it_is_and_holds_up_no_other(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = settled(models)
    put(models, "signs", 2)
    listed = Path.iterdir

    def fail_for_digits(folder: Path) -> Iterator[Path]:
        if folder.name == "digits":
            raise OSError(errno.EIO, "Input/output error")
        return listed(folder)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "iterdir", fail_for_digits)
        assert poller.changes(scan_folder(models)) == [Change("signs", EVERYTHING)]
    assert poller.changes(scan_folder(models)) == []


def test_a_change_that_could_not_be_applied_is_reported_again(models: Path) -> None:
    poller = settled(models)
    poller.mark_outdated("digits")
    assert poller.changes(scan_folder(models)) == [Change("digits", EVERYTHING)]
    assert poller.changes(scan_folder(models)) == []
    shutil.rmtree(models / "digits")
    poller.mark_outdated("digits")
    assert poller.changes(scan_folder(models)) == [Change("digits", None)]
