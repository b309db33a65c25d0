"""The page's pure functions, as the browser runs them."""

import math
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.conftest import Service

Call = Callable[..., Any]
START = {"x": 0, "y": 0, "turn": 0, "size": 1}
STAGE = {"width": 40, "height": 20}
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]


@pytest.fixture(scope="module")
def call(browser: Any, server: Service) -> Call:
    """Runs ``code``, in which ``m`` is the module of that name, with ``given``."""
    page: Page = browser.new_page()
    page.goto(server.url)
    files = re.search(r"page/[0-9a-f]{16}", page.content())
    assert files is not None

    def run(module: str, code: str, given: Any = None) -> Any:
        url = f"{server.url}/{files[0]}/{module}.js"
        return page.evaluate(f"async ([url, given]) => {{ const m = await import(url); return {code}; }}", [url, given])

    return run


def test_at_the_start_a_picture_just_fits_in_the_middle(call: Call) -> None:
    matrix = call("stage/placement", "m.matrix(m.START, {width: 10, height: 10}, given)", STAGE)
    assert matrix == pytest.approx([2, 0, 0, 2, 10, 0])


def test_a_turn_is_clockwise_about_the_pictures_middle(call: Call) -> None:
    a, b, c, d, e, f = call(
        "stage/placement", "m.matrix({...m.START, turn: 90, x: 0.25}, {width: 20, height: 20}, given)", STAGE
    )
    assert [a * 10 + c * 10 + e, b * 10 + d * 10 + f] == pytest.approx([30, 10])  # the middle
    assert [a * 10 + e, b * 10 + f] == pytest.approx([40, 10])  # what was above it is to the right


def test_placements_are_kept_within_what_the_sliders_show(call: Call) -> None:
    wild = {"x": 7, "y": -7, "turn": 540, "size": 100}
    assert call("stage/placement", "m.within(given)", wild) == {"x": 1, "y": -1, "turn": 180, "size": 3}
    assert call("stage/placement", "m.within({...m.START, turn: -190}).turn") == 170


def test_a_pinch_keeps_what_is_under_the_fingers_under_them(call: Call) -> None:
    before, after = [[10, 5], [30, 8]], [[14, 3], [20, 18]]
    found = call(
        "stage/placement",
        """(() => {
          const [stage, [before, after]] = given, picture = {width: 10, height: 10};
          const start = {x: 0.1, y: -0.1, turn: 20, size: 1.1};
          const end = m.pinch(start, before, after, stage);
          const at = (p, [x, y]) => { const [a, b, c, d, e, f] = m.matrix(p, picture, stage);
            return [a * x + c * y + e, b * x + d * y + f]; };
          const back = (p, [x, y]) => { const [a, b, c, d, e, f] = m.matrix(p, picture, stage), det = a * d - b * c;
            return [(d * (x - e) - c * (y - f)) / det, (a * (y - f) - b * (x - e)) / det]; };
          return before.map((point) => at(end, back(start, point)));
        })()""",
        [STAGE, [before, after]],
    )
    assert np.allclose(found, after)


def test_a_zoom_keeps_what_is_under_the_pointer_even_at_the_limit(call: Call) -> None:
    code = """[1.5, 100].map((factor) => {
      const end = m.zoom(m.START, factor, [30, 5], given), [x, y] = m.centre(end, given);
      return [(x - 30) / end.size, (y - 5) / end.size];
    })"""
    assert np.allclose(call("stage/placement", code, STAGE), [[-10, 5], [-10, 5]])


def test_the_path_begins_at_home_and_is_smooth(call: Call) -> None:
    home = {"x": 0.1, "y": 0, "turn": 5, "size": 0.9}
    way = call("stage/placement", "Array.from({length: 600}, (_, i) => m.path(given, i / 60))", home)
    assert way[0] == pytest.approx(home)
    turns = np.array([place["turn"] for place in way])
    assert np.abs(np.diff(turns)).max() < 1
    assert np.ptp(turns) > 60


@pytest.mark.parametrize("degrees", [-170, -23, 0, 60, 135])
def test_theta_is_taken_apart_into_turn_zoom_and_shift(call: Call, degrees: float) -> None:
    width, height, zoom = 40, 20, 1.4
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    theta = [[cosine, -sine * height / width, 0.3], [sine * width / height, cosine, -0.1]]
    parts = call("lib/geometry", "m.takeApart(given, {width: 40, height: 20})", theta)
    assert parts["turn"] == pytest.approx(degrees)
    assert parts["zoom"] == pytest.approx(zoom)
    assert (parts["right"], parts["down"]) == (pytest.approx(6), pytest.approx(-1))
    assert parts["stretch"] == pytest.approx(1)
    assert parts["mirrored"] is False


@pytest.mark.parametrize(
    ("theta", "words"),
    [
        ([[1, 0, 0], [0, 1, 0]], "not turned, not zoomed, looking at the middle"),
        ([[0.7, 0, 0.3], [0, 0.7, 0]], "not turned, zoomed 1.4×, looking 6 px right"),  # noqa: RUF001
        (
            [[0.9205, 0.3907, -0.1], [-0.3907, 0.9205, -0.2]],
            "turned 23° left, not zoomed, looking 2 px left and 4 px up",
        ),
        ([[1, 0, 0], [0, 0.5, 0]], "not turned, zoomed 1.4×, looking at the middle, stretched 2.0×"),  # noqa: RUF001
        ([[-1, 0, 0], [0, 1, 0]], "not turned, not zoomed, looking at the middle, mirrored"),
    ],
)
def test_theta_in_words(call: Call, theta: list[list[float]], words: str) -> None:
    assert call("lib/geometry", "m.inWords(m.takeApart(given, {width: 40, height: 40}))", theta) == words


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.1118, 3, "−0.112"), (-0.0004, 3, "0.000"), (-0.4, 0, "0"), (-8, 0, "−8"), (8, 0, "8")],  # noqa: RUF001
)
def test_numbers_have_a_minus_only_below_zero(call: Call, value: float, digits: int, text: str) -> None:
    assert call("lib/format", f"m.signed(given, {digits})", value) == text


@pytest.mark.parametrize(("shift", "share"), [(0, 0), (5, 0.5), (10, 1), (-2.5, 0.25)])
def test_the_share_outside_is_one_of_area(call: Call, shift: float, share: float) -> None:
    moved = [[x + shift, y] for x, y in SQUARE]
    assert call("lib/geometry", "m.outsideShare(given, {width: 10, height: 10})", moved) == pytest.approx(share)


def test_the_border_of_a_grid_runs_clockwise(call: Call) -> None:
    grid = [[x, y] for y in range(3) for x in range(3)]
    border = [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [1, 2], [0, 2], [0, 1]]
    assert call("lib/geometry", "m.outline(given)", grid) == border


def test_a_bmp_holds_the_very_pixels(call: Call) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    code = "Array.from(m.toBmp(new ImageData(new Uint8ClampedArray(given), 7, 5)))"
    content = bytes(call("lib/bmp", code, pixels.reshape(-1).tolist()))
    with Image.open(BytesIO(content)) as image:
        assert image.format == "BMP"
        assert np.array_equal(np.asarray(image), pixels[..., :3])


def test_chance_is_the_same_for_the_same_seed(call: Call) -> None:
    code = "(() => { const next = m.random(given); return Array.from({length: 1000}, next); })()"
    one, again, other = call("stage/noise", code, 1), call("stage/noise", code, 1), call("stage/noise", code, 2)
    assert one == again != other
    assert 0 <= min(one) < max(one) < 1
    assert np.mean(one) == pytest.approx(0.5, abs=0.05)


def test_noise_has_the_spread_that_was_asked_for(call: Call) -> None:
    code = "(() => { const p = new Uint8ClampedArray(40000).fill(128); m.addNoise(p, 20, 1); return Array.from(p); })()"
    found = np.array(call("stage/noise", code)).reshape(-1, 4)
    assert found[:, 0].std() == pytest.approx(20, rel=0.05)
    assert (found[:, 3] == 128).all()


def test_only_the_newest_of_what_was_asked_meanwhile_is_done(call: Call) -> None:
    code = """(async () => {
      let [now, done, most, busy] = [0, [], 0, 0];
      const loop = new m.LatestOnly(async () => {
        const seen = now;
        most = Math.max(most, ++busy);
        await new Promise((resolve) => setTimeout(resolve, 5));
        busy -= 1;
        done.push(seen);
      });
      for (now = 1; now <= 50; now++) loop.ask();
      now = 50;
      while (loop.busy) await new Promise((resolve) => setTimeout(resolve, 5));
      return { done, most };
    })()"""
    assert call("lib/latest", code) == {"done": [1, 50], "most": 1}


def test_mean_and_variance_are_those_of_numpy(call: Call) -> None:
    frames = np.random.default_rng(1).normal(100, 30, (9, 6))
    code = """(() => { const s = new m.Spread(); given.forEach((frame) => s.add(frame));
      return [Array.from(s.mean), s.variance()]; })()"""
    mean, variance = call("views/motion", code, frames.tolist())
    assert np.allclose(mean, frames.mean(axis=0))
    assert variance == pytest.approx(frames.var(axis=0, ddof=1).mean())


def test_an_address_is_read_as_it_was_written(call: Call) -> None:
    shared = {
        "model": "a b&c",
        "version": 3,
        "sample": "Speed limit (30km h).png",
        "picture": None,
        "placement": {"x": 0.25, "y": -0.125, "turn": -30, "size": 0.8},
        "disturbance": {"clutter": 3, "noise": 10, "invert": True},
    }
    assert call("export/share", "m.fromHash('#' + m.toHash(given))", shared) == shared


def test_a_command_quotes_what_a_shell_would_change(call: Call) -> None:
    command = call("export/share", "m.toCurl(\"http://h/predict?a='&b=$(c)\", 'AA==', true)")
    assert "'http://h/predict?a='\\''&b=$(c)'" in command
    assert '"Authorization: Bearer $STN_API_KEY"' in command


def test_metrics_are_read_with_their_labels(call: Call) -> None:
    text = '# HELP a b\na{model="x\\"y",version="1"} 3\na{model="z"} 4.5e0 1700000000\nb +Inf\n'
    assert call("lib/prometheus", "m.parse(given)", text)[:2] == [
        {"name": "a", "labels": {"model": 'x"y', "version": "1"}, "value": 3},
        {"name": "a", "labels": {"model": "z"}, "value": 4.5},
    ]
    code = """(() => { const [one, two] = given.map((text, i) => new m.Reading(m.parse(text), i * 2000));
      return [m.perSecond(one, two, "n", {k: "1"}), m.perSecond(two, one, "n", {}), m.mean(one, two, "t", {})]; })()"""
    before, after = 'n{k="1"} 4\nn{k="2"} 1\nt_sum 1\nt_count 1\n', 'n{k="1"} 10\nn{k="2"} 2\nt_sum 4\nt_count 7\n'
    assert call("lib/prometheus", code, [before, after]) == [3, 0, 0.5]


def test_agreement_is_shown_of_pictures_with_classes_alone(call: Call) -> None:
    code = """(() => { const labels = 'model="m",version="2",default="1"';
      const text = `stn_rollout_pictures_total{${labels},agrees="true"} 3
stn_rollout_pictures_total{${labels},agrees="false"} 1
stn_rollout_probability_change_count{${labels}} ${given}`;
      return import(new URL("../lib/prometheus.js", url)).then((p) =>
        m.rolloutRows(new p.Reading(p.parse(text), 0))[0].children[3].textContent); })()"""
    assert call("views/rollouts", f"await {code}", 0) == "\u2013"
    assert call("views/rollouts", f"await {code}", 4) == "75.0 %"
