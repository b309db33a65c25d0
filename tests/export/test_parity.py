from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.format.errors import ParityError
from export.format.golden import Outputs
from export.format.manifest import Parity
from export.graph import Signature, signature
from export.parity import Model, compare, pictures
from training.fitting.runs import Run

Change = Callable[[Outputs], Outputs]


@pytest.fixture(scope="module")
def interface(trained_run: Run) -> Signature:
    """Inputs and outputs of the small network."""
    return signature(trained_run.info())


def answer(images: NDArray[np.uint8]) -> Outputs:
    """A made-up model of the right form."""
    count = len(images)
    return {
        "probabilities": np.full((count, 10), 0.1, np.float32),
        "theta": np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        "rectified": images[:, :28, :28],
    }


def with_output(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    return lambda outputs: {**outputs, name: change(outputs[name])}


SAMPLES = np.full((5, 42, 42, 1), 100, np.uint8)


def test_equal_models_differ_by_nothing(interface: Signature) -> None:
    assert compare(answer, answer, interface, SAMPLES) == Parity(
        probabilities=0, parameters=0, rectified=0, within_one_level=1
    )


@pytest.mark.parametrize(
    ("side", "sizes"), [(28, [1, 2, 33, 256]), (128, [1, 2, 33, 256]), (224, [1, 2, 33, 83]), (512, [1, 2, 33])]
)
def test_the_largest_batch_has_fewer_pictures_if_they_are_large(side: int, sizes: list[int]) -> None:
    found = [len(batch) for batch in pictures(np.zeros((2, side, side, 1), np.uint8))]
    assert found == [size for size in sizes for _ in range(2)]


def test_what_rounding_does_to_the_trained_model_itself_is_forgiven_but_no_more(interface: Signature) -> None:
    def moved(by: float) -> Model:
        return lambda images: with_output("theta", lambda values: values + np.float32(by))(answer(images))

    found = compare(answer, moved(2e-4), interface, SAMPLES, exactly=moved(1e-4))
    assert found.parameters == pytest.approx(2e-4, rel=0.1)
    assert found.rounding_parameters == pytest.approx(1e-4, rel=0.1)
    with pytest.raises(ParityError, match="parameters"):
        compare(answer, moved(6e-4), interface, SAMPLES, exactly=moved(1e-4))
    with pytest.raises(ParityError, match="parameters"):
        compare(answer, moved(2e-3), interface, SAMPLES, exactly=moved(1e-2))


def test_one_pixel_in_ten_thousand_may_differ_by_more_than_a_grey_level(interface: Signature) -> None:
    def with_wrong_pixels(count: int) -> Model:
        def model(images: NDArray[np.uint8]) -> Outputs:
            outputs = answer(images)
            rectified = outputs["rectified"].copy()
            if len(images) == 256:
                rectified.reshape(-1)[:count] ^= 8
            return {**outputs, "rectified": rectified}

        return model

    found = compare(answer, with_wrong_pixels(10), interface, SAMPLES)
    assert found.rectified == 8
    assert 0.9999 <= found.within_one_level < 1
    with pytest.raises(ParityError, match="grey levels"):
        compare(answer, with_wrong_pixels(100), interface, SAMPLES)


def test_small_differences_pass_and_are_reported(interface: Signature) -> None:
    def nearly(images: NDArray[np.uint8]) -> Outputs:
        outputs = answer(images)
        outputs["theta"] = outputs["theta"] + np.float32(6e-5)
        outputs["rectified"] = np.where(outputs["rectified"] == 100, np.uint8(101), outputs["rectified"])
        return outputs

    found = compare(answer, nearly, interface, SAMPLES)
    assert found.parameters == pytest.approx(6e-5, rel=0.1)
    assert found.rectified == 1


@pytest.mark.parametrize(
    "change",
    [
        with_output("probabilities", lambda values: values + np.float32(2e-4)),
        with_output("theta", lambda values: values * np.float32(np.nan)),
        with_output("rectified", lambda values: values ^ np.uint8(2)),
        with_output("theta", lambda values: values[:, :1]),
        with_output("theta", lambda values: values.astype(np.float64)),
        lambda outputs: {name: values[:1] for name, values in outputs.items()},
        lambda outputs: {"probabilities": outputs["probabilities"]},
    ],
    ids=["probabilities", "not a number", "grey levels", "shape", "type", "fixed batch", "missing output"],
)
def test_any_other_difference_is_refused(change: Change, interface: Signature) -> None:
    with pytest.raises(ParityError, match="nothing was written"):
        compare(answer, lambda images: change(answer(images)), interface, SAMPLES)


def test_a_model_that_fails_for_large_batches_only_is_found(interface: Signature) -> None:
    def forgets_the_last(images: NDArray[np.uint8]) -> Outputs:
        outputs = answer(images)
        if len(images) > 2:
            outputs["probabilities"][-1] = 0
        return outputs

    with pytest.raises(ParityError, match="probabilities"):
        compare(answer, forgets_the_last, interface, SAMPLES)
