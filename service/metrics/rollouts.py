"""Counts of comparisons between the default version of a model and one that is rolled out beside it."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

VERSIONS: Final = ("model", "version", "default")
"""Labels: the model, its version that is rolled out, and its default version."""
INFERENCE_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper ends of the buckets, as are the next two."""
PIXELS: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
CHANGES: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
MOST_CLASSES: Final = 100
"""Classes with a label of their own; further ones share `OTHERS`."""
OTHERS: Final = "others"


class RolloutMetrics:
    """Counts of one pair of versions over all of its rollouts. They never decrease."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        """``labels`` are the values of `VERSIONS`."""
        self._labels = labels
        self._agreed = [0.0, 0.0]
        """Pictures with another class, and with the same."""
        self._disagreed: defaultdict[str, float] = defaultdict(float)
        self._dropped: defaultdict[str, float] = defaultdict(float)
        self._changes = [0.0] * (len(CHANGES) + 2)
        self._pixels = [0.0] * (len(PIXELS) + 2)
        self._seconds = {of: [0.0] * (len(INFERENCE_SECONDS) + 2) for of in ("default", "version")}

    def compared(self, label: str | None, *, agrees: bool, change: float, pixels: float | None) -> None:
        """Count a picture of the class ``label``; see `service.rollout.messages.Compared`."""
        self._agreed[agrees] += 1
        if label is not None:
            count(self._changes, CHANGES, abs(change))
            if not agrees:
                known = label in self._disagreed or len(self._disagreed) < MOST_CLASSES
                self._disagreed[label if known else OTHERS] += 1
        if pixels is not None:
            count(self._pixels, PIXELS, pixels)

    def inferred(self, default_s: float, version_s: float) -> None:
        """Count the time of an inference by each version."""
        for of, seconds in (("default", default_s), ("version", version_s)):
            count(self._seconds[of], INFERENCE_SECONDS, seconds)

    def dropped(self, reason: str, pictures: int) -> None:
        """Count pictures that were to be compared, but were not."""
        self._dropped[reason] += pictures

    def counts(self) -> dict[tuple[str, ...], list[float]]:
        """All counts."""
        found: dict[tuple[str, ...], list[float]] = {
            ("rollout_changes", *self._labels): list(self._changes),
            ("rollout_pixels", *self._labels): list(self._pixels),
        }
        for agrees, number in zip(("false", "true"), self._agreed, strict=True):
            found["rollout_pictures", *self._labels, agrees] = [number]
        for label, number in self._disagreed.items():
            found["rollout_disagreed", *self._labels, label] = [number]
        for reason, number in self._dropped.items():
            found["rollout_dropped", *self._labels, reason] = [number]
        for of, vector in self._seconds.items():
            found["rollout_seconds", *self._labels, of] = list(vector)
        return found


def count(vector: list[float], bounds: Sequence[float], value: float) -> None:
    """Count ``value`` in its bucket of ``vector``, whose last element is the sum."""
    vector[bisect_left(bounds, value)] += 1
    vector[-1] += value
