import pytest

from service.errors import LoadFailedError, ModelNotFoundError
from service.repository.plan import CHANGED, Change, ModelStatus, check_loaded, merge_reports, target_versions
from service.repository.version_policy import Policy

NOTHING = ModelStatus({}, {})
OLD = ModelStatus({1: "a"}, {})


def test_what_all_have_loaded_takes_the_place_of_what_was_served() -> None:
    assert merge_reports(OLD, [ModelStatus({2: "b"}, {}), ModelStatus({2: "b"}, {})]) == ModelStatus({2: "b"}, {})


def test_what_one_of_them_could_not_load_none_serves_and_the_old_stays() -> None:
    reports = [ModelStatus({2: "b"}, {}), ModelStatus({}, {2: "no memory"})]
    assert merge_reports(OLD, reports) == ModelStatus({1: "a"}, {2: "no memory"})


def test_a_version_that_fails_holds_up_no_other() -> None:
    assert merge_reports(OLD, [ModelStatus({3: "c"}, {2: "bad"})]) == ModelStatus({1: "a", 3: "c"}, {2: "bad"})


def test_a_version_that_cannot_be_reloaded_is_served_as_it_was() -> None:
    assert merge_reports(OLD, [ModelStatus({}, {1: "bad"})]) == ModelStatus({1: "a"}, {1: "bad"})


def test_all_must_have_loaded_the_same() -> None:
    assert merge_reports(OLD, [ModelStatus({2: "b"}, {}), ModelStatus({2: "c"}, {})]) == ModelStatus(
        {1: "a"}, {2: CHANGED}
    )
    assert merge_reports(OLD, [ModelStatus({2: "b"}, {}), NOTHING]) == ModelStatus({1: "a"}, {2: CHANGED})


def test_nothing_wanted_is_nothing_served() -> None:
    assert merge_reports(OLD, [NOTHING, NOTHING]) == NOTHING


def test_a_change_is_about_what_is_chosen_else_what_is_served() -> None:
    there = [("digits", 1), ("digits", 2), ("signs", 5)]
    assert target_versions(Change("digits", Policy(latest=1)), there, OLD) == [2]
    assert target_versions(Change("letters", Policy()), there, ModelStatus({4: "d"}, {})) == [4], "so that it is missed"
    assert target_versions(Change("digits", None), there, OLD) == []


def test_a_load_that_failed_says_which_version_and_why() -> None:
    with pytest.raises(LoadFailedError, match="digits/2: no memory"):
        check_loaded("digits", ModelStatus({1: "a"}, {2: "no memory"}))
    with pytest.raises(ModelNotFoundError, match="no model 'digits'"):
        check_loaded("digits", NOTHING)
    check_loaded("digits", OLD)
