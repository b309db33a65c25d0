"""Confidence intervals and tests of accuracies, by picture or by groups of pictures that show the same thing."""

from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
CERTAINTY = 0.95
RESAMPLES = 9999
PER_BATCH = 500
"""Number of resamples made at a time, which limits the memory they need."""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def accuracy_interval(right: Tensor, groups: Tensor | None = None) -> Interval:
    """Return the interval of the accuracy.

    Pictures are independent, and the interval is Wilson's (1927), unless there are ``groups``. Then whole groups are
    drawn with replacement (bootstrap, Efron 1987), because the errors in pictures of one thing occur together. If all
    pictures are right, or all wrong, the bootstrap knows no variation, and each group counts as one picture.

    Args:
        right: ``(N,)`` whether each picture is right; or ``(N, T)`` whether each object of a sequence is, and all of a
            picture belong to one group.
        groups: ``(N,)`` the number of each picture's group.
    """
    right, groups = by_object(right, groups)
    count, total = int(right.sum()), len(right)
    if groups is None:
        return wilson(count, total)
    hits, sizes = totals(right.double(), groups)
    return resampled(hits, sizes) or wilson(round(len(hits) * count / total), len(hits))


def by_object(right: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return whether each object is right and the group that it belongs to; see `accuracy_interval`."""
    if right.dim() == 1:
        return right, groups
    of_pictures = torch.arange(len(right)) if groups is None else groups
    return right.flatten(), of_pictures.repeat_interleave(right.shape[1])


def wilson(right: int, count: int) -> Interval:
    """Return Wilson's interval of the share of ``right`` among ``count`` independent pictures."""
    found = scipy.stats.binomtest(right, count).proportion_ci(CERTAINTY, method="wilson")
    return Interval(round(float(found.low), 6), round(float(found.high), 6))


def totals(values: Tensor, groups: Tensor) -> tuple[Floats, Floats]:
    """Return the sum of ``values`` ``(N,)`` in each of the ``groups`` ``(N,)``, and the sizes of the groups."""
    member = np.unique(groups.numpy(), return_inverse=True)[1]
    sizes: Floats = np.bincount(member).astype(np.float64)
    return np.bincount(member, values.double().numpy()).astype(np.float64), sizes


def resampled(sums: Floats, sizes: Floats) -> Interval | None:
    """Return the bootstrap interval of ``sum(sums) / sum(sizes)`` over groups; None if the groups do not differ."""
    if len(sums) < 2 or np.ptp(sums / sizes) == 0:
        return None

    def ratio(some: Floats, of: Floats, axis: int) -> Floats:
        shares: Floats = some.sum(axis=axis) / of.sum(axis=axis)
        return shares

    found = scipy.stats.bootstrap(
        (sums, sizes),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=PER_BATCH,
        confidence_level=CERTAINTY,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(round(float(found.low), 6), round(float(found.high), 6))


class PairedTest(NamedTuple):
    """The comparison of two networks on the same pictures."""

    only_first: int
    """Pictures on which only the first network is right."""
    only_second: int
    difference: float
    """Accuracy of the first network minus that of the second."""
    interval: Interval
    """Interval of the difference (Agresti and Min 2005); with groups, by bootstrap over them."""
    p_value: float
    """p-value of McNemar's exact test (1947), which takes the pictures as independent. Of sequences, that of the exact
    sign test over pictures: which network gets more objects of a picture right."""


def mcnemar(first: Tensor, second: Tensor, groups: Tensor | None = None) -> PairedTest:
    """Compare which pictures two networks get right.

    Args:
        first: ``(N,)`` whether the first network is right on each picture; or ``(N, T)``, see `accuracy_interval`.
        second: the same for the second network.
        groups: ``(N,)`` the number of each picture's group.
    """
    gaps = (first.long() - second.long()).view(len(first), -1).sum(dim=1)  # of pictures
    better, differing = int((gaps > 0).sum()), int((gaps != 0).sum())
    second, _ = by_object(second, groups)
    first, groups = by_object(first, groups)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    interval = agresti_min(only_first, only_second, len(first))
    if groups is not None:
        interval = resampled(*totals(first.double() - second.double(), groups)) or interval
    return PairedTest(
        only_first,
        only_second,
        difference=(only_first - only_second) / len(first),
        interval=interval,
        p_value=float(scipy.stats.binomtest(better, differing).pvalue) if differing else 1.0,
    )


def agresti_min(only_first: int, only_second: int, count: int) -> Interval:
    """Return the interval of a difference of paired shares: Wald's, after adding half a picture to each of four cells.

    Args:
        only_first: pictures on which only the first network is right.
        only_second: pictures on which only the second network is right.
        count: all pictures.
    """
    differing, gap, count = only_first + only_second + 1, only_first - only_second, count + 2
    reach = scipy.stats.norm.ppf((1 + CERTAINTY) / 2) * (differing - gap**2 / count) ** 0.5
    return Interval(round(float(gap - reach) / count, 6), round(float(gap + reach) / count, 6))
