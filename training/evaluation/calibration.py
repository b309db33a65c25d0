"""Calibration of probabilities by temperature scaling, and its measures (Guo et al. 2017)."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

BINS = 15
ROWS = 500
"""Number of pictures whose logits are converted to float64 at a time."""
COLDEST, HOTTEST = 0.05, 20.0


class Calibration(BaseModel):
    """Measures of the calibration of probabilities."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    loss: float
    """Mean negative log-likelihood of the true class."""
    error: float
    """Expected calibration error: mean difference of confidence and accuracy over bins of confidence, 0 to 1."""


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Measure ``logits`` ``(N, K)`` against ``labels`` ``(N,)``."""
    from torchmetrics.functional.classification import multiclass_calibration_error  # slow to import

    if logits.shape[1] == 1:  # the only class is certain
        return Calibration(loss=0.0, error=0.0)
    error = multiclass_calibration_error(logits.softmax(dim=1), labels, num_classes=logits.shape[1], n_bins=BINS)
    return Calibration(loss=round(float(functional.cross_entropy(logits, labels)), 6), error=round(float(error), 6))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the divisor of ``logits`` ``(N, K)`` that maximises the likelihood of ``labels`` ``(N,)``.

    One extra picture of unknown class is counted, so that a network without a mistake on a few pictures does not become
    infinitely confident (compare Platt 1999, section 2.2).
    """
    smoothing = 1 / (len(labels) + 1)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        whole = torch.zeros((), dtype=torch.float64)
        for some, wanted in zip(torch.split(logits, ROWS), torch.split(labels, ROWS), strict=True):
            cooled = some.double() / log_temperature.exp()
            part = functional.cross_entropy(cooled, wanted, label_smoothing=smoothing, reduction="sum") / len(labels)
            part.backward()  # type: ignore[no-untyped-call]
            whole += part.detach()
        return whole

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return round(min(max(float(log_temperature.detach().exp()), COLDEST), HOTTEST), 6)
