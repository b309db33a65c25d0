"""Are probabilities what they say? Temperature scaling and how it is measured (Guo et al. 2017)."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15
ROWS = 500
"""Pictures whose logits are in float64 at a time."""
COLDEST, HOTTEST = 0.05, 20.0


class Calibration(BaseModel):
    """How far the network's probabilities can be believed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    loss: float
    """Negative log-likelihood of the true class, averaged over the pictures."""
    error: float
    """Expected calibration error: how far confidence lies from accuracy, over bins of confidence; 0 to 1."""


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Measure ``logits`` ``(N, K)`` against ``labels`` ``(N,)``."""
    error = multiclass_calibration_error(logits.softmax(dim=1), labels, num_classes=logits.shape[1], n_bins=BINS)
    return Calibration(loss=round(float(functional.cross_entropy(logits, labels)), 6), error=round(float(error), 6))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """By what to divide ``logits`` ``(N, K)`` so that ``labels`` ``(N,)`` are likeliest; the order of classes stays.

    Counted is one picture more than there are, of any class: a network that made no mistake on a few pictures may not
    call itself infallible (as in Platt 1999, section 2.2).
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
