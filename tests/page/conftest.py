"""A real browser for the tests of the page; the service behind it is the real one too."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import Service

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE_MS = 30_000
"""Longest time that a condition may take to come true: the machine may be busy."""
WIDE, NARROW = (1600, 1000), (360, 780)


def find_chromium() -> str:
    """Where it is; without one the test is skipped, or fails if BROWSER_TESTS says that it is required."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    message = "no Chromium: install one (Debian: apt-get install chromium), or say where it is with CHROMIUM=/path"
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all tests here, and gone before others run: it holds an event loop."""
    path = find_chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window's worth of state: storage, permissions, size."""
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
    yield context
    context.close()


class Complaints(list[str]):
    """What a page's console says of errors; a test may take out what it expects."""

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.append(message.text)


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Of the page; a test whose page complains fails."""
    complaints = Complaints()
    yield complaints
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext, complaints: Complaints, server: Service) -> Page:
    """The page as a person finds it, with the first answer on it."""
    page = context.new_page()
    complaints.listen(page)
    page.goto(server.url)
    page.locator("#classes li").first.wait_for()
    return page
