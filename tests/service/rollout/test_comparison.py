"""What a comparison says after many pictures."""

import numpy as np
import pytest

from service.api.open_inference.rollout import describe
from service.metrics.rollouts import MOST_CLASSES, OTHERS, RolloutMetrics
from service.repository.traffic import Rule
from service.rollout.comparison import Comparison
from service.rollout.messages import Compared, Said
from tests.service.pictures import MANIFEST

RNG = np.random.default_rng(0)


def comparison() -> Comparison:
    return Comparison(MANIFEST, MANIFEST, RolloutMetrics(("digits", "2", "1")))


def said(label: str | None = "7", probability: float = 0.9, degrees: float = 0.0, seconds: float = 0.001) -> Said:
    a, b = np.cos(np.radians(degrees)) / 2, np.sin(np.radians(degrees)) / 2
    return Said(() if label is None else tuple(label.split("+")), probability, [[a, -b, 0.0], [b, a, 0.0]], seconds)


def pair(default: Said, version: Said, corners_px: float | None = 1.0) -> Compared:
    return Compared(default, version, version.probability - default.probability, corners_px)


def test_agreement_is_told_of_all_and_of_each_class() -> None:
    found = comparison()
    for default, version in (("7", "7"), ("7", "7"), ("7", "1"), ("3", "3")):
        found.add(pair(said(default), said(version)))
    summary = found.summary()
    assert (summary.pictures, summary.agreed) == (4, 3)
    assert summary.classes == {"7": (3, 2), "3": (1, 1)}


def test_of_sequences_only_the_agreement_of_all_is_told_since_there_may_be_very_many() -> None:
    manifest = MANIFEST.model_copy(update={"sequence": 2})
    metrics = RolloutMetrics(("digits", "2", "1"))
    found = Comparison(manifest, manifest, metrics)
    for default, version in (("7+1", "7+1"), ("7+1", "7+2")):
        found.add(pair(said(default), said(version)))
    summary = found.summary()
    assert (summary.pictures, summary.agreed, summary.classes) == (2, 1, {})
    assert describe(summary).agreement == 0.5
    assert {labels[4]: count for labels, count in metrics.counts().items() if labels[0] == "rollout_disagreed"} == {
        OTHERS: [1]
    }


def test_answers_agree_if_they_name_the_same_classes_and_not_if_these_only_read_alike() -> None:
    found = comparison()
    found.add(pair(said("a+b a"), said("a b+a")))
    assert found.summary().agreed == 0


def test_a_class_may_have_an_empty_name() -> None:
    found = comparison()
    found.add(pair(said(""), said("")))
    assert found.summary().agreed == 1


def test_corners_and_changes_have_percentiles() -> None:
    found = comparison()
    for number in range(101):
        found.add(pair(said(probability=0.5), said(probability=0.5 - number / 1000), corners_px=number / 10))
    summary = found.summary()
    assert summary.corners_px == pytest.approx((5.0, 9.5, 9.9))
    assert summary.change == pytest.approx((0.05, 0.095, 0.099))
    assert summary.mean_change == pytest.approx(-0.05)


def test_times_are_told_of_each_version() -> None:
    found = comparison()
    for _ in range(10):
        found.add(pair(said(seconds=0.002), said(seconds=0.003)))
    summary = found.summary()
    assert summary.default_ms == pytest.approx((2, 2, 2))
    assert summary.version_ms == pytest.approx((3, 3, 3))


def test_geometry_drift_shows_a_version_that_turns_all_pictures_a_little() -> None:
    equal, turned = comparison(), comparison()
    for degrees in RNG.normal(0, 10, 300):
        equal.add(pair(said(degrees=degrees), said(degrees=degrees)))
        turned.add(pair(said(degrees=degrees), said(degrees=degrees + 15)))
    assert equal.drift()["rotation"].distance == pytest.approx(0, abs=1e-9)
    drift = turned.drift()["rotation"]
    assert drift.distance > 0.25
    assert drift.version_mean - drift.default_mean == pytest.approx(15, abs=0.5)
    assert turned.drift()["scale"].distance < 0.1


def test_there_is_no_drift_of_few_pictures() -> None:
    found = comparison()
    found.add(pair(said(), said(degrees=90)))
    assert found.drift() == {}


def test_versions_without_classes_or_without_corners_are_compared_by_the_rest() -> None:
    found = comparison()
    found.add(Compared(said(None), said(None), 0.0, 2.0))
    assert (found.summary().agreed, found.summary().classes) == (None, {})
    assert found.summary().corners_px == (2.0, 2.0, 2.0)
    assert not found.fulfils(Rule(1, 0.0, None, None)), "there is no agreement"
    plain = MANIFEST.model_copy(update={"transforms": ()})
    other = Comparison(plain, MANIFEST, RolloutMetrics(("digits", "2", "1")))
    for _ in range(150):
        other.add(Compared(Said(("7",), 0.9, None, 0.001), said(), 0.0, None))
    assert other.summary().corners_px is None
    assert other.drift().keys() == {"confidence"}
    assert other.fulfils(Rule(1, 1.0, None, None))
    assert not other.fulfils(Rule(1, 1.0, 100.0, None)), "it shows no corners"


@pytest.mark.parametrize(
    ("rule", "fulfilled"),
    [
        (Rule(10, 0.9, 1.5, 1.2), True),
        (Rule(11, 0.9, 1.5, 1.2), False),
        (Rule(10, 0.91, 1.5, 1.2), False),
        (Rule(10, 0.9, 0.9, 1.2), False),
        (Rule(10, 0.9, 1.5, 1.0), False),
        (Rule(10, 0.9, None, None), True),
    ],
)
def test_a_rule_is_fulfilled_only_as_a_whole(rule: Rule, fulfilled: bool) -> None:
    found = comparison()
    for number in range(10):
        found.add(pair(said("7"), said("7" if number else "1", seconds=0.0011)))
    assert found.fulfils(rule) == fulfilled


@pytest.mark.parametrize("reason", ["failed", "hung", "crashed"])
def test_a_version_that_fails_is_not_promoted_for_what_it_does_answer(reason: str) -> None:
    found = comparison()
    for _ in range(10):
        found.add(pair(said(), said()))
    assert found.fulfils(Rule(10, 0.9, None, None))
    found.drop("busy", 5)
    assert found.fulfils(Rule(10, 0.9, None, None)), "it was not asked"
    found.drop(reason, 5)
    assert not found.fulfils(Rule(10, 0.9, None, None))


def test_an_empty_comparison_says_nothing_and_fulfils_nothing() -> None:
    summary = comparison().summary()
    assert summary == (0, 0, None, {}, None, None, None, {}, None, None, {})
    assert not comparison().fulfils(Rule(0, 0.0, None, None))


def test_dropped_pictures_are_counted_by_reason() -> None:
    found = comparison()
    found.drop("busy")
    found.drop("hung", 8)
    assert found.summary().dropped == {"busy": 1, "hung": 8}


def test_metrics_name_no_more_classes_than_they_may() -> None:
    metrics = RolloutMetrics(("digits", "2", "1"))
    for number in range(MOST_CLASSES + 50):
        metrics.compared(str(number), agrees=False, change=0.1, pixels=None)
    classes = {key[-1]: found for key, found in metrics.counts().items() if key[0] == "rollout_disagreed"}
    assert len(classes) == MOST_CLASSES + 1
    assert classes[OTHERS] == [50]
