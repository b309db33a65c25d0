"""Intervals by groups are as wide as the number of things allows, and McNemar's test counts what differs."""

import pytest
import torch
from scipy.stats import binomtest

from training.evaluation.intervals import accuracy_interval, mcnemar

TRACKS = torch.arange(1200) // 30
"""40 tracks of 30 pictures."""


def wrong_at(*places: range) -> torch.Tensor:
    right = torch.ones(1200, dtype=torch.bool)
    for place in places:
        right[place.start : place.stop] = False
    return right


def test_without_groups_the_interval_is_wilsons() -> None:
    expected = binomtest(1150, 1200).proportion_ci(0.95, method="wilson")
    assert accuracy_interval(wrong_at(range(50))) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_errors_that_share_a_track_widen_the_interval_and_scattered_ones_do_not() -> None:
    together, scattered = wrong_at(range(30), range(600, 630)), wrong_at()
    scattered[::20] = False
    assert together.sum() == scattered.sum()
    low, high = accuracy_interval(together, TRACKS)
    narrow_low, narrow_high = accuracy_interval(together)
    assert low < narrow_low < narrow_high < high
    assert high - low > 3 * (narrow_high - narrow_low)
    low, high = accuracy_interval(scattered, TRACKS)
    assert high - low < narrow_high - narrow_low


def test_the_objects_of_a_picture_are_one_group() -> None:
    right = wrong_at(range(60)).view(400, 3)
    assert accuracy_interval(right) == accuracy_interval(right.flatten(), torch.arange(400).repeat_interleave(3))
    tracks = torch.arange(400) // 10
    assert accuracy_interval(right, tracks) == accuracy_interval(right.flatten(), tracks.repeat_interleave(3))


def test_objects_are_compared_like_pictures_and_their_interval_is_that_of_pictures() -> None:
    first, second = wrong_at(range(60)).view(400, 3), wrong_at(range(40, 90)).view(400, 3)
    found, flat = mcnemar(first, second), mcnemar(first.flatten(), second.flatten())
    assert (found.only_first, found.only_second, found.difference) == flat[:3]
    pictures = torch.arange(400).repeat_interleave(3)
    assert found.interval == mcnemar(first.flatten(), second.flatten(), pictures).interval


def test_objects_of_one_picture_that_all_change_are_one_sign_in_the_test() -> None:
    first, second = wrong_at().view(400, 3), wrong_at(range(15), range(600, 601)).view(400, 3)  # 5 whole pictures and 1
    assert mcnemar(first, second).p_value == pytest.approx(binomtest(6, 6).pvalue)
    second[0] = True
    first[0, 0] = False
    assert mcnemar(first, second).p_value == pytest.approx(binomtest(5, 6).pvalue)


def test_groups_of_one_picture_give_about_the_interval_of_single_pictures() -> None:
    right = wrong_at(range(120))
    assert accuracy_interval(right, torch.arange(1200)) == pytest.approx(accuracy_interval(right), abs=0.003)


@pytest.mark.parametrize("right", [True, False])
def test_without_any_variation_each_group_counts_once(right: bool) -> None:
    found = accuracy_interval(torch.full((1200,), right), TRACKS)
    assert found == accuracy_interval(torch.full((40,), right))


def test_the_numbers_of_groups_may_be_any() -> None:
    right = wrong_at(range(30))
    assert accuracy_interval(right, 5000 - 1000 * TRACKS) == pytest.approx(accuracy_interval(right, TRACKS), abs=0.01)


def test_mcnemars_test_counts_the_pictures_on_which_one_network_alone_is_right() -> None:
    first, second = wrong_at(range(10)), wrong_at(range(5, 30))
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (20, 5)
    assert found.difference == pytest.approx(15 / 1200)
    assert found.p_value == pytest.approx(binomtest(5, 25).pvalue)
    assert 0 < found.interval.low < 15 / 1200 < found.interval.high


def test_networks_that_are_right_on_the_same_pictures_do_not_differ() -> None:
    found = mcnemar(wrong_at(range(10)), wrong_at(range(10)), TRACKS)
    assert (found.difference, found.p_value) == (0, 1)
    assert found.interval.low < 0 < found.interval.high


def test_a_difference_in_one_track_is_no_certain_one() -> None:
    right, worse = wrong_at(), wrong_at(range(30))
    assert mcnemar(right, worse).p_value < 1e-6
    assert mcnemar(right, worse).interval.low > 0
    assert mcnemar(right, worse, TRACKS).interval.low <= 0
