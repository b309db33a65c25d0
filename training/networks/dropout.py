"""Dropout (Srivastava et al. 2014) that drops the same units after an interruption, and in however many processes."""

import torch
from torch import Tensor, nn

from training.distributed import processes, share_of


class Dropout(nn.Module):
    """Drops units, or whole channels, in training.

    Every process draws, from torch's own generator, for the batch of all of them and takes its share, so that those
    that begin a step with the same seed do what one process would.
    """

    def __init__(self, rate: float = 0.5, *, channels: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.channels = channels
        self.versions = 1
        """How many times a batch holds the same pictures, one after the other, each time shared among the processes."""

    def forward(self, values: Tensor) -> Tensor:
        """``(N, C, ...)`` -> the same shape; what is left grows, so that the mean stays."""
        if not self.training:
            return values
        count, channels, *places = values.shape
        if self.channels:
            places = [1] * len(places)
        whole = (processes() * count // self.versions, *places, channels)  # drawn as channels_last lies in memory
        kept = [share_of(values.new_empty(whole).bernoulli_(1 - self.rate)) for _ in range(self.versions)]
        return values * (torch.cat(kept) / (1 - self.rate)).movedim(-1, 1)
