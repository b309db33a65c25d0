"""The rectified picture in full size, beside the model's view."""

import io
import re
from pathlib import Path

from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.service.pictures import DIGITS, save


def test_a_file_is_shown_rectified_in_its_own_resolution_and_can_be_saved(page: Page) -> None:
    picture = save(Image.fromarray(DIGITS[0]).resize((420, 420)), "PNG")
    page.locator("#file").set_input_files(FilePayload(name="seven.png", mimeType="image/png", buffer=picture))
    expect(page.locator("#full")).to_be_visible()
    width, height = page.locator("#full-image").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert min(width, height) > 100, "and not 28"
    assert re.findall(r"\d+", page.locator("#full-size").inner_text()) == [str(width), str(height)]
    with page.expect_download() as download:
        page.locator("#full-save").click()
    assert download.value.suggested_filename == "rectified.png"
    with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as image:
        assert (image.format, image.size) == ("PNG", (width, height))
    page.locator("#turn").fill("25")
    expect(page.locator("#full")).to_be_hidden()
    expect(page.locator("#full")).to_be_visible()
