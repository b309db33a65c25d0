"""Dropout (Srivastava et al. 2014) that is reproducible after an interruption and in any number of processes."""

import torch
from torch import Tensor, nn

from training.distributed import processes, share_of


class Dropout(nn.Module):
    """Drops units, or whole channels, during training.

    Every process draws the mask of the whole batch from torch's global generator and takes its share. Processes that
    start a step with the same seed therefore drop the same units as a single process.
    """

    def __init__(self, rate: float = 0.5, *, channels: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.channels = channels
        self.versions = 1
        """Number of versions of the same pictures in a batch; each version is shared among the processes."""

    def forward(self, values: Tensor) -> Tensor:
        """``(N, C, ...)`` -> the same shape; the remaining units are scaled up to keep the mean."""
        if not self.training:
            return values
        count, channels, *places = values.shape
        if self.channels:
            places = [1] * len(places)
        whole = (processes() * count // self.versions, *places, channels)  # in the memory order of channels_last
        kept = [share_of(values.new_empty(whole).bernoulli_(1 - self.rate)) for _ in range(self.versions)]
        return values * (torch.cat(kept) / (1 - self.rate)).movedim(-1, 1)
