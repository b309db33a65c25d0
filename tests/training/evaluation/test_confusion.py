from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from training.evaluation.calibration import calibration, fit_temperature
from training.evaluation.confusion import confusion_cells


class Sizes(TorchFunctionMode):
    """Remembers how many elements the largest tensor that torch's functions return has."""

    largest = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple) else (found,):
            self.largest = max(self.largest, value.numel() if isinstance(value, Tensor) else 0)
        return found


def test_what_is_measured_of_many_classes_takes_no_more_than_their_logits() -> None:
    pictures, classes = 30, 1000
    logits, labels = torch.randn(pictures, classes), torch.randint(classes, (pictures,))
    torch.use_deterministic_algorithms(True)
    try:
        with Sizes() as sizes:
            cells = confusion_cells(logits.argmax(dim=1), labels, classes)
            fit_temperature(logits, labels)
            calibration(logits, labels)
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(cells) <= pictures
    assert pictures <= sizes.largest <= pictures * classes


def test_cells_of_a_confusion_matrix_are_those_that_are_not_zero() -> None:
    predicted, labels = torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 1, 1])
    assert confusion_cells(predicted, labels, 3) == [(0, 0, 1), (1, 1, 1), (1, 2, 2)]
