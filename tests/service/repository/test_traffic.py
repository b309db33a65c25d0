"""Which version answers by default, and what is rolled out, in one process."""

import asyncio
from pathlib import Path

import pytest

from service.errors import ConflictError, LoadFailedError
from service.repository.plan import Change, ModelStatus, is_outdated, merge_reports, target_versions
from service.repository.traffic import Rollout, Switch, Traffic
from service.repository.version_policy import Policy
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.repository.test_repository import folder, kept

__all__ = ["folder"]  # a fixture

ROLLOUT = Rollout(2, 0.1, 0.0)
TRAFFIC = Traffic(1, ROLLOUT)
BEFORE = ModelStatus({1: "a", 2: "b"}, {4: "bad"}, TRAFFIC)
THERE = [("digits", 1), ("digits", 2), ("digits", 3)]


def test_a_switch_loads_what_lacks_and_nothing_else() -> None:
    switch = Switch(Traffic(1, Rollout(3, 0.1, 0.0)), TRAFFIC)
    assert target_versions(Change("digits", None, switch), THERE, BEFORE) == [1, 2, 3]
    assert target_versions(Change("digits", None, Switch(None, TRAFFIC)), THERE, BEFORE) == [1, 2]


def test_a_load_leaves_out_no_version_of_a_rollout_unless_it_lists_the_others() -> None:
    assert target_versions(Change("digits", Policy(latest=1)), THERE, BEFORE) == [1, 2, 3]
    assert target_versions(Change("digits", Policy(versions=(1,))), THERE, BEFORE) == [1]


def test_a_switch_of_what_has_changed_meanwhile_is_outdated() -> None:
    assert not is_outdated(Change("digits", None, Switch(None, TRAFFIC)), BEFORE)
    assert is_outdated(Change("digits", None, Switch(None, None)), BEFORE)
    assert not is_outdated(Change("digits", Policy()), BEFORE)


def test_a_switch_that_fails_changes_nothing_and_reasons_of_others_stay() -> None:
    switch = Switch(Traffic(1, Rollout(3, 0.1, 0.0)), TRAFFIC)
    failed = merge_reports(BEFORE, [ModelStatus({1: "a", 2: "b"}, {3: "no memory"})], switch)
    assert failed == ModelStatus(BEFORE.served, {3: "no memory", 4: "bad"}, TRAFFIC)
    done = merge_reports(BEFORE, [ModelStatus({1: "a", 2: "b", 3: "c"}, {})], switch)
    assert done == ModelStatus({1: "a", 2: "b", 3: "c"}, {4: "bad"}, switch.traffic)


def test_a_switch_for_which_a_worker_was_lost_finds_no_fault_with_what_is_served() -> None:
    switch = Switch(Traffic(1, Rollout(3, 0.1, 0.0)), TRAFFIC)
    lost = ModelStatus({}, dict.fromkeys([1, 2, 3], "a worker failed"))
    after = merge_reports(BEFORE, [ModelStatus({1: "a", 2: "b", 3: "c"}, {}), lost], switch)
    assert after == ModelStatus(BEFORE.served, {3: "a worker failed", 4: "bad"}, TRAFFIC)


def test_traffic_ends_with_the_versions_that_it_needs() -> None:
    assert merge_reports(BEFORE, [ModelStatus({1: "a"}, {})]).traffic == Traffic(1)
    assert merge_reports(BEFORE, [ModelStatus({2: "b"}, {})]).traffic is None
    assert merge_reports(BEFORE, [ModelStatus({}, {})]).traffic is None
    assert merge_reports(BEFORE, [ModelStatus({1: "c", 2: "d"}, {})]).traffic == TRAFFIC


@on_a_loop
async def test_a_switch_loads_a_version_without_making_it_the_default(folder: Path) -> None:
    async with kept(folder) as it:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await it.repository.switch("digits", TRAFFIC, None)
        assert (it.label(), it.models.find("digits", 2).manifest.classes[0]) == ("one-0", "two-0")
        artifacts.write_labelled(folder / "digits" / "3", "three-")
        await it.repository.load("digits")
        assert it.label() == "one-0", "the default is held"
        await it.repository.switch("digits", Traffic(2), TRAFFIC)
        assert it.label() == "two-0"
        await it.repository.switch("digits", None, Traffic(2))
        assert it.label() == "three-0"


@on_a_loop
async def test_a_promotion_takes_the_version_that_was_tried_whatever_the_folder_has_now(folder: Path) -> None:
    async with kept(folder) as it:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await it.repository.switch("digits", TRAFFIC, None)
        artifacts.write_labelled(folder / "digits" / "2", "again-")
        await it.repository.switch("digits", None, TRAFFIC)
        assert it.label() == "two-0"


@on_a_loop
async def test_of_two_switches_at_once_one_is_made_and_the_other_is_told(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with kept(folder, rollout="digits/2") as it:
        traffic = it.repository.statuses["digits"].traffic
        assert traffic is not None
        assert it.label() == "one-0", "the settings roll the highest version out"
        promoted = it.repository.switch("digits", None, traffic)
        back = it.repository.switch("digits", Traffic(1), traffic)
        results = await asyncio.gather(promoted, back, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], ConflictError)
        assert it.label() == "two-0"


@on_a_loop
async def test_a_version_that_cannot_be_loaded_is_not_rolled_out(folder: Path) -> None:
    async with kept(folder) as it:
        with pytest.raises(LoadFailedError, match="there is no digits/2"):
            await it.repository.switch("digits", TRAFFIC, None)
        (artifacts.write_labelled(folder / "digits" / "2", "bad-") / artifacts.MODEL).write_bytes(b"no model")
        with pytest.raises(LoadFailedError, match="cut off"):
            await it.repository.switch("digits", TRAFFIC, None)
        assert it.label() == "one-0"
        assert it.repository.statuses["digits"].traffic is None
