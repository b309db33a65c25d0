"""What the comparison of two versions has shown since a rollout began, in one process."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs, Quantity, count_in_bins, distance, make_reference, values
from service.metrics.rollouts import OTHERS, RolloutMetrics
from service.repository.traffic import Rule
from service.rollout.messages import Compared, Said

WINDOW = 16_384
"""Latest pictures that percentiles are taken of."""
DRIFT_WINDOW = 1_000
"""Latest pictures that geometry drift is computed from."""
MIN_DRIFT_PICTURES = 100
"""Pictures from which on it is."""


class Drift(NamedTuple):
    """How a quantity of the pictures differs between the versions."""

    default_mean: float
    version_mean: float
    distance: float
    """Population stability index of the new version against the default version."""


class Percentiles(NamedTuple):
    """Of the latest pictures."""

    median: float
    p95: float
    p99: float


class ClassAgreement(NamedTuple):
    """Of the pictures of a class, by the default version."""

    pictures: int
    agreed: int


class Summary(NamedTuple):
    """The state of a comparison."""

    pictures: int
    classified: int
    """Pictures to which both versions gave a class."""
    agreed: int | None
    """Those with the same class; None if there are none."""
    classes: Mapping[str, ClassAgreement]
    """By class; empty for sequences, of which there may be very many."""
    change: Percentiles | None
    """Of the absolute change of the probability of the default version's class."""
    mean_change: float | None
    corners_px: Percentiles | None
    drift: Mapping[str, Drift]
    """By quantity."""
    default_ms: Percentiles | None
    version_ms: Percentiles | None
    dropped: Mapping[str, int]
    """Pictures that were to be compared, but were not, by reason."""


class Comparison:
    """Collects what was found for each picture."""

    def __init__(self, default: Manifest, version: Manifest, metrics: RolloutMetrics) -> None:
        self._manifests = default, version
        self._metrics = metrics
        self.pictures = 0
        self._classified = 0
        self._agreed = 0
        self._of_class: Counter[str] = Counter()
        self._agreed_of_class: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._changes: deque[float] = deque(maxlen=WINDOW)
        self._corners_px: deque[float] = deque(maxlen=WINDOW)
        self._seconds: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._latest: deque[tuple[Said, Said]] = deque(maxlen=DRIFT_WINDOW)
        self._drift: tuple[int, Mapping[str, Drift]] = 0, {}
        """The drift, and the number of pictures after which it was computed."""

    def add(self, found: Compared) -> None:
        """Add a picture."""
        default, version = found.default, found.version
        self.pictures += 1
        agrees = default.names == version.names
        is_one = self._manifests[0].sequence is None  # there may be very many sequences
        if default.label is not None and version.label is not None:
            self._classified += 1
            self._agreed += agrees
            if is_one:
                self._of_class[default.label] += 1
                self._agreed_of_class[default.label] += agrees
            self._changes.append(found.change)
        if found.corners_px is not None:
            self._corners_px.append(found.corners_px)
        self._seconds.append((default.seconds, version.seconds))
        self._latest.append((default, version))
        label = default.label if is_one or default.label is None else OTHERS
        self._metrics.compared(label, agrees=agrees, change=found.change, pixels=found.corners_px)
        self._metrics.inferred(default.seconds, version.seconds)

    def drop(self, reason: str, pictures: int = 1) -> None:
        """Count pictures that were not compared."""
        self._dropped[reason] += pictures
        self._metrics.dropped(reason, pictures)

    def fulfils(self, rule: Rule) -> bool:
        """Whether the new version may become the default.

        Pictures on which it failed count as disagreement. A version that hung or crashed is never promoted by a rule.
        """
        if self._dropped["hung"] or self._dropped["crashed"]:
            return False
        if self.pictures < rule.pictures or not self._classified:
            return False
        if self._agreed < rule.agreement * (self._classified + self._dropped["failed"]):
            return False
        if rule.corner_p95_px is not None:
            corners = percentiles(self._corners_px)
            if corners is None or corners.p95 > rule.corner_p95_px:
                return False
        if rule.p99_ratio is None:
            return True
        default, version = np.percentile(np.array(self._seconds), 99, axis=0)
        return bool(version <= rule.p99_ratio * default)

    def summary(self) -> Summary:
        """What was found so far."""
        default_s, version_s = np.array(self._seconds).reshape(-1, 2).T * 1000
        return Summary(
            pictures=self.pictures,
            classified=self._classified,
            agreed=self._agreed if self._classified else None,
            classes={label: ClassAgreement(n, self._agreed_of_class[label]) for label, n in self._of_class.items()},
            change=percentiles(map(abs, self._changes)),
            mean_change=float(np.mean(self._changes)) if self._changes else None,
            corners_px=percentiles(self._corners_px),
            drift=self.drift(),
            default_ms=percentiles(default_s),
            version_ms=percentiles(version_s),
            dropped=dict(self._dropped),
        )

    def drift(self) -> Mapping[str, Drift]:
        """The drift of each quantity that both versions have; empty while there are few pictures."""
        if self._drift[0] != self.pictures and len(self._latest) >= MIN_DRIFT_PICTURES:
            defaults, versions = zip(*self._latest, strict=True)
            expected, found = (quantities(m, s) for m, s in zip(self._manifests, (defaults, versions), strict=True))
            both = [name for name in expected if name in found]
            self._drift = self.pictures, {name: compare(name, expected[name], found[name]) for name in both}
        return self._drift[1]


def percentiles(found: Iterable[float]) -> Percentiles | None:
    """Percentiles of numbers; None if there are none."""
    numbers = np.fromiter(found, np.float64)
    return Percentiles(*np.percentile(numbers, (50, 95, 99)).tolist()) if len(numbers) else None


def quantities(manifest: Manifest, said: Iterable[Said]) -> dict[Quantity, NDArray[np.float64]]:
    """The quantities of drift ``(N,)`` that a version has: confidence, and those of its main transformer's theta."""
    answers = list(said)
    outputs: Outputs = {}
    main = manifest.transforms[manifest.main] if manifest.transforms else None
    if main is not None:
        outputs[main.theta] = np.array([each.theta for each in answers], np.float32)
    reduced = manifest.model_copy(update={"transforms": () if main is None else (main,), "probabilities": ""})
    found = {quantity: numbers for (_, quantity), numbers in values(outputs, reduced).items()}
    if manifest.probabilities:
        found["confidence"] = np.array([each.probability for each in answers])
    return found


def compare(quantity: Quantity, expected: NDArray[np.float64], found: NDArray[np.float64]) -> Drift:
    """Compare two distributions of a quantity over the same pictures."""
    (distribution,) = make_reference({("", quantity): expected}, "").distributions
    index = distance(count_in_bins(found, distribution.edges).tolist(), distribution, len(expected))
    return Drift(float(expected.mean()), float(found.mean()), index)
