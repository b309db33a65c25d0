"""A service that wants a key: the page asks for it and keeps it for the tab alone."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from service.middleware.api_keys import hash_key
from tests.conftest import Service, start_service
from tests.page.looking import expect_best

KEY = "stn_a-key-for-the-tests-of-the-page"


@pytest.fixture(scope="module")
def locked() -> Iterator[Service]:
    """Answers to whoever has the key."""
    with start_service("--api-keys", f"page:{hash_key(KEY.encode()).hex()}") as service:
        yield service


@pytest.fixture
def unlocked(context: BrowserContext, locked: Service) -> Page:
    """The page after the key was entered, with the first answer on it."""
    page = context.new_page()
    page.goto(locked.url)
    enter(page, KEY)
    expect_best(page, "3")
    return page


def enter(page: Page, key: str) -> None:
    expect(page.get_by_role("dialog", name="This service wants a key")).to_be_visible()
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_the_page_asks_for_a_key_until_it_is_the_right_one(context: BrowserContext, locked: Service) -> None:
    page = context.new_page()
    page.goto(locked.url)
    expect(page.locator("#problem-what")).to_have_text("This service wants a key.")
    enter(page, "another")
    enter(page, KEY)
    expect_best(page, "3")
    expect(page.locator("#problem")).to_be_hidden()


def test_the_camera_goes_by_requests_where_a_stream_cannot_have_the_key(unlocked: Page) -> None:
    with unlocked.expect_response("**/predict?*") as asked:
        unlocked.get_by_role("button", name="Camera").click()
    assert asked.value.status == 200
    expect(unlocked.locator("#camera-way")).to_contain_text("Each picture is a request of its own")
    with unlocked.expect_response("**/predict?*") as asked:
        pass
    assert asked.value.status == 200
    expect(unlocked.locator("#problem")).to_be_hidden()


def test_the_key_lasts_as_long_as_the_tab_and_is_not_in_what_is_shared(
    unlocked: Page, context: BrowserContext, locked: Service
) -> None:
    unlocked.reload()
    expect_best(unlocked, "3")
    assert unlocked.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    unlocked.get_by_role("button", name="Copy as curl").click()
    expect(unlocked.locator("#taken")).to_contain_text("copied")
    command = unlocked.evaluate("() => navigator.clipboard.readText()")
    assert "$STN_API_KEY" in command
    assert KEY not in command + unlocked.url
    other = context.new_page()
    other.goto(locked.url)
    expect(other.get_by_role("dialog", name="This service wants a key")).to_be_visible()
