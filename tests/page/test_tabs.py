"""Compare two models; look at the server; take what is on the stage with you."""

import json
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import Service, start_service
from tests.page.conftest import Complaints
from tests.page.looking import ask, expect_best, stage_picture, wait_for
from tests.service.answers import PICTURE

WEBM = b"\x1a\x45\xdf\xa3"


def test_two_versions_answer_to_the_same_picture(page: Page, server: Service) -> None:
    page.get_by_role("tab", name="Compare").click()
    first, second = (
        page.get_by_label("First model").locator("select"),
        page.get_by_label("Second model").locator("select"),
    )
    assert [first.input_value(), second.input_value()] == ["digits/3", "digits/2"]
    page.locator("#turn").fill("30")

    def agrees() -> bool:
        picture = stage_picture(page)
        regions = page.locator("#overlay .region").evaluate_all(
            "(all) => all.map((one) => [...one.points].map((p) => [p.x, p.y]))"
        )
        answers = [ask(server, picture, model="digits", version=version) for version in (3, 2)]
        return len(regions) == 2 and all(
            [number for point in region for number in point]
            == pytest.approx([number for point in answer["corners"] for number in point], abs=0.01)
            for region, answer in zip(regions, answers, strict=True)
        )

    wait_for(page, agrees, "both regions are those of the service")
    assert page.locator(".side .classes li:first-child .label").all_inner_texts() == ["3", "3"]
    second.select_option("signs/1")
    expect(page.locator(".side-second .classes .label").first).not_to_have_text("3")


def test_the_server_tab_lists_what_is_served(page: Page) -> None:
    page.get_by_role("tab", name="Server").click()
    expect(page.locator("#server-facts")).to_contain_text("ready")
    names = page.locator("#model-table tbody th")
    expect(names).to_have_text(["digits/2", "digits/3", "signs/1", "signs/2"])
    expect(page.locator("#model-table tbody tr").first).to_contain_text("99.4 % of 10,000")
    expect(page.locator("#workbench")).to_be_hidden()
    page.get_by_role("tab", name="Look").click()
    expect(page.locator("#workbench")).to_be_visible()


def test_the_curl_command_gives_the_answer_that_the_page_shows(page: Page, server: Service) -> None:
    page.locator("#turn").fill("-15")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#taken")).to_contain_text("copied")
    command = page.evaluate("() => navigator.clipboard.readText()")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["corners"] == ask(server, stage_picture(page))["corners"]


@pytest.mark.parametrize("own", [False, True])
def test_a_link_shows_the_same(page: Page, context: BrowserContext, complaints: Complaints, own: bool) -> None:
    if own:
        file = Path(__file__).parents[2] / "models" / "digits" / "samples" / "5.png"
        page.locator("#file").set_input_files(file)
        expect_best(page, "5")
    for name, setting in (("turn", "20"), ("x", "-0.1"), ("noise", "10"), ("clutter", "3")):
        page.locator(f"#{name}").fill(setting)
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#taken")).to_contain_text("copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    other = context.new_page()
    complaints.listen(other)
    other.goto(link)
    wait_for(other, lambda: stage_picture(other) == stage_picture(page), "the other page shows the same stage")


def test_a_link_that_is_put_into_the_same_tab_is_followed(page: Page, server: Service) -> None:
    page.goto(f"{server.url}/#model=digits&version=2&sample=8.png&turn=10")
    expect_best(page, "8")
    expect(page.locator("#model")).to_have_value("digits/2")
    expect(page.locator("#turn")).to_have_value("10")


@pytest.mark.parametrize(
    "hash_", ["#model=none", "#model=digits&turn=x&size=1e9&noise=-5&sample=../x", "#%", "#picture=x"]
)
def test_a_broken_link_shows_something_all_the_same(
    context: BrowserContext, complaints: Complaints, server: Service, hash_: str
) -> None:
    page = context.new_page()
    complaints.listen(page)
    page.goto(f"{server.url}/{hash_}")
    expect(page.locator("#classes li").first).to_be_visible()


def test_a_film_of_it_can_be_saved(page: Page) -> None:
    page.get_by_role("button", name="Record").click()
    page.locator("#move").click()
    page.wait_for_function("() => parseInt(document.getElementById('frames').textContent) > 20")
    page.get_by_role("button", name="Stop recording").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the recording").click()
    assert download.value.suggested_filename == "stn-serve.webm"
    content = download.value.path().read_bytes()
    assert content[:4] == WEBM
    assert len(content) > 2000


def test_the_server_tab_shows_what_the_metrics_say(page: Page) -> None:
    page.get_by_role("tab", name="Server").click()
    expect(page.locator("#server-facts dt")).to_have_text(
        ["state", "versions served", "requests", "refused", "waiting"]
    )
    row = page.locator("#model-table tbody tr").nth(1)
    expect(row.locator("th")).to_have_text("digits/3")
    expect(row.locator("td").nth(5)).to_contain_text(" ms")


def test_the_server_tab_compares_the_versions_of_a_rollout(context: BrowserContext, complaints: Complaints) -> None:
    with start_service("--load", "digits", "--rollout", "digits/3", "--rollout-shadow", 1) as service:
        page = context.new_page()
        complaints.listen(page)
        page.goto(service.url)
        page.get_by_role("tab", name="Server").click()
        expect(page.locator("#model-table tbody tr")).to_have_count(2)
        row = page.locator("#rollout-table tbody tr")

        def is_compared() -> bool:
            ask(service, PICTURE, model="digits")
            return row.count() == 1 and row.locator("td").nth(1).inner_text() != "0"

        wait_for(page, is_compared, "a picture is compared")
        expect(row.locator("th")).to_have_text("digits/3")
        expect(row.locator("td").nth(0)).to_have_text("digits/2")
        expect(row.locator("td").nth(2)).to_have_text("100 %")
        expect(row.locator("td").nth(4)).to_contain_text(" px")
        expect(row.locator("td").nth(5)).to_contain_text(" ms")


def test_without_a_rollout_there_is_no_comparison(page: Page) -> None:
    page.get_by_role("tab", name="Server").click()
    expect(page.locator("#model-table tbody tr").first).to_be_visible()
    expect(page.locator("#rollouts")).to_be_hidden()
