"""Where the corners are not reliable, they are those of a second look, and the class stays that of the first."""

import asyncio
from time import perf_counter

import numpy as np
import pytest

from export.format.artifact import Manifest
from imaging.preprocessing import Picture
from imaging.views import bring_back, make_views
from service.inference.decoders import Decoders
from service.inference.engine import Answer
from service.inference.outputs import regions
from service.inference.views.looking import look_again
from service.inference.views.options import ViewOptions
from service.inference.views.reliability import Reliability
from service.inference.views.second_look import LOW, second_frame
from service.repository.startup import load_models
from service.settings import load_settings
from tests.service.inference.views.test_reliability import answers, disc, sample
from tests.service.pictures import ARTIFACT, MANIFEST

DISC = disc(9)
TOLD = Reliability(8, 1.0, 1.0, 1.0, angle_follows=True, score=0.9, within_px=2.0)


def looked_at(picture: np.ndarray, manifest: Manifest = MANIFEST) -> tuple[Answer, Answer, Reliability]:
    """The plain answer, the one with reliability, and what that tells."""
    (plain,), (told,) = answers([picture], ViewOptions()), answers([picture], ViewOptions(reliability=8), manifest)
    assert told.reliability is not None
    return plain, told, told.reliability


def test_it_is_taken_at_twice_the_region_and_brought_back() -> None:
    plain, found, told = looked_at(DISC)
    assert told.second_look
    first = np.array(plain.output.transforms[0].theta)
    frame = first * (2, 2, 1)
    (second,) = answers(list(make_views(DISC[..., None], frame[None])[..., 0]), ViewOptions())
    expected = bring_back(frame, np.array(second.output.transforms[0].theta))
    transform = found.output.transforms[0]
    np.testing.assert_allclose(transform.theta, expected, atol=1e-5)
    np.testing.assert_allclose(transform.region, regions(expected[None])[0], atol=1e-5)
    np.testing.assert_array_equal(transform.rectified, second.output.transforms[0].rectified)
    np.testing.assert_allclose(found.output.outputs["theta"][found.output.row], expected, atol=1e-5)
    assert np.abs(expected - first).max() > 0.01, "or this test compares nothing"


def test_the_classes_stay_those_of_the_first_look() -> None:
    plain, found, _ = looked_at(DISC)
    np.testing.assert_array_equal(found.output.ranking, plain.output.ranking)
    np.testing.assert_allclose(found.output.probabilities, plain.output.probabilities, atol=1e-6)
    row = found.output.outputs[MANIFEST.probabilities][found.output.row]
    np.testing.assert_array_equal(row[found.output.ranking], found.output.probabilities)


def test_reliable_corners_are_not_looked_at_again() -> None:
    plain, found, told = looked_at(sample("2"))
    assert not told.second_look
    np.testing.assert_allclose(found.output.transforms[0].theta, plain.output.transforms[0].theta, atol=1e-5)


def test_there_is_none_without_calibration() -> None:
    _, _, told = looked_at(DISC, MANIFEST.model_copy(update={"reliability": None}))
    assert not told.second_look


@pytest.mark.parametrize(("score", "is_due"), [(None, True), (LOW - 0.01, True), (LOW, False), (1.0, False)])
def test_it_is_due_where_the_score_is_low_or_the_angle_cannot_be_told(score: float | None, is_due: bool) -> None:
    (plain,) = answers([DISC], ViewOptions())
    assert (second_frame(MANIFEST, plain.output, TOLD._replace(score=score)) is not None) == is_due


@pytest.mark.parametrize("kind", ["tps", "projective"])
def test_there_is_none_where_theta_does_not_describe_the_region(kind: str) -> None:
    (plain,) = answers([DISC], ViewOptions())
    bent = MANIFEST.model_copy(update={"transforms": (MANIFEST.transforms[0].model_copy(update={"kind": kind}),)})
    assert second_frame(bent, plain.output, TOLD._replace(score=None)) is None


def test_there_is_none_at_a_region_without_area() -> None:
    (plain,) = answers([DISC], ViewOptions())
    flat = plain.output._replace(transforms=(plain.output.transforms[0]._replace(theta=[[0.5, 0, 0], [0, 0, 0]]),))
    assert second_frame(MANIFEST, flat, TOLD._replace(score=None)) is None


def test_a_second_look_that_comes_too_late_leaves_the_first() -> None:
    settings = load_settings(["--models", str(ARTIFACT.model_file), "--device", "cpu"], {})
    opened = Picture(DISC[..., None], DISC.shape[1], DISC.shape[0])

    async def look(limit: float) -> bool:
        models, decoders = load_models(settings), Decoders(settings)
        (model,) = models
        found = await look_again(model, opened, np.eye(2, 3), decoders, limit)
        await model.batcher.close()
        await decoders.close()
        return found is not None

    assert asyncio.run(look(perf_counter() + 60))
    assert not asyncio.run(look(perf_counter() - 1))
