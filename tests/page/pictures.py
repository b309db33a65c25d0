"""The pictures of the page that stand in the README, taken from the page itself.

python -m tests.page.pictures
"""

import math
from io import BytesIO

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import REPOSITORY, start_service
from tests.page.conftest import FLAGS, find_chromium
from tests.page.looking import wait_for

FOLDER = REPOSITORY / "docs" / "page"
FRAMES = 42
FRAME_MS = 90
SIDE, GAP = 320, 10
"""Of the film's two halves, in pixels, and between them."""
PAPER = (244, 243, 239)
SHADES = 48
RAMPS = ((255, 255, 255), PAPER, (255, 159, 28), (90, 169, 255))
"""White, paper and the quadrilateral's two colours: each from black, as the film's palette."""
SLIDERS = ("x", "y", "turn", "size")
SETTLED = """() => {
  const requests = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/predict"));
  return requests.length;
}"""


def open_page(browser: Browser, url: str, size: tuple[int, int], *, dark: bool = False) -> Page:
    """The page at ``url``, with an answer on it."""
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(url)
    page.locator("#classes li").first.wait_for()
    page.evaluate("() => performance.setResourceTimingBufferSize(100_000)")
    return page


def flush(page: Page) -> None:
    """Wait until no more answers come."""
    seen = [-1, -1]

    def still() -> bool:
        seen.append(page.evaluate(SETTLED))
        return len(set(seen[-4:])) == 1

    wait_for(page, still, "no more answers come")


def save(page: Page, name: str) -> None:
    """A screenshot of the page's upper end."""
    page.evaluate("() => scrollTo(0, 0)")
    with Image.open(BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(FOLDER / f"{name}.png", optimize=True)


def take_screenshots(browser: Browser, url: str) -> None:
    """The three tabs, in light, dark and small."""
    page = open_page(browser, f"{url}/#model=digits&version=3&sample=7.png", (1440, 1080))
    page.get_by_role("button", name="Let it move").click()
    page.wait_for_function("() => parseInt(document.getElementById('frames').textContent) > 240")
    page.get_by_role("button", name="Let it move").click()
    flush(page)
    save(page, "look")
    page = open_page(browser, f"{url}/#model=digits&version=3&sample=2.png&turn=35&x=0.06", (1440, 1060), dark=True)
    page.get_by_role("tab", name="Compare").click()
    page.locator(".side-second .classes li").first.wait_for()
    flush(page)
    save(page, "compare")
    page = open_page(browser, f"{url}/#model=signs&version=2&sample=Speed limit (60km h).jpg", (360, 780))
    flush(page)
    save(page, "small")


def take_film(browser: Browser, url: str) -> None:
    """A digit goes round, and its rectified image stands still."""
    page = open_page(browser, f"{url}/#model=digits&version=3&sample=2.png", (1200, 740))
    flush(page)
    frames = []
    for frame in range(FRAMES):
        angle = 2 * math.pi * frame / FRAMES
        x, y, turn = 0.1 * math.sin(angle), 0.1 * math.sin(2 * angle), 42 * math.sin(angle)
        for name, value in zip(SLIDERS, (x, y, turn, math.exp(0.18 * math.cos(angle))), strict=True):
            page.locator(f"#{name}").fill(f"{round(value / step(page, name)) * step(page, name):.3f}")
        flush(page)
        film = Image.new("RGB", (2 * SIDE + GAP, SIDE), PAPER)
        for place, name in enumerate(("frame", "rectified")):
            with Image.open(BytesIO(page.locator(f"#{name}").screenshot())) as image:
                half = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                film.paste(half, (place * (SIDE + GAP), 0))
        frames.append(film)
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for ramp in RAMPS for level in shades(ramp)])
    first, *others = [film.quantize(palette=palette, dither=Image.Dither.NONE) for film in frames]
    first.save(FOLDER / "moving.gif", save_all=True, append_images=others, duration=FRAME_MS, loop=0, optimize=True)


def shades(colour: tuple[int, int, int]) -> list[int]:
    """From black to ``colour``, flat."""
    return [round(part * shade / (SHADES - 1)) for shade in range(SHADES) for part in colour]


def step(page: Page, slider: str) -> float:
    """Between two settings of a slider."""
    return float(page.locator(f"#{slider}").get_attribute("step") or 1)


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with start_service() as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        take_screenshots(browser, service.url)
        take_film(browser, service.url)
        browser.close()


if __name__ == "__main__":
    main()
