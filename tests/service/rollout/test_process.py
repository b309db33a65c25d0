"""What the process that shadows finds for a picture, here without the process."""

from pathlib import Path

import numpy as np
import pytest

from imaging.crops import Crop
from service.errors import ModelLoadError
from service.rollout.messages import Compared, Failed
from service.rollout.process import Pair, best, corner_distance, probability_of
from tests.conftest import REPOSITORY
from tests.service import artifacts
from tests.service.pictures import MANIFEST, encode, noise
from tests.service.rollout.jobs import job, shown


@pytest.fixture
def models(tmp_path: Path) -> Path:
    artifacts.write(tmp_path / "digits" / "1")
    return tmp_path


def test_equal_versions_say_the_same_and_take_time(models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    found = Pair(job(models)).compare(shown())
    assert isinstance(found, Compared)
    assert found.default.label == found.version.label == "7"
    assert (found.change, found.corners_px) == pytest.approx((0, 0), abs=1e-3)
    assert min(found.default.seconds, found.version.seconds) > 0


def test_a_class_that_the_new_version_does_not_know_has_the_probability_0(models: Path) -> None:
    artifacts.write_labelled(models / "digits" / "2", "new-")
    found = Pair(job(models)).compare(shown())
    assert isinstance(found, Compared)
    assert (found.default.label, found.version.label) == ("7", "new-7")
    assert found.change == pytest.approx(-found.default.probability)


def test_the_answer_to_a_sequence_is_all_of_its_classes_and_their_probability_that_of_all() -> None:
    probabilities = np.array([[0.1, 0.9], [0.75, 0.25]], np.float32)
    sequence = MANIFEST.model_copy(update={"sequence": 2, "classes": ("cat", "dog")})
    names, probability = best(probabilities, sequence)
    assert names == ("dog", "cat")
    assert probability == pytest.approx(0.9 * 0.75)
    assert probability_of(("cat", "cat"), probabilities, sequence) == pytest.approx(0.1 * 0.75)
    for other in (("cat",), ("cat", "bird")):
        assert probability_of(other, probabilities, sequence) == 0


def test_a_version_that_fails_fails_one_picture(models: Path) -> None:
    artifacts.write_moody(models / "digits" / "2", hangs=False)
    pair = Pair(job(models))
    failed = pair.compare(shown(first=200))
    assert isinstance(failed, Failed)
    assert "out of data bounds" in failed.reason
    assert isinstance(pair.compare(shown()), Compared)


def test_a_version_whose_files_have_changed_is_not_compared(models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    before = job(models)
    artifacts.write_labelled(models / "digits" / "2", "changed-")
    with pytest.raises(ModelLoadError, match="differs from the version that is served"):
        Pair(before)


def test_versions_with_other_inputs_are_each_shown_the_file_or_a_part_of_it() -> None:
    (models, name) = (REPOSITORY / "models", "signs")
    pair = Pair(job(models, name))
    file = (REPOSITORY / "docs" / "pictures" / "sign.jpg").read_bytes()
    probabilities = np.zeros(43, np.float32)
    whole = shown()._replace(pixels=None, file=file, probabilities=probabilities)
    part = whole._replace(part=Crop(10, 10, 90, 90))
    answers = [pair.compare(each) for each in (whole, part)]
    assert all(isinstance(each, Compared) for each in answers), answers
    one, other = (each.version.theta for each in answers if isinstance(each, Compared))
    assert one != other
    broken = pair.compare(whole._replace(file=encode(noise(1))[:40]))
    assert isinstance(broken, Failed)


def test_the_distance_of_corners_is_in_pixels_of_the_picture() -> None:
    one = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    right = [[0.5, 0.0, 0.1], [0.0, 0.5, 0.0]]  # by 0.05 of the width
    assert corner_distance(one, right, 200, 100) == pytest.approx(10, abs=1e-4)
    below = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.1]]
    assert corner_distance(one, below, 200, 100) == pytest.approx(5, abs=1e-4)
