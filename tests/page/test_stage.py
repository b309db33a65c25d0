"""Move the picture by hand: the stage follows, and so does the quadrilateral."""

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import Service
from tests.page.conftest import NARROW, WIDE, Complaints
from tests.page.looking import ask, expect_agreement, expect_best, outline, stage_picture, value, wait_for

COUNT_REQUESTS = """
  window.underWay = 0;
  window.mostUnderWay = 0;
  window.sent = 0;
  const plain = window.fetch;
  window.fetch = async (path, options) => {
    if (!String(path).startsWith("predict")) return plain(path, options);
    window.sent += 1;
    window.mostUnderWay = Math.max(window.mostUnderWay, ++window.underWay);
    try { return await plain(path, options); } finally { window.underWay -= 1; }
  };
"""


def middle(page: Page) -> tuple[float, float]:
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_quadrilateral_lies_where_the_services_corners_are(
    page: Page, server: Service, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for model in ("digits/2", "digits/3", "signs/1", "signs/2"):
        page.locator("#model").select_option(model)
        page.locator("#turn").fill("25")
        page.locator("#x").fill("0.1")
        name, version = model.split("/")
        expect_agreement(page, server, model=name, version=version)


def test_a_mouse_drags_the_picture(page: Page, server: Service) -> None:
    before = outline(page)
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 30, steps=4)
    page.mouse.up()
    box = page.locator("#stage").bounding_box()
    assert box is not None
    assert value(page, "x") == pytest.approx(60 / box["width"], abs=0.005)
    assert value(page, "y") == pytest.approx(-30 / box["height"], abs=0.005)
    expect_agreement(page, server)
    moved = outline(page)
    assert sum(point[0] for point in moved) > sum(point[0] for point in before) + 100


def test_a_drag_of_the_border_turns_it(page: Page, server: Service) -> None:
    x, y = middle(page)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(x, box["y"] - 12)
    page.mouse.down()
    page.mouse.move(x + (y - box["y"]) + 12, y - 1, steps=5)
    page.mouse.up()
    assert value(page, "turn") == pytest.approx(90, abs=2)
    expect_agreement(page, server)


def test_the_wheel_sizes_it_about_the_pointer(page: Page, server: Service) -> None:
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.wheel(0, 200)
    wait_for(page, lambda: value(page, "size") < 0.9, "the picture is smaller")
    assert value(page, "x") == pytest.approx(0, abs=0.02)
    expect_agreement(page, server)


def test_two_fingers_turn_and_size_it(page: Page) -> None:
    x, y = middle(page)
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": px, "y": py, "id": index} for index, (px, py) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x - 80, y))
    touch("touchStart", (x - 80, y), (x + 80, y))
    touch("touchMove", (x, y - 60), (x, y + 60))  # a quarter to the right, three quarters as far apart
    touch("touchEnd")
    wait_for(page, lambda: value(page, "turn") == pytest.approx(90, abs=1), "the picture is turned")
    assert value(page, "size") == pytest.approx(0.75, abs=0.02)


def test_keys_do_the_same(page: Page, server: Service) -> None:
    stage = page.locator("#stage")
    stage.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "]", "]", "[", "-"):
        page.keyboard.press(key)
    assert value(page, "x") == pytest.approx(0.04)
    assert value(page, "y") == pytest.approx(0.02)
    assert value(page, "turn") == 3
    assert value(page, "size") == pytest.approx(0.95)
    expect_agreement(page, server)
    page.keyboard.press("0")
    assert [value(page, name) for name in ("x", "y", "turn", "size")] == [0, 0, 0, 1]


def test_everything_can_be_reached_by_tab_and_the_tabs_by_arrows(page: Page) -> None:
    page.locator("body").press("Tab")
    reached = []
    for _ in range(40):
        reached.append(page.evaluate("() => document.activeElement.id"))
        page.keyboard.press("Tab")
    order = ["tab-look", "model", "open-file", "stage", "turn", "noise", "move", "copy-curl"]
    assert [name for name in dict.fromkeys(reached) if name in order] == order
    page.locator("#tab-look").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel-compare")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#panel-server")).to_be_visible()


def test_sliders_turn_and_disturb_the_picture(page: Page, server: Service) -> None:
    before = stage_picture(page)
    for name, setting in (("clutter", "6"), ("noise", "20")):
        page.locator(f"#{name}").fill(setting)
        after = stage_picture(page)
        assert after != before
        before = after
    page.locator("#invert").check()
    assert stage_picture(page) != before
    expect_agreement(page, server)
    page.locator("#reset").click()
    expect_best(page, "3")


def test_what_is_shown_is_what_the_service_answers(page: Page, server: Service) -> None:
    page.locator("#turn").fill("-20")
    expect_agreement(page, server)
    answer = ask(server, stage_picture(page))
    shown = [float(text.replace("\N{MINUS SIGN}", "-")) for text in page.locator("#theta td").all_inner_texts()]
    assert shown == pytest.approx([number for row in answer["theta"] for number in row], abs=6e-4)
    labels = page.locator("#classes .label").all_inner_texts()
    assert labels == [prediction["label"] for prediction in answer["predictions"]]
    assert "°" in page.locator("#words").inner_text()
    assert {"decode", "queue", "inference", "encode", "total", "round trip", "batch", "answers"} == set(
        page.locator("#times dt").all_inner_texts()
    )


def test_no_two_requests_are_under_way_and_the_newest_is_answered(
    context: BrowserContext, complaints: Complaints, server: Service
) -> None:
    page = context.new_page()
    complaints.listen(page)
    page.add_init_script(COUNT_REQUESTS)
    page.goto(server.url)
    page.locator("#classes li").first.wait_for()
    page.locator("#move").click()
    page.wait_for_function("() => window.sent > 40")
    page.locator("#move").click()
    expect_agreement(page, server)
    assert page.evaluate("() => window.mostUnderWay") == 1


def test_a_moving_picture_shows_what_stands_still(page: Page) -> None:
    page.locator("#move").click()
    expect(page.locator("#move")).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("() => parseInt(document.getElementById('frames').textContent) > 60")
    page.locator("#move").click()
    before, after = (
        float(page.locator(f"#variance-{name}").inner_text().split()[-1]) for name in ("input", "rectified")
    )
    assert before > 0
    assert after > 0
    said = re.search(r"varies ([\d.]+) times", page.locator("#steadiness").inner_text())
    assert said is not None
    assert float(said[1]) == pytest.approx(after / before, abs=0.02)
    assert page.locator("#mean-rectified").evaluate("(c) => [c.width, c.height]") == [20, 20]
