"""Drift through the real service: pictures as in training are near the reference, those moved further far from it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.format.artifact import Manifest, Outputs, read_artifact
from service.metrics.drift import Window
from tests.conftest import REPOSITORY, Service, start_service
from tests.service import artifacts
from tests.service.exposed import Exposed, scrape
from tests.service.pictures import ARTIFACT, GOLDEN_ANSWERS, MANIFEST, VERSION, encode
from tests.small_runs import SMALL_MNIST
from training.data.distortions import Placed, similarity_maps, warp_affine
from training.data.random_streams import Stream, seeded

ALERT = (REPOSITORY / "deploy" / "prometheus" / "drift-alerts.yml").read_text()
THRESHOLD = float(re.findall(r"stn_drift_distance\) > ([\d.]+)", ALERT)[0])
CANVAS = (42, 42)
WINDOW = 600
MODEL = {"model": "digits", "version": VERSION}


def digits() -> Tensor:
    """Test digits on the canvas under the distortion that the model was trained with: ``(N, 1, 42, 42)``."""
    with np.load(SMALL_MNIST) as arrays:
        originals = torch.from_numpy(arrays["test_images"])[:, None].float()
    originals = originals.repeat(WINDOW // len(originals), 1, 1, 1)
    how = Placed(CANVAS, 45, (0.7, 1.2))
    drawn = how.draw(len(originals), (28, 28), seeded(Stream.TEST))
    return how.apply(originals, torch.zeros(len(originals)), drawn).images


def moved(degrees: float = 0, scale: float = 1, right: float = 0) -> Tensor:
    """The same, turned up to ``degrees`` more either way, scaled, and shifted by a share of the canvas."""
    pictures = digits()
    turn = (2 * torch.rand(len(pictures), generator=torch.Generator().manual_seed(5)) - 1) * math.radians(degrees)
    shift = torch.tensor([right * CANVAS[1], 0.0]).expand(len(pictures), 2)
    maps = similarity_maps(turn, torch.full_like(turn, scale), shift, CANVAS, CANVAS)
    return warp_affine(pictures, maps, CANVAS)


def show(service: Service, pictures: Tensor) -> Exposed:
    """Send ``pictures``; what is exposed then."""
    files = [("images", encode(picture[0])) for picture in pictures.round().clamp(0, 255).to(torch.uint8).numpy()]
    for start in range(0, len(files), 200):
        answer = service.client.post("/predict/batch?rectified=none", files=files[start : start + 200])
        assert answer.status_code == 200
    return scrape(service)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_service("--drift-window", WINDOW) as running:
        yield running


def test_nothing_is_told_before_enough_was_seen(service: Service) -> None:
    found = show(service, digits()[: WINDOW // 2 - 1])
    assert found("stn_drift_pictures", **MODEL) == WINDOW // 2 - 1
    assert found.by("quantity", "stn_drift_distance") == {}
    assert show(service, digits()[:1]).by("quantity", "stn_drift_distance", **MODEL) != {}


def test_pictures_as_in_training_raise_nothing(service: Service) -> None:
    found = show(service, digits())
    distances = found.by("quantity", "stn_drift_distance", **MODEL)
    reference = MANIFEST.reference
    assert reference is not None
    assert distances.keys() == {distribution.quantity for distribution in reference.distributions}
    assert max(distances.values()) < THRESHOLD
    assert found("stn_drift_pictures", **MODEL) == WINDOW
    usual = found.by("quantity", "stn_drift_reference_mean", **MODEL)
    seen = found.by("quantity", "stn_drift_mean", **MODEL)
    assert seen.keys() == usual.keys() == distances.keys() - {"classes"}
    assert seen["scale"] == pytest.approx(usual["scale"], abs=0.05)


@pytest.mark.parametrize(
    ("how", "quantity"),
    [({"degrees": 120}, "rotation"), ({"right": 0.3}, "shift_x"), ({"scale": 0.6}, "scale")],
    ids=["turned", "shifted", "smaller"],
)
def test_pictures_moved_further_than_in_training_raise_it_and_ordinary_ones_end_it(
    service: Service, how: dict[str, float], quantity: str
) -> None:
    found = show(service, moved(**how))
    assert found("stn_drift_distance", quantity=quantity, **MODEL) > THRESHOLD
    over = show(service, digits())
    assert max(over.by("quantity", "stn_drift_distance", **MODEL).values()) < THRESHOLD
    assert over.by("quantity", "stn_drift_distance", model="signs") == {}, "each model has its own"


def test_one_class_alone_raises_that_of_classes(service: Service) -> None:
    found = show(service, digits()[:1].repeat(WINDOW, 1, 1, 1))
    assert found("stn_drift_distance", quantity="classes", **MODEL) > THRESHOLD


def test_a_model_without_a_reference_has_none(tmp_path: Path) -> None:
    older = MANIFEST.model_copy(update={"reference": None})
    artifacts.write(tmp_path / "digits" / "1", older)
    with start_service("--models", tmp_path, "--drift-window", 2) as service:
        found = show(service, digits()[:10])
    assert found("stn_batch_size_sum") == 10
    assert not [name for name, _ in found.samples if name.startswith("stn_drift")]


def test_a_window_of_one_picture_tells_nothing_before_there_is_one() -> None:
    with start_service("--drift-window", 1) as service:
        assert scrape(service).by("quantity", "stn_drift_distance") == {}
        assert show(service, digits()[:3])("stn_drift_pictures", **MODEL) == 1


def test_it_can_be_switched_off() -> None:
    with start_service("--drift-window", 0) as service:
        found = show(service, digits()[:10])
    assert not [name for name, _ in found.samples if name.startswith("stn_drift")]


def window(manifest: Manifest = MANIFEST, size: int = 4) -> Window:
    assert manifest.reference is not None
    return Window(manifest, manifest.reference, size)


def batch(*rows: int) -> Outputs:
    return {name: np.asarray(output)[list(rows)] for name, output in GOLDEN_ANSWERS.items()}


def turned(window: Window) -> float:
    """Sum of the rotations in ``window``."""
    names = [distribution.quantity for distribution in window.distributions]
    return window.observed()[names.index("rotation")].total


def test_only_the_last_pictures_count_however_they_came_in_batches() -> None:
    one, other = window(), window()
    for rows in ((0, 1, 2), (3,), (0, 1), (2, 2)):
        one.observe(batch(*rows))
    one.observed()
    one.observe(batch(3, 1))
    other.observe(batch(0, 1, 2, 3, 0, 1, 2, 2, 3, 1))
    only = window()
    only.observe(batch(2, 2, 3, 1))
    assert [shown.counts for shown in one.observed()] == [shown.counts for shown in only.observed()]
    assert turned(one) == pytest.approx(turned(only)) == pytest.approx(turned(other))
    assert sum(one.observed()[0].counts) == 4


def test_answers_that_are_no_numbers_show_nothing() -> None:
    broken = batch(0, 1)
    theta: NDArray[np.float32] = broken["theta"].copy()
    theta[0] = np.nan
    seen, alone = window(), window()
    seen.observe(broken | {"theta": theta})
    alone.observe(batch(1))
    assert seen.observed() == alone.observed()


def test_a_reference_that_speaks_of_what_the_model_has_not_is_left_aside() -> None:
    reference = MANIFEST.reference
    assert reference is not None
    foreign = tuple(d.model_copy(update={"transform": "none"}) for d in reference.distributions)
    more = reference.model_copy(update={"distributions": foreign + reference.distributions})
    strange = Window(MANIFEST, more, 4)
    strange.observe(batch(0, 1))
    ours = window()
    ours.observe(batch(0, 1))
    assert strange.observed()[-5:] == ours.observed()[-5:]
    assert {d.transform for d in strange.distributions} == {"", "transformer"}


def test_the_bundled_models_reference_is_that_of_their_file() -> None:
    assert read_artifact(ARTIFACT.folder / "model.onnx").manifest.reference == MANIFEST.reference
