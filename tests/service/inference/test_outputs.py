import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.outputs import MOST_SEQUENCES, answers, corners, rank, regions
from tests.service.pictures import MANIFEST


def seen(theta: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """The corners of what theta ``(2, 3)`` cuts out of a picture, the second of a batch: ``(4, 2)``."""
    batch = np.stack([np.zeros_like(theta), theta])
    return np.array(corners(regions(batch)[1].tolist(), width, height))


def test_the_identity_looks_at_the_whole_picture() -> None:
    found = seen(np.eye(2, 3, dtype=np.float32), 640, 480)
    np.testing.assert_allclose(found, [[0, 0], [640, 0], [640, 480], [0, 480]])


def test_a_zoom_with_shift_is_the_box_it_reads() -> None:
    theta = np.array([[0.5, 0, 0.25], [0, 0.5, -0.5]], dtype=np.float32)
    np.testing.assert_allclose(seen(theta, 40, 80), [[15, 0], [35, 0], [35, 40], [15, 40]])


@pytest.mark.parametrize(("angle", "top_left"), [(0, (0, 0)), (90, (100, 0)), (180, (100, 100)), (270, (0, 100))])
def test_corners_go_clockwise_from_the_one_that_becomes_top_left(angle: int, top_left: tuple[int, int]) -> None:
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    theta = np.array([[cosine, -sine, 0], [sine, cosine, 0]], dtype=np.float32)
    found = seen(theta, 100, 100)
    np.testing.assert_allclose(found[0], top_left, atol=1e-4)
    following = np.roll(found, -1, axis=0)
    area = (found[:, 0] * following[:, 1] - found[:, 1] * following[:, 0]).sum() / 2
    assert area == pytest.approx(10_000, rel=1e-5)  # positive: clockwise, since y points down


def test_classes_are_sorted_by_falling_probability_and_equal_ones_by_index() -> None:
    ranking, ranked = rank(np.array([[0.25, 0.5, 0.25]], np.float32))
    assert ranking.tolist() == [[1, 0, 2]]
    assert ranked.tolist() == [[0.5, 0.25, 0.25]]


@pytest.mark.parametrize(("objects", "classes"), [(2, 3), (2, 10), (3, 10), (4, 4), (2, 120), (2, 1000)])
def test_sequences_are_sorted_as_if_all_of_them_had_been_multiplied_out(objects: int, classes: int) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), (3, objects)).astype(np.float32)
    ranking, ranked = rank(probabilities)
    manifest = MANIFEST.model_copy(update={"sequence": objects, "classes": tuple(map(str, range(classes)))})
    assert ranking.shape == ranked.shape == (3, answers(manifest))
    for row, found, chances in zip(probabilities, ranking, ranked, strict=True):
        whole = np.array(1.0)
        for each in row.astype(np.float64):
            whole = np.multiply.outer(whole, each)
        expected = np.sort(whole.ravel())[::-1][:MOST_SEQUENCES]
        np.testing.assert_allclose(chances, expected, rtol=1e-5)
        np.testing.assert_allclose(whole.ravel()[found], expected, rtol=1e-5)


def test_the_most_probable_sequence_has_the_most_probable_class_of_each_of_very_many() -> None:
    probabilities = np.full((1, 3, 100_000), 1e-6, np.float32)
    probabilities[0, [0, 1, 2], [7, 5, 99_999]] = 0.9
    (ranking,), (ranked,) = rank(probabilities)
    assert len(ranking) == MOST_SEQUENCES
    assert ranking[0] == (7 * 100_000 + 5) * 100_000 + 99_999
    assert ranked[0] == pytest.approx(0.9**3)
