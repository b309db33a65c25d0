from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.artifact import Outputs, Parity
from export.graph import Signature, signature
from export.parity import ParityError, compare
from training.runs import Run

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
    assert compare(answer, answer, interface, SAMPLES) == Parity(probabilities=0, parameters=0, rectified=0)


def test_small_differences_pass_and_are_reported(interface: Signature) -> None:
    def nearly(images: NDArray[np.uint8]) -> Outputs:
        outputs = answer(images)
        outputs["theta"] = outputs["theta"] + np.float32(4e-6)
        outputs["rectified"] = np.where(outputs["rectified"] == 100, np.uint8(101), outputs["rectified"])
        return outputs

    found = compare(answer, nearly, interface, SAMPLES)
    assert found.parameters == pytest.approx(4e-6, rel=0.1)
    assert found.rectified == 1


@pytest.mark.parametrize(
    "change",
    [
        with_output("probabilities", lambda values: values + np.float32(2e-5)),
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
