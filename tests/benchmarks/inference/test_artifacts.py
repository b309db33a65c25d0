"""What the speed benchmarks serve."""

from pathlib import Path

import pytest

from benchmarks.inference import artifacts
from service.repository.startup import load_models
from service.settings import Settings


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("benchmarks") / "models"
    artifacts.main(models)
    return models


def test_untrained_models_can_be_served(exported: Path) -> None:
    models = load_models(Settings(models=exported, device="cpu"))

    sizes = {model.name: (model.manifest.input.height, model.manifest.input.channels) for model in models}
    assert sizes == {"light": (42, 1), "signs": (48, 3)}


def test_they_are_made_once(exported: Path) -> None:
    made = (exported / "light" / "1" / "manifest.json").stat().st_mtime_ns

    artifacts.main(exported)

    assert (exported / "light" / "1" / "manifest.json").stat().st_mtime_ns == made
