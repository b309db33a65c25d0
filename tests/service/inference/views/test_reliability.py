"""What follows the views of a picture can be trusted; what has no up cannot be told."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import imaging.views
import service.schemas.options
from export.format.artifact import Manifest
from service.inference.engine import Answer, Engine
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import Reliability
from service.repository.startup import load_models
from service.settings import load_settings
from tests.service.pictures import ARTIFACT, DIGIT_MODEL, HEIGHT, MANIFEST, WIDTH, Grey, encode, noise


def answers(pictures: Sequence[NDArray[np.uint8]], views: ViewOptions, manifest: Manifest = MANIFEST) -> list[Answer]:
    settings = load_settings(["--models", str(ARTIFACT.model_file), "--device", "cpu"], {})

    async def predict() -> list[Answer]:
        models = load_models(settings)
        models.serve([model._replace(manifest=manifest) for model in models])
        async with Engine(models, settings) as engine:
            return [await engine.predict(engine.find(), encode(picture), views=views) for picture in pictures]

    return asyncio.run(predict())


def told(*pictures: NDArray[np.uint8]) -> list[Reliability]:
    found = [answer.reliability for answer in answers(pictures, ViewOptions(reliability=16))]
    return [each for each in found if each is not None]


def sample(label: str, turned: float = 0) -> Grey:
    with Image.open(DIGIT_MODEL / "samples" / f"{label}.png") as image:
        return np.asarray(image.convert("L").rotate(turned))


def disc(radius: float) -> Grey:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    grey: Grey = np.rint(255 * np.clip(radius + 0.5 - np.hypot(x - WIDTH / 2, y - HEIGHT / 2), 0, 1)).astype(np.uint8)
    return grey


def test_upright_digits_can_be_trusted() -> None:
    for found in told(*map(sample, "012679")):
        assert found.angle_follows
        assert found.label_agreement > 0.9
        assert found.corner_deviation_px < 2
        assert found.angle_deviation_deg < 8
        assert found.score is not None
        assert found.score > 0.9
        assert found.within_px is not None
        assert 1 < found.within_px < 6


def test_discs_and_blank_pictures_have_no_up() -> None:
    blank = [np.full((HEIGHT, WIDTH), level, np.uint8) for level in (0, 255)]
    for found in told(disc(9), disc(12), *blank):
        assert not found.angle_follows
        assert found.angle_deviation_deg > 10
        assert found.score is None


def test_a_six_that_lies_may_be_a_nine() -> None:
    upright, lying, turned = told(sample("6"), sample("6", 60), sample("6", 180))
    assert upright.angle_follows
    assert turned.angle_follows, "it is a nine"
    assert not lying.angle_follows
    assert lying.label_agreement < 0.8
    assert lying.score is None


def test_pixels_are_those_of_the_upload() -> None:
    small = sample("2")
    one, large = told(small, np.kron(small, np.ones((5, 5), np.uint8)))
    assert large.corner_deviation_px == pytest.approx(5 * one.corner_deviation_px, rel=0.2)
    assert large.score == pytest.approx(one.score, abs=0.02)


def test_without_calibration_there_is_no_score() -> None:
    bare = MANIFEST.model_copy(update={"reliability": None})
    (answer,) = answers([sample("2")], ViewOptions(reliability=4), bare)
    found = answer.reliability
    assert found is not None
    assert found.angle_follows
    assert (found.score, found.within_px) == (None, None)


def test_averaged_probabilities_are_those_of_the_picture_and_its_views() -> None:
    picture = noise(3)
    (plain,), (averaged,) = answers([picture], ViewOptions()), answers([picture], ViewOptions(averaged=4))
    assert plain.batch_size == 1
    assert averaged.batch_size == 5
    rows = averaged.output.outputs[MANIFEST.probabilities]
    expected = rows.mean(axis=0)
    np.testing.assert_allclose(averaged.output.probabilities, np.sort(expected)[::-1], atol=1e-6)
    assert averaged.output.ranking[0] == expected.argmax()
    assert averaged.output.transforms[0].theta == pytest.approx(np.array(plain.output.transforms[0].theta), abs=1e-5)
    assert averaged.reliability is None
    assert averaged.probability < plain.probability


def test_all_views_that_may_be_asked_for_exist() -> None:
    assert service.schemas.options.MOST_VIEWS == imaging.views.MOST_VIEWS


def test_both_uses_share_the_views() -> None:
    picture = noise(4)
    (both,) = answers([picture], ViewOptions(reliability=4, averaged=8))
    (alone,) = answers([picture], ViewOptions(averaged=8))
    assert both.batch_size == alone.batch_size == 9
    assert both.reliability is not None
    assert both.reliability.views == 4
    np.testing.assert_allclose(both.output.probabilities, alone.output.probabilities, atol=1e-6)
