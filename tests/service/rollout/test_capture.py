"""Pictures are captured from live requests of the application."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import SettingsError
from service.settings import Settings
from tests.conftest import wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, prediction
from tests.service.exposed import Exposed
from tests.service.pictures import encode, noise
from training.data.folder.labels import COLUMNS, Labelled, read_labels
from training.data.folder.tables import read_csv


def settings(tmp_path: Path, **options: Any) -> Settings:
    given = {
        "models": tmp_path / "models",
        "capture": str(tmp_path / "captured"),
        "capture_share": 1.0,
        "device": "cpu",
    }
    return Settings.model_validate(given | options)


def captured(client: TestClient, outcome: str = "written") -> float:
    return Exposed(client.get("/metrics").text)("stn_captured_pictures_total", outcome=outcome)


def labelled(folder: Path) -> list[Labelled]:
    """What training reads from the folder."""
    return read_labels(folder, read_csv(folder / "labels.csv", COLUMNS))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    artifacts.write(tmp_path / "models" / "digits" / "1")
    return tmp_path / "models"


def test_a_picture_of_which_the_model_is_not_sure_is_captured_and_another_is_not(tmp_path: Path, models: Path) -> None:
    unsure = encode(noise(1))
    with TestClient(create_app(settings(tmp_path))) as client:
        answer = prediction(client.post("/predict", content=PICTURE))
        assert answer["predictions"][0]["probability"] > 0.9
    with TestClient(create_app(settings(tmp_path, capture_below=1.0))) as client:
        answer = prediction(client.post("/predict", content=unsure))
        wait_until(lambda: captured(client) == 1)
        client.post("/predict", params={"region": "0,0,20,20"}, content=PICTURE)
        client.post("/predict", content=unsure)
        wait_until(lambda: captured(client, "known") == 1)
    (row,) = labelled(tmp_path / "captured" / "digits")
    assert row.label == answer["predictions"][0]["label"]
    assert (tmp_path / "captured" / "digits" / row.path).read_bytes() == unsure


def test_a_picture_of_low_reliability_is_captured_if_that_was_asked_for(tmp_path: Path, models: Path) -> None:
    below = 0.997
    with TestClient(create_app(settings(tmp_path, capture_below=below))) as client:
        client.post("/predict", content=PICTURE)
        answer = prediction(client.post("/predict", params={"reliability": 8}, content=PICTURE))
        assert answer["reliability"]["score"] < below < answer["predictions"][0]["probability"]
        wait_until(lambda: captured(client) == 1)
        assert captured(client, "known") == 0, "the first request did not ask"


def test_a_picture_on_which_two_versions_disagree_is_captured_under_the_live_answer(
    tmp_path: Path, models: Path
) -> None:
    artifacts.write_labelled(models / "digits" / "2", "other-")
    rollout = {"rollout": "digits/2", "rollout_shadow": 1.0, "capture_below": 0.0}
    with TestClient(create_app(settings(tmp_path, **rollout))) as client:

        def sent() -> bool:
            assert prediction(client.post("/predict", content=PICTURE))["model"]["version"] == 1
            return captured(client) == 1

        wait_until(sent)
    (row,) = labelled(tmp_path / "captured" / "digits")
    assert row.label == "7"


def test_a_folder_that_cannot_be_written_to_ends_the_start(tmp_path: Path, models: Path) -> None:
    (tmp_path / "captured").write_text("no folder")
    with pytest.raises(SettingsError, match="cannot write to --capture"), TestClient(create_app(settings(tmp_path))):
        pass


def test_a_table_that_cannot_be_read_ends_the_start(tmp_path: Path, models: Path) -> None:
    with TestClient(create_app(settings(tmp_path, capture_below=1.0))) as client:
        client.post("/predict", content=encode(noise(1)))
        wait_until(lambda: captured(client) == 1)
    (tmp_path / "captured" / "digits" / "labels.csv").write_bytes(b"path,label\n7/a.png,Stra\xdfe\n")
    with (
        pytest.raises(SettingsError, match=r"cannot use --capture .*labels\.csv cannot be read .* in UTF-8"),
        TestClient(create_app(settings(tmp_path))),
    ):
        pass


def test_a_disk_that_fails_is_counted_and_costs_no_answer(tmp_path: Path, models: Path) -> None:
    with TestClient(create_app(settings(tmp_path, capture_below=1.0))) as client:
        label = prediction(client.post("/predict", content=PICTURE))["predictions"][0]["label"]
        wait_until(lambda: captured(client) == 1)
        (file,) = (tmp_path / "captured" / "digits" / label).iterdir()
        file.unlink()
        (tmp_path / "captured" / "digits" / label).rmdir()
        (tmp_path / "captured" / "digits" / label).write_text("in the way")
        prediction(client.post("/predict", content=PICTURE))
        wait_until(lambda: captured(client, "failed") == 1)
        assert Exposed(client.get("/metrics").text)("stn_background_failures_total", task="capture") == 1
