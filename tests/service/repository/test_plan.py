import pytest

from service.errors import LoadFailedError, UnknownModelError
from service.repository.plan import CHANGED, Change, Standing, agree, check_loaded, wanted
from service.repository.version_policy import Policy

NOTHING = Standing({}, {})
OLD = Standing({1: "a"}, {})


def test_what_all_have_loaded_takes_the_place_of_what_was_served() -> None:
    assert agree(OLD, [Standing({2: "b"}, {}), Standing({2: "b"}, {})]) == Standing({2: "b"}, {})


def test_what_one_of_them_could_not_load_none_serves_and_the_old_stays() -> None:
    reports = [Standing({2: "b"}, {}), Standing({}, {2: "no memory"})]
    assert agree(OLD, reports) == Standing({1: "a"}, {2: "no memory"})


def test_a_version_that_fails_holds_up_no_other() -> None:
    assert agree(OLD, [Standing({3: "c"}, {2: "bad"})]) == Standing({1: "a", 3: "c"}, {2: "bad"})


def test_a_version_that_cannot_be_reloaded_is_served_as_it_was() -> None:
    assert agree(OLD, [Standing({}, {1: "bad"})]) == Standing({1: "a"}, {1: "bad"})


def test_all_must_have_loaded_the_same() -> None:
    assert agree(OLD, [Standing({2: "b"}, {}), Standing({2: "c"}, {})]) == Standing({1: "a"}, {2: CHANGED})
    assert agree(OLD, [Standing({2: "b"}, {}), NOTHING]) == Standing({1: "a"}, {2: CHANGED})


def test_nothing_wanted_is_nothing_served() -> None:
    assert agree(OLD, [NOTHING, NOTHING]) == NOTHING


def test_a_change_is_about_what_is_chosen_else_what_is_served() -> None:
    there = [("digits", 1), ("digits", 2), ("signs", 5)]
    assert wanted(Change("digits", Policy(latest=1)), there, [1]) == [2]
    assert wanted(Change("letters", Policy()), there, [4]) == [4], "so that it is missed"
    assert wanted(Change("digits", None), there, [1]) == []


def test_a_load_that_failed_says_which_version_and_why() -> None:
    with pytest.raises(LoadFailedError, match="digits/2: no memory"):
        check_loaded("digits", Standing({1: "a"}, {2: "no memory"}))
    with pytest.raises(UnknownModelError, match="no model 'digits'"):
        check_loaded("digits", NOTHING)
    check_loaded("digits", OLD)
