"""What goes wrong is said as what happened and what to do."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import Service, end, start_service, wait_until
from tests.page.conftest import Complaints
from tests.page.looking import expect_best
from tests.service.answers import connect, post
from tests.service.exposed import scrape
from tests.service.server.test_overload import EVIL, misbehaving

HANG_MS = 60_000


def visit(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    return page


@contextmanager
def full() -> Iterator[Service]:
    """A service whose queue is taken by a picture that makes the model hang."""
    flags = ("--max-queue", 1, "--timeout-ms", HANG_MS, "--inference-timeout-s", HANG_MS // 1000)
    with misbehaving("hanging", *flags) as service, connect(service) as connection:
        connection.sendall(post(EVIL))
        wait_until(lambda: scrape(service)("stn_pictures_in_flight") == 1)
        yield service


@pytest.mark.parametrize(
    ("begin", "what", "todo"),
    [
        (
            lambda: start_service("--max-bytes", 1000),
            "The picture is too large for this service.",
            "Choose a smaller one.",
        ),
        (full, "The service has as much to do as it takes.", "The page tries again by itself."),
    ],
    ids=["too large", "full"],
)
def test_a_refusal_says_what_to_do(
    context: BrowserContext, begin: Callable[[], AbstractContextManager[Service]], what: str, todo: str
) -> None:
    with begin() as service:
        page = visit(context, service.url)
        expect(page.locator("#problem-what")).to_have_text(what)
        expect(page.locator("#problem-todo")).to_have_text(todo)
        expect(page.get_by_role("alert")).to_be_visible()


def test_a_full_service_is_asked_again_by_itself(context: BrowserContext) -> None:
    with full() as service:
        page = visit(context, service.url)
        for _ in range(2):
            with page.expect_response(lambda response: "predict" in response.url) as answer:
                pass
            assert answer.value.status == 429


def test_a_service_that_stops_is_missed_and_found_again(context: BrowserContext, complaints: Complaints) -> None:
    with start_service() as service:
        page = visit(context, service.url)
        expect_best(page, "3")
        end(service.process)
        page.locator("#turn").fill("10")
        expect(page.locator("#problem-what")).to_have_text("The service does not answer.")
        port = service.address[1]
        with start_service("--port", port):
            expect(page.locator("#problem")).to_be_hidden()
            page.get_by_role("button", name="8", exact=True).click()
            expect_best(page, "8")
    assert complaints == []
