"""By keyboard, by ear, on small and large screens, in light and in dark."""

from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.page.conftest import NARROW, WIDE
from tests.page.looking import best

SERIOUS = ("serious", "critical")


def findings(page: Page) -> list[str]:
    """What axe takes for a serious fault."""
    answer: dict[str, Any] = Axe().run(page).response
    return [
        f"{fault['id']}: {[node['html'] for node in fault['nodes']]}"
        for fault in answer["violations"]
        if fault["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, colours: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=colours)
    page.locator("#move").click()
    expect(page.locator("#motion")).to_be_visible()
    page.locator("#move").click()
    assert findings(page) == []
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator(".side-second .classes li").first).to_be_visible()
    assert findings(page) == []
    page.get_by_role("tab", name="Server").click()
    expect(page.locator("#model-table tbody tr").first).to_be_visible()
    assert findings(page) == []


def test_axe_finds_nothing_serious_in_dialogs(page: Page) -> None:
    page.get_by_role("button", name="Draw").click()
    page.evaluate("() => document.getElementById('key').showModal()")
    assert findings(page) == []


@pytest.mark.parametrize("width", [NARROW[0], 768, WIDE[0]])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for tab in ("Compare", "Server", "Look"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, tab


def test_what_is_heard_is_the_answer_once_it_stands_still(page: Page) -> None:
    spoken = page.locator("#spoken")
    expect(spoken).to_contain_text("3, ")
    page.evaluate(
        """() => {
          window.heard = 0;
          const observer = new MutationObserver(() => (window.heard += 1));
          observer.observe(document.getElementById("spoken"), { childList: true });
        }"""
    )
    page.evaluate(
        """() => {
          const stage = document.getElementById("stage");
          for (let press = 0; press < 20; press++) stage.dispatchEvent(new KeyboardEvent("keydown", { key: "]" }));
        }"""
    )
    page.wait_for_function("() => window.heard > 0")
    assert page.evaluate("() => window.heard") <= 2
    expect(spoken).to_contain_text(best(page))


def test_nothing_moves_by_itself(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    assert page.locator("#move").get_attribute("aria-pressed") == "false"
    assert page.evaluate("() => document.getAnimations().length") == 0
    page.locator("#turn").fill("40")
    assert page.evaluate("() => document.getAnimations().length") == 0
