"""Each way to give a picture."""

import base64
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import JSHandle, Page, WebSocket, expect

from tests.conftest import REPOSITORY, Service
from tests.page.looking import best, expect_agreement, expect_best, stage_picture, wait_for

FIVE = REPOSITORY / "models" / "digits" / "samples" / "5.png"
TRANSFER = """
([content, name, type]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}
"""


def transfer(page: Page, content: bytes, name: str = "5.png", kind: str = "image/png") -> JSHandle:
    """A file as a drop or a paste hands it over."""
    return page.evaluate_handle(TRANSFER, [base64.b64encode(content).decode(), name, kind])


def test_it_begins_with_a_sample_and_offers_others(page: Page, server: Service) -> None:
    expect_best(page, "3")
    page.get_by_role("button", name="8", exact=True).click()
    expect_best(page, "8")
    page.locator("#model").select_option("signs/2")
    page.get_by_role("button", name="Stop").click()
    expect_best(page, "Stop")
    expect_agreement(page, server, model="signs")


def test_a_file(page: Page) -> None:
    page.locator("#file").set_input_files(FIVE)
    expect_best(page, "5")


def test_the_button_opens_the_chooser(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="File…").click()
    chooser.value.set_files(FIVE)
    expect_best(page, "5")


def test_a_file_that_is_dropped(page: Page) -> None:
    data = transfer(page, FIVE.read_bytes())
    page.dispatch_event("#frame", "dragover", {"dataTransfer": data})
    expect(page.locator("#drop-hint")).to_be_visible()
    page.dispatch_event("#frame", "drop", {"dataTransfer": data})
    expect(page.locator("#drop-hint")).to_be_hidden()
    expect_best(page, "5")


def test_a_picture_that_is_pasted_by_keys(page: Page) -> None:
    data = transfer(page, FIVE.read_bytes())
    page.evaluate(
        "(data) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        data,
    )
    expect_best(page, "5")


def test_a_picture_that_is_pasted_by_the_button(page: Page) -> None:
    page.evaluate(
        """async (content) => {
          const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(FIVE.read_bytes()).decode(),
    )
    page.get_by_role("button", name="Paste").click()
    expect_best(page, "5")


def test_a_large_picture_is_made_small_without_loss_of_its_answer(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    Image.open(FIVE.with_name("8.png")).resize((3000, 3000), Image.Resampling.BICUBIC).save(large)
    page.locator("#file").set_input_files(large)
    expect_best(page, "8")


def test_the_camera_is_live_until_a_picture_is_kept(page: Page, server: Service) -> None:
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#camera")).to_be_visible()
    first = stage_picture(page)
    wait_for(page, lambda: stage_picture(page) != first, "the camera's picture moves")
    page.get_by_role("button", name="Keep this picture").click()
    expect(page.locator("#camera")).to_be_hidden()
    assert page.locator("#video").evaluate("(video) => video.srcObject") is None
    expect_agreement(page, server)


def test_the_camera_sends_jpeg_files_over_one_stream_and_draws_the_answers(page: Page, server: Service) -> None:
    opened: list[WebSocket] = []
    sent: list[str | bytes] = []
    answers: list[str | bytes] = []
    asked: list[str] = []

    def listen(socket: WebSocket) -> None:
        opened.append(socket)
        socket.on("framesent", lambda frame: sent.append(frame))
        socket.on("framereceived", lambda frame: answers.append(frame))

    page.on("websocket", listen)
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#camera-way")).to_have_text("All pictures go over one connection.")
    page.on("request", lambda request: asked.append(request.url))
    wait_for(page, lambda: len(answers) > 3, "frames are answered")
    assert not any("/predict" in url for url in asked)
    assert [urlsplit(socket.url).path for socket in opened] == ["/stream"]
    assert all(isinstance(frame, bytes) and frame.startswith(b"\xff\xd8\xff") for frame in sent)
    assert [json.loads(answer)["frame"] for answer in answers] == list(range(len(answers)))
    assert len(sent) - len(answers) <= 1, "the next frame is taken once the last one is answered"
    label = json.loads(answers[-1])["predictions"][0]["label"]
    wait_for(page, lambda: best(page) in (label, json.loads(answers[-1])["predictions"][0]["label"]), "it is shown")
    page.get_by_role("button", name="Keep this picture").click()
    wait_for(page, opened[0].is_closed, "the stream is closed")
    expect_agreement(page, server)


def test_another_picture_ends_the_camera(page: Page) -> None:
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#camera")).to_be_visible()
    page.get_by_role("button", name="8", exact=True).click()
    expect(page.locator("#camera")).to_be_hidden()
    expect_best(page, "8")
    assert page.locator("#video").evaluate("(video) => video.srcObject") is None


def test_a_digit_that_is_drawn(page: Page) -> None:
    page.get_by_role("button", name="Draw").click()
    box = page.locator("#ink").bounding_box()
    assert box is not None

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    page.mouse.move(*at(0.5, 0.15))
    page.mouse.down()
    page.mouse.move(*at(0.5, 0.85), steps=8)
    page.mouse.up()
    expect_best(page, "1")
    page.get_by_role("button", name="Clear").click()
    assert not np.asarray(Image.open(io.BytesIO(stage_picture(page))).convert("L")).any()
    page.keyboard.press("Escape")
    expect(page.locator("#pad")).to_be_hidden()


@pytest.mark.parametrize(
    ("content", "name", "kind"), [(b"seven", "notes.txt", "text/plain"), (b"", "5.png", "image/png")]
)
def test_what_is_no_picture_is_said_to_be_none(page: Page, content: bytes, name: str, kind: str) -> None:
    page.dispatch_event("#frame", "drop", {"dataTransfer": transfer(page, content, name, kind)})
    expect(page.locator("#problem-what")).to_have_text(f"{name} is not a picture that this browser can read.")
    expect(page.locator("#problem-todo")).to_contain_text("Choose a PNG")
    expect_best(page, "3")
    page.locator("#file").set_input_files(FIVE)
    expect_best(page, "5")
    expect(page.locator("#problem")).to_be_hidden()


def test_an_empty_paste_is_said_to_be_one(page: Page) -> None:
    page.evaluate("() => navigator.clipboard.writeText('seven')")
    page.get_by_role("button", name="Paste").click()
    expect(page.locator("#problem-what")).to_have_text("There is no picture on the clipboard.")
    page.get_by_role("button", name="Close this message").click()
    expect(page.locator("#problem")).to_be_hidden()
