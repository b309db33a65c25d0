"""How many answers a second the page shows while its picture moves, on this machine.

    python -m benchmarks.serving.page

The service and a headless Chromium share the machine's cores, as they do for whoever tries the page at home.
"""

import argparse
import os
import sys

from playwright.sync_api import sync_playwright

from tests.conftest import start_service
from tests.page.conftest import FLAGS, find_chromium

SECONDS = 10
COUNT = """
async (seconds) => {
  const answers = () => performance.getEntriesByType("resource").filter(({ name }) => name.includes("/predict"));
  performance.setResourceTimingBufferSize(100_000);
  const [before, began] = [answers().length, performance.now()];
  await new Promise((done) => setTimeout(done, seconds * 1000));
  return (answers().length - before) / ((performance.now() - began) / 1000);
}
"""


def measure(url: str, model: str, seconds: float) -> float:
    """Answers a second of ``model`` while the picture moves."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        name, version = model.split("/")
        page.goto(f"{url}/#model={name}&version={version}")
        page.locator("#classes li").first.wait_for()
        page.get_by_role("button", name="Let it move").click()
        page.wait_for_function("() => parseInt(document.getElementById('frames').textContent) > 10")
        rate: float = page.evaluate(COUNT, seconds)
        browser.close()
        return rate


def main() -> int:
    """Print a line for each bundled model."""
    parser = argparse.ArgumentParser(description="answers a second on the page")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    seconds: float = parser.parse_args().seconds
    load = os.getloadavg()[0]
    with start_service() as service:
        for model in ("digits/3", "signs/2"):
            print(f"{model}: {measure(service.url, model, seconds):.1f} answers a second")
    print(f"{os.cpu_count()} cores; others kept {load:.1f} of them busy when it began")
    return 0


if __name__ == "__main__":
    sys.exit(main())
