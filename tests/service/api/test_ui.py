"""The page's files: what is sent with them, what is kept, and what is not there."""

import io
import os
import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.api.ui import FOLDER, list_samples
from tests.conftest import Service, start_service
from tests.service.artifacts import write
from tests.service.pictures import ARTIFACT, DIGITS

LARGEST_PAGE = 150_000
FILES = sorted(file for file in FOLDER.rglob("*") if file.suffix in (".js", ".css", ".svg"))


@pytest.fixture(scope="module")
def index(server: Service) -> httpx.Response:
    answer = server.client.get("/")
    assert answer.status_code == 200
    return answer


def files_of(index: httpx.Response) -> str:
    found = re.search(r'src="(page/[0-9a-f]{16})/main\.js"', index.text)
    assert found is not None
    return found[1]


def test_the_page_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= LARGEST_PAGE


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(index: httpx.Response) -> None:
    policy = dict(part.split(" ", 1) for part in index.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in index.headers["content-security-policy"]
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", index.text) == []
    texts = [file.read_text() for file in FILES] + [index.text]
    addresses = {address for text in texts for address in re.findall(r"https?://[^\s\"')]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nothing loads


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_every_file_has_its_type_and_may_be_kept_for_ever(server: Service, index: httpx.Response, file: Path) -> None:
    answer = server.client.get(f"/{files_of(index)}/{file.relative_to(FOLDER).as_posix()}")
    assert answer.status_code == 200
    assert answer.content == file.read_bytes()
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(types[file.suffix])
    assert "immutable" in answer.headers["cache-control"]


def test_who_has_the_page_already_is_told_so(server: Service, index: httpx.Response) -> None:
    again = server.client.get("/", headers={"If-None-Match": index.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert index.headers["cache-control"] == "no-cache"
    assert server.client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/0000000000000000/main.js",
        "/page/VERSION/none.js",
        "/page/VERSION/lib",
        "/page/VERSION/lib/",
        "/page/VERSION/lib//dom.js",
        "/page/VERSION/index.html",
        "/page/VERSION/jsconfig.json",
        "/page/VERSION/..%2f..%2fapp.py",
        "/page/VERSION/%2e%2e/app.py",
        "/samples/digits/..%2f2%2fmanifest.json",
        "/samples/digits/none.png",
        "/samples/..%2fdigits",
        "/samples/unknown",
        "/samples/unknown/0.png",
    ],
)
def test_nothing_else_is_there(server: Service, index: httpx.Response, path: str) -> None:
    answer = server.client.get(path.replace("page/VERSION", files_of(index)))
    assert answer.status_code == 404
    assert "error" in answer.json()


@pytest.mark.parametrize("model", ["digits", "signs"])
def test_every_bundled_model_has_samples_that_it_knows(server: Service, model: str) -> None:
    names = server.client.get(f"/samples/{model}").json()["samples"]
    assert len(names) >= 6
    for name in names:
        picture = server.client.get(f"/samples/{model}/{name}")
        assert picture.headers["content-type"] == {".png": "image/png", ".jpg": "image/jpeg"}[Path(name).suffix]
        answer = server.client.post("/predict", content=picture.content, params={"model": model}).json()
        label = re.sub(r"\W", "", answer["predictions"][0]["label"])
        assert label == re.sub(r"\W", "", Path(name).stem)


def test_a_model_without_samples_shows_its_golden_pictures(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "1")
    with start_service("--models", tmp_path) as service:
        names = service.client.get("/samples/mine").json()["samples"]
        assert names == [f"picture {number}.png" for number in range(1, len(DIGITS) + 1)]
        for name, pixels in zip(names, DIGITS, strict=True):
            picture = service.client.get(f"/samples/mine/{name}")
            with Image.open(io.BytesIO(picture.content)) as image:
                assert np.array_equal(np.asarray(image), pixels)
        shutil.rmtree(tmp_path / "mine")
        assert service.client.get("/samples/mine/picture 9.png").status_code == 404


def test_a_lone_model_file_has_them_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(ARTIFACT.model)
    with start_service("--models", file) as service:
        assert len(service.client.get("/samples/mine").json()["samples"]) == len(DIGITS)


def test_a_sample_that_is_no_file_holds_nothing_up(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "1")
    (tmp_path / "mine" / "samples").mkdir()
    os.mkfifo(tmp_path / "mine" / "samples" / "1.png")
    with start_service("--models", tmp_path) as service:
        assert service.client.get("/samples/mine/1.png").status_code == 404


def test_numbers_are_in_order_and_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    assert list_samples(tmp_path) == ["9.png", "10.png", "a.jpg"]
    assert list_samples(tmp_path / "none") == []


def test_the_page_can_be_left_out() -> None:
    with start_service(env={"STN_UI": "off"}) as service:
        assert [service.client.get(path).status_code for path in ("/", "/samples/digits")] == [404, 404]
        assert service.client.get("/models").status_code == 200
