"""What a person sees on the page, and what the service says of the very same picture."""

import base64
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.conftest import Service

Json = dict[str, Any]

OUTLINE = """
() => {
  const polygon = document.querySelector("#overlay .look:last-child .region");
  const matrix = polygon.getScreenCTM();
  return [...polygon.points].map((point) => point.matrixTransform(matrix)).map(({ x, y }) => [x, y]);
}
"""
STAGE_BOX = "() => { const { left, top, width, height } = document.getElementById('stage').getBoundingClientRect(); \
return { left, top, width, height } }"


def best(page: Page) -> str:
    """The first class that the page shows."""
    return page.locator("#classes li .label").first.inner_text()


def expect_best(page: Page, label: str) -> None:
    """The page comes to show ``label`` first."""
    expect(page.locator("#classes li .label").first).to_have_text(label)


def stage_picture(page: Page) -> bytes:
    """What is on the stage, as a PNG file."""
    url: str = page.evaluate("() => document.getElementById('stage').toDataURL('image/png')")
    return base64.b64decode(url.partition(",")[2])


def ask(service: Service, picture: bytes, **options: object) -> Json:
    """What the service says of ``picture``."""
    answer = service.client.post("/predict", content=picture, params={k: str(v) for k, v in options.items()})
    assert answer.status_code == 200, answer.text
    content: Json = answer.json()
    return content


def outline(page: Page) -> list[list[float]]:
    """The quadrilateral on the stage, in pixels of the window."""
    points: list[list[float]] = page.evaluate(OUTLINE)
    return points


def on_screen(page: Page, corners: list[list[float]], width: int, height: int) -> list[list[float]]:
    """Points of a picture that fills the stage, in pixels of the window."""
    box = page.evaluate(STAGE_BOX)
    return [[box["left"] + x / width * box["width"], box["top"] + y / height * box["height"]] for x, y in corners]


def gap(one: list[list[float]], other: list[list[float]]) -> float:
    """The largest distance of corresponding coordinates."""
    assert len(one) == len(other)
    return max(abs(a - b) for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True))


def wait_for(page: Page, true: Callable[[], bool], what: str, turns: int = 200) -> None:
    """Look at ``true`` again and again, with the browser's frames in between, until it holds."""
    for _ in range(turns):
        if true():
            return
        page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
    raise AssertionError(f"waited in vain: {what}")


def expect_agreement(page: Page, service: Service, **options: object) -> None:
    """The quadrilateral comes to lie within a pixel of where the service's corners are."""

    def agrees() -> bool:
        answer = ask(service, stage_picture(page), **options)
        width, height = page.locator("#stage").evaluate("(stage) => [stage.width, stage.height]")
        return gap(outline(page), on_screen(page, answer["corners"], width, height)) < 1

    wait_for(page, agrees, "the quadrilateral lies where the service's corners are")


def value(page: Page, slider: str) -> float:
    """Of a slider."""
    return float(page.locator(f"#{slider}").input_value())
