"""Which version of a model answers requests that name none, and which one is being rolled out beside it."""

from collections.abc import Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """What a comparison has to show before the new version becomes the default by itself."""

    pictures: int
    """Pictures that both versions have answered."""
    agreement: float
    """Smallest share of them with the same class."""
    corner_p95_px: float | None
    """Largest 95th percentile of the distance of corners, in pixels of the upload; None for any."""
    p99_ratio: float | None
    """Largest 99th percentile of the inference time, relative to that of the default version; None for any."""


class Rollout(NamedTuple):
    """A version that is tried beside the default version of its model."""

    version: int
    shadow: float
    """Share of the pictures of the default version that it answers too, for comparison alone."""
    canary: float
    """Share of the callers that it answers instead."""
    promote_when: Rule | None = None


class Traffic(NamedTuple):
    """The default version of a model, where it is not that of the settings, and what is rolled out beside it."""

    default: int
    rollout: Rollout | None = None

    @property
    def versions(self) -> set[int]:
        """The versions that have to be served."""
        return {self.default} | ({self.rollout.version} if self.rollout else set())

    def among(self, served: Iterable[int]) -> "Traffic | None":
        """What remains of it while only the versions ``served`` are there."""
        present = set(served)
        if self.default not in present:
            return None
        return self if self.versions <= present else Traffic(self.default)


class Switch(NamedTuple):
    """A change of the traffic of a model, which is made only if that is still as ``expected``."""

    traffic: Traffic | None
    expected: Traffic | None
