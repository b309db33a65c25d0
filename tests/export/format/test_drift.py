"""What theta, confidence and classes look like as numbers, and how far two sets of pictures are apart."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs, distance, values
from export.format.drift import BINS, MOST_CLASSES, RESOLUTION, Values, count_in_bins, make_reference
from export.format.manifest import Distribution, Quantity
from tests.export.manifests import manifest

RANDOM = np.random.default_rng(7)


def similarity(degrees: float = 0, scale: float = 1, x: float = 0, y: float = 0) -> NDArray[np.float32]:
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[[cos, -sin, 2 * x], [sin, cos, 2 * y]]], np.float32)


def seen(theta: NDArray[np.float32], of: Manifest | None = None) -> dict[str, float]:
    outputs: Outputs = {"probabilities": np.array([[0.25, 0.75]], np.float32), "theta": theta}
    return {quantity: float(found[0]) for (_, quantity), found in values(outputs, of or manifest()).items()}


def of_kind(kind: str, **sides: int) -> Manifest:
    whole = manifest()
    return whole.model_copy(update={"transforms": (whole.transforms[0].model_copy(update={"kind": kind, **sides}),)})


def test_what_was_put_into_theta_is_read_out_of_it() -> None:
    found = seen(similarity(30, 0.5, x=0.1, y=-0.05))
    assert found == pytest.approx(
        {
            "rotation": 30,
            "scale": 0.5,
            "shift_x": 0.1,
            "shift_y": -0.05,
            "confidence": 0.75,
            "classes": 1,
            "outside": 0,
        },
        abs=1e-5,
    )


def test_rotation_is_that_of_pixels_not_of_normalised_coordinates() -> None:
    wide = of_kind("affine").model_copy(update={"input": manifest().input.model_copy(update={"width": 8})})
    turned = similarity(30)
    turned[:, 0] *= 4 / 8  # a square region of a picture that is twice as wide as high
    assert seen(turned, wide)["rotation"] == pytest.approx(30, abs=1e-4)


@pytest.mark.parametrize(("shift", "share"), [(0.0, 0.0), (0.25, 0.25), (-0.5, 0.5), (2.0, 1.0)])
def test_outside_is_the_share_of_the_region_that_lies_out_of_the_picture(shift: float, share: float) -> None:
    assert seen(similarity(x=shift))["outside"] == pytest.approx(share)


def test_of_a_sequence_only_the_confidence_that_all_objects_are_right_is_told() -> None:
    sequence = manifest().model_copy(update={"sequence": 2})
    outputs = {"probabilities": np.array([[[0.25, 0.75], [0.5, 0.5]]], np.float32), "theta": similarity()}
    found = values(outputs, sequence)
    assert found["", "confidence"] == pytest.approx([0.375])
    assert ("", "classes") not in found


def test_kinds_show_only_what_they_can_change() -> None:
    shown = {kind: set(seen(similarity(), of_kind(kind))) - {"confidence", "classes"} for kind in KINDS}
    assert shown == KINDS


KINDS = {
    "affine": {"rotation", "scale", "shift_x", "shift_y", "outside"},
    "similarity": {"rotation", "scale", "shift_x", "shift_y", "outside"},
    "attention": {"scale", "shift_x", "shift_y", "outside"},
    "rotation": {"rotation", "outside"},
    "projective": {"outside"},
    "tps": {"outside"},
}


def test_what_is_no_number_stays_none() -> None:
    theta = similarity()
    theta[0, 0, 0] = np.nan
    assert math.isnan(seen(theta)["rotation"])
    assert math.isnan(seen(theta)["outside"])


def reference(quantity: Quantity, sample: NDArray[np.float64]) -> Distribution:
    found: Values = {("first", quantity): sample}
    return make_reference(found, "made up").distributions[0]


def index(sample: NDArray[np.float64], of: Distribution, pictures: int) -> float:
    return distance(count_in_bins(sample, of.edges).tolist(), of, pictures)


def test_pictures_of_the_same_kind_are_near_and_others_far() -> None:
    usual = reference("rotation", RANDOM.uniform(-45, 45, 5000))
    assert len(usual.shares) == BINS
    assert usual.shares == pytest.approx([1 / BINS] * BINS, abs=0.001)
    assert index(RANDOM.uniform(-45, 45, 1000), usual, 5000) < 0.05
    assert 0.25 < index(RANDOM.uniform(-90, 90, 1000), usual, 5000) < math.inf
    assert index(np.full(1000, 180.0), usual, 5000) > 2


def test_the_distance_is_the_population_stability_index() -> None:
    halves = Distribution(transform="", quantity="classes", edges=(0.5,), shares=(0.5, 0.5), mean=0.5)
    expected = (0.8 - 0.5) * math.log(0.8 / 0.5) + (0.2 - 0.5) * math.log(0.2 / 0.5)
    assert distance([80_000, 20_000], halves, 100_000) == pytest.approx(expected, abs=1e-4)
    assert distance([50_000, 50_000], halves, 100_000) == pytest.approx(0, abs=1e-9)


def test_by_chance_it_is_what_yurdakul_and_naranjo_say() -> None:
    usual = reference("scale", RANDOM.uniform(0.5, 1, 5000))
    drawn = [index(RANDOM.uniform(0.5, 1, 500), usual, 5000) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx((BINS - 1) * (1 / 500 + 1 / 5000), rel=0.15)


def test_rounding_is_no_drift_where_the_reference_hardly_varies() -> None:
    still = reference("scale", np.full(1000, 0.8))
    assert index(np.full(1000, 0.8 + 1e-3), still, 1000) < 0.01
    assert index(np.full(1000, 0.8 + 2 * RESOLUTION["scale"]), still, 1000) > 1


def test_a_region_that_never_left_the_picture_is_missed_when_it_does() -> None:
    inside = reference("outside", np.zeros(1000))
    assert index(np.zeros(1000), inside, 1000) < 0.01
    assert index(np.repeat([0.0, 0.3], 500), inside, 1000) > 0.25


@pytest.mark.parametrize("label", [0, 3, 50])
def test_a_model_that_answers_one_class_for_everything_has_a_reference(label: int) -> None:
    one = reference("classes", np.full(100, float(label)))
    assert index(np.full(100, float(label)), one, 100) < 0.01
    assert index(np.full(100, abs(label - 1.0)), one, 100) > 1


@pytest.mark.parametrize("quantity", ["rotation", "scale", "shift_x", "shift_y", "outside", "confidence", "classes"])
def test_a_single_picture_has_a_reference(quantity: Quantity) -> None:
    assert sum(reference(quantity, np.zeros(1)).shares) == 1


def test_each_class_has_its_bin_while_there_are_few() -> None:
    few = reference("classes", RANDOM.integers(0, 10, 5000).astype(np.float64))
    assert few.edges == tuple(i + 0.5 for i in range(9))
    assert index(np.full(500, 3.0), few, 5000) > 1
    many = reference("classes", RANDOM.integers(0, 1000, 5000).astype(np.float64))
    assert len(many.shares) == MOST_CLASSES
