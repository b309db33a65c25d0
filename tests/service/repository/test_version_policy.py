import pytest

from service.errors import ModelLoadError
from service.repository.version_policy import Policy, Selection
from service.settings import Settings

THERE = [("digits", 1), ("digits", 2), ("digits", 10), ("signs", 3)]


def chosen(**settings: str) -> list[str]:
    """What is served from the start of what is there."""
    return [f"{name}/{version}" for name, version in Selection(Settings.model_validate(settings)).choose(THERE)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["digits/1", "digits/2", "digits/10", "signs/3"]),
        ({"versions": "latest"}, ["digits/10", "signs/3"]),
        ({"versions": "latest:2"}, ["digits/2", "digits/10", "signs/3"]),
        ({"versions": "latest:9"}, ["digits/1", "digits/2", "digits/10", "signs/3"]),
        ({"load": "digits"}, ["digits/1", "digits/2", "digits/10"]),
        ({"load": "digits", "versions": "latest"}, ["digits/10"]),
        ({"load": "digits/2,signs,digits/1"}, ["digits/1", "digits/2", "signs/3"]),
        ({"load": "digits/2", "versions": "latest"}, ["digits/2"]),
        ({"versions": "latest", "default": "digits/1"}, ["digits/1", "digits/10", "signs/3"]),
    ],
)
def test_the_settings_choose_what_is_served_from_the_start(settings: dict[str, str], expected: list[str]) -> None:
    assert chosen(**settings) == expected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"load": "letters"}, "no model letters to start with"),
        ({"default": "letters"}, "--default names letters, which is not served"),
        ({"default": "digits/3"}, "--default names digits/3, which is not served"),
        ({"default": "digits/1", "load": "digits/2"}, "--default names digits/1, which is not served"),
    ],
)
def test_what_is_not_there_cannot_be_chosen(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        chosen(**settings)


def test_versions_that_are_named_are_chosen_even_if_they_are_not_there() -> None:
    assert Policy(versions=(7, 3), latest=1).choose([1, 2]) == [3, 7]


@pytest.mark.parametrize(
    "text", ["digits/0", "digits/", "/1", "digits,,signs", "../digits", "digits/1/2", "a b", "digits\n"]
)
def test_references_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Settings(load=text)


@pytest.mark.parametrize("text", ["", "some", "latest:0", "latest:", "latest:-1", "3"])
def test_policies_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Settings(versions=text)
