"""Rectified pictures of the upload's own resolution: POST /rectify, and the options of the other routes."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, error, predict, prediction, refused, well, without_time
from tests.service.api.open_inference.exchange import answered, ask, files, tensor
from tests.service.broken import DAMAGED
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, VERSION, Answer, drawing, encode, save

LARGE = gaussian_filter(drawing(420, 300), (4, 4, 0))
PHOTOGRAPH = encode(LARGE)
SOURCE = {"rectified_size": "source"}


def rectify(service: Service, picture: bytes = PHOTOGRAPH, accept: str = "*/*", **options: object) -> httpx.Response:
    headers = {"accept": accept}
    response = service.client.post("/rectify", files={"image": picture}, params=options, headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    return response


def seen(content: bytes) -> NDArray[np.float64]:
    """A picture as RGB on black: ``(H, W, 3)``."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(float)
    shown: NDArray[np.float64] = pixels[..., :3] * pixels[..., 3:] / 255
    return shown


def cut_out(picture: NDArray[Any], corners: list[list[float]], width: int, height: int) -> NDArray[np.float64]:
    """What lies between the ``corners`` of an affine map, by SciPy; NaN outside of the picture and at its edge."""
    first, second, _, last = np.array(corners)
    right, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    places = first + right[None, :, None] * (second - first) + down[:, None, None] * (last - first) - 0.5
    columns, rows = np.moveaxis(places, 2, 0)
    levels = [map_coordinates(picture[..., c].astype(float), [rows, columns], order=1) for c in range(3)]
    inside = (columns > 3) & (columns < picture.shape[1] - 4) & (rows > 3) & (rows < picture.shape[0] - 4)
    return np.where(inside[..., None], np.stack(levels, axis=-1), np.nan)


def compare(found: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float = 2) -> None:
    """Both show the same where ``expected`` has numbers."""
    assert found.shape == expected.shape
    known = ~np.isnan(expected)
    assert known.mean() > 0.3
    assert np.abs(found - expected)[known].max() <= tolerance


def test_one_command_gives_the_upright_picture_in_the_format_of_the_upload(server: Service) -> None:
    answer = rectify(server)
    assert answer.headers["content-type"] == "image/png"
    corners = json.loads(answer.headers["x-corners"])
    with Image.open(io.BytesIO(answer.content)) as image:
        width, height = image.size
    first, second, _, last = np.array(corners)
    assert abs(width - np.hypot(*(second - first))) <= 1
    assert abs(height - np.hypot(*(last - first))) <= 1
    compare(seen(answer.content), cut_out(LARGE, corners, width, height))


def test_headers_say_what_the_json_says(server: Service) -> None:
    answer, expected = rectify(server), predict(server, PHOTOGRAPH)
    best = expected["predictions"][0]
    headers = answer.headers
    assert headers["x-model"] == f"digits/{VERSION}"
    assert unquote(headers["x-class"]) == best["label"]
    assert int(headers["x-class-index"]) == best["index"]
    assert float(headers["x-probability"]) == pytest.approx(best["probability"], abs=1e-6)
    np.testing.assert_allclose(json.loads(headers["x-corners"]), expected["corners"], atol=0.006)
    (a, b, _), (c, d, _) = expected["theta"]
    turned = np.degrees(np.arctan2(c * 300 / 420 - b * 420 / 300, a + d))
    assert float(headers["x-angle"]) == pytest.approx(turned, abs=0.006)
    assert headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("picture", "accept", "options", "media_type"),
    [
        (encode(LARGE, "JPEG"), "*/*", {}, "image/jpeg"),
        (encode(LARGE, "WEBP"), "image/*", {}, "image/webp"),
        (encode(LARGE, "TIFF"), "*/*", {}, "image/png"),
        (PHOTOGRAPH, "image/jpeg", {}, "image/jpeg"),
        (PHOTOGRAPH, "image/webp, image/png;q=0.5", {}, "image/webp"),
        (PHOTOGRAPH, "*/*", {"rectified": "webp"}, "image/webp"),
        (encode(LARGE, "JPEG"), "*/*", {"padding": "transparent", "margin": "1", "version": "2"}, "image/png"),
        (encode(LARGE, "JPEG"), "image/webp", {"padding": "transparent", "margin": "1", "version": "2"}, "image/webp"),
    ],
)
def test_the_client_chooses_the_format(
    server: Service, picture: bytes, accept: str, options: dict[str, str], media_type: str
) -> None:
    answer = rectify(server, picture, accept, **options)
    assert answer.headers["content-type"] == media_type
    with Image.open(io.BytesIO(answer.content)) as image:
        assert Image.MIME[image.format or ""] == media_type
        assert (image.mode == "RGBA") == ("padding" in options)


def test_as_json_it_is_the_answer_of_predict(server: Service) -> None:
    found = prediction(rectify(server, accept="application/json"))
    assert without_time(found) == without_time(predict(server, PHOTOGRAPH, **SOURCE))
    small = prediction(rectify(server, accept="application/json", rectified_size="model", top_k=2))
    assert without_time(small) == without_time(predict(server, PHOTOGRAPH, top_k=2))


def test_a_size_may_be_named(server: Service) -> None:
    answer = predict(server, PHOTOGRAPH, rectified_size="60x90")
    assert (answer["rectified"]["height"], answer["rectified"]["width"]) == (60, 90)
    with Image.open(io.BytesIO(rectify(server, rectified_size="model").content)) as image:
        assert image.size == (20, 20)


def test_a_margin_shows_more_of_the_surroundings(server: Service) -> None:
    plain = predict(server, PHOTOGRAPH, rectified_size="500x500")
    wide = predict(server, PHOTOGRAPH, rectified_size="600x600", margin=0.1)
    assert plain["corners"] == wide["corners"], "corners are those of the region that was classified"
    images = [seen(json_file(answer)) for answer in (plain, wide)]
    compare(images[1][50:-50, 50:-50], images[0])


@pytest.mark.parametrize(("padding", "level"), [("black", 0), ("white", 255), ("transparent", 0)])
def test_surroundings_of_the_picture_have_the_colour_that_was_asked_for(
    server: Service, padding: str, level: int
) -> None:
    answer = predict(server, PHOTOGRAPH, rectified_size="100x100", version=2, margin=1, padding=padding)
    with Image.open(io.BytesIO(json_file(answer))) as image:
        assert image.mode == ("RGBA" if padding == "transparent" else "RGB")
    assert (seen(json_file(answer))[0, 0] == level).all()
    edge = seen(json_file(predict(server, PHOTOGRAPH, rectified_size="100x100", version=2, margin=1, padding="edge")))
    assert np.abs(edge[0, 0] - LARGE[0]).max(axis=1).min() <= 2, "a pixel of the upper edge"


def json_file(answer: Answer) -> bytes:
    """The rectified image of an answer."""
    return base64.b64decode(answer["rectified"]["data"])


INKS = Image.fromarray(LARGE).convert("CMYK")
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = Image.fromarray(np.ascontiguousarray(np.rot90(LARGE)))
KINDS: dict[str, tuple[bytes, float]] = {
    "PNG": (PHOTOGRAPH, 2),
    "JPEG": (encode(LARGE, "JPEG", quality=98, subsampling=0), 8),
    "JPEG, turned by EXIF": (save(TURNED, "JPEG", quality=98, subsampling=0, exif=EXIF.tobytes()), 8),
    "PNG, turned by EXIF": (save(TURNED, "PNG", exif=EXIF.tobytes()), 2),
    "JPEG CMYK": (save(INKS, "JPEG", quality=98), 10),
    "TIFF CMYK": (save(INKS, "TIFF"), 3),
    "PNG with alpha, opaque": (encode(np.dstack([LARGE, np.full_like(LARGE[..., 0], 255)])), 2),
    "WebP": (encode(LARGE, "WEBP", lossless=True), 2),
    "BMP": (encode(LARGE, "BMP"), 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_kept_for(server: Service, kind: str) -> None:
    content, tolerance = KINDS[kind]
    answer = predict(server, content, rectified_size="240x330")
    compare(seen(json_file(answer)), cut_out(LARGE, answer["corners"], 330, 240), tolerance)


def test_grey_of_16_bits_keeps_its_levels(server: Service) -> None:
    grey = LARGE[..., 0]
    answer = predict(server, encode(grey.astype(np.uint16) * 257), rectified_size="240x330")
    compare(seen(json_file(answer)), cut_out(np.dstack([grey] * 3), answer["corners"], 330, 240))


def test_transparent_parts_stay_transparent(server: Service) -> None:
    glass = np.dstack([LARGE, np.full_like(LARGE[..., 0], 128)])
    answer = predict(server, encode(glass), rectified_size="240x330")
    with Image.open(io.BytesIO(json_file(answer))) as image:
        assert set(np.unique(np.asarray(image)[100:140, 140:190, 3])) <= {127, 128, 129}
    compare(seen(json_file(answer)), cut_out(LARGE * (128 / 255), answer["corners"], 330, 240))


def test_each_picture_of_a_batch_has_its_own(server: Service) -> None:
    pictures = [("images", picture) for picture in (PHOTOGRAPH, DAMAGED["PNG without pixels"], encode(DIGITS[1]))]
    options = {"rectified_size": "source", "padding": "edge", "rectified": "webp"}
    good, bad, other = server.client.post("/predict/batch", files=pictures, params=options).json()["results"]
    error(json.dumps(bad).encode(), "invalid_image")
    for found, picture in ((good, PHOTOGRAPH), (other, encode(DIGITS[1]))):
        assert without_time(found | {"batch_size": 1}) == without_time(predict(server, picture, **options))
    assert good["rectified"]["width"] > 40


def test_options_may_be_fields_of_the_form(server: Service) -> None:
    data = {"rectified_size": "30x40", "padding": "white"}
    answer = server.client.post("/rectify", files={"image": PHOTOGRAPH}, data=data)
    assert answer.content == rectify(server, rectified_size="30x40", padding="white").content


def test_without_a_rectified_image_nothing_is_sampled(server: Service) -> None:
    before = scrape(server)("stn_rectified_images_total")
    assert predict(server, PHOTOGRAPH, rectified="none", **SOURCE)["rectified"] is None
    assert scrape(server)("stn_rectified_images_total") == before


def test_sampled_images_are_counted(server: Service) -> None:
    before = scrape(server)
    predict(server, PHOTOGRAPH, rectified_size="30x40")
    rectify(server, rectified_size="10x10")
    after = scrape(server)
    labels = {"model": "digits", "version": VERSION}
    assert after("stn_rectified_images_total", **labels) - before("stn_rectified_images_total", **labels) == 2
    assert after("stn_rectified_pixels_total", **labels) - before("stn_rectified_pixels_total", **labels) == 1300
    assert after("stn_requests_total", route="/rectify") - before("stn_requests_total", route="/rectify") == 1


def test_open_inference_has_it_as_an_output(server: Service) -> None:
    pictures = [PHOTOGRAPH, encode(DIGITS[1])]
    output = {"name": "rectified_source", "parameters": {"rectified": "webp", "rectified_size": "50x60", "margin": 0.1}}
    expected = [rectify(server, each, "image/webp", rectified_size="50x60", margin=0.1).content for each in pictures]
    elements = b"".join(len(each).to_bytes(4, "little") + each for each in pictures)
    request = {"inputs": [files(*pictures)], "outputs": [output, {"name": "theta"}]}
    (found, theta) = answered(ask(server, request, elements))["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2])
    assert [base64.b64decode(text) for text in found["data"]] == expected
    assert theta["shape"] == [2, 2, 3]
    request["outputs"] = [output | {"parameters": output["parameters"] | {"binary_data": True}}]  # type: ignore[operator]
    binary = ask(server, request, elements)
    assert binary.content.endswith(b"".join(len(each).to_bytes(4, "little") + each for each in expected))


def test_open_inference_takes_the_options_from_the_request_and_tensors_as_pictures(server: Service) -> None:
    request = {
        "inputs": [tensor(DIGITS[0][None, ..., None])],
        "outputs": [{"name": "rectified_source"}],
        "parameters": {"rectified_size": "20x20"},
    }
    (found,) = answered(ask(server, request))["outputs"]
    assert base64.b64decode(found["data"][0]) == rectify(server, PICTURE, rectified_size="20x20").content


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"rectified": "gif"}, 400),
        ({"rectified_size": "0x0"}, 400),
        ({"rectified_size": [1, 2]}, 400),
        ({"rectified_size": "9999x9999"}, 413),
        ({"margin": "nan"}, 400),
        ({"margin": 1e400}, 400),
        ({"margin": True}, 400),
        ({"padding": None}, 400),
        ({"padding": "x" * 3000}, 400),
    ],
)
def test_open_inference_refuses_wrong_options(server: Service, parameters: dict[str, Any], status: int) -> None:
    output = {"name": "rectified_source", "parameters": parameters}
    answer = ask(server, {"inputs": [tensor(DIGITS[0][None, ..., None])], "outputs": [output]})
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    well(server)


def test_wrong_requests_are_refused(server: Service) -> None:
    for accept, options, expected in (
        ("text/html", {}, (406, "not_acceptable", "image/png")),
        ("image/jpeg", {"padding": "transparent"}, (422, "invalid_parameter", "JPEG")),
        ("image/png", {"rectified": "webp"}, (406, "not_acceptable", "image/webp, application/json")),
        ("*/*", {"rectified": "none"}, (422, "invalid_parameter", "rectified")),
        ("*/*", {"rectified_size": "model", "margin": 0.2}, (422, "invalid_parameter", "need rectified_size")),
        ("*/*", {"model": "nobody"}, (404, "model_not_found", "nobody")),
    ):
        answer = server.client.post("/rectify", content=PICTURE, params=options, headers={"accept": accept})  # type: ignore[arg-type]
        refused(answer, *expected)
    refused(server.client.post("/rectify", content=DAMAGED["PNG without pixels"]), 400, "invalid_image")


@pytest.mark.parametrize("size", ["99999x1", "1x16384", "16383x16383"])
def test_sizes_beyond_all_limits_are_refused_on_every_route(server: Service, size: str) -> None:
    for path, field in (("/predict", "image"), ("/rectify", "image"), ("/predict/batch", "images")):
        answer = server.client.post(path, files={field: PICTURE}, params={"rectified_size": size})
        refused(answer, 413, "too_large", "16383 on each side")


@pytest.fixture(scope="module")
def narrow() -> Iterator[Service]:
    """A service with limits that are easy to exceed, and memory for one picture."""
    limits = ("--max-rectified-pixels", 1000, "--max-source-bytes", 1, "--api-keys", "")
    with start_service(*limits) as service:
        yield service
        well(service)


def test_the_pixels_of_a_response_are_limited(narrow: Service) -> None:
    refused(narrow.client.post("/predict?rectified_size=25x41", content=PICTURE), 413, "too_large", "1000 pixels each")
    assert predict(narrow, PICTURE, rectified_size="25x40")["rectified"]["width"] == 40
    scaled = predict(narrow, PHOTOGRAPH, **SOURCE)["rectified"]
    assert 900 < scaled["width"] * scaled["height"] <= 1000
    several = [("images", PHOTOGRAPH)] * 4
    for found in narrow.client.post("/predict/batch", files=several, params=SOURCE).json()["results"]:
        assert found["rectified"]["width"] * found["rectified"]["height"] <= 250
    refused(narrow.client.post("/predict/batch?rectified_size=16x16", files=several), 413, "too_large", "250 pixels")


def test_pictures_wait_for_memory_until_their_deadline(narrow: Service) -> None:
    several = [("images", PHOTOGRAPH)] * 20
    answers = narrow.client.post("/predict/batch", files=several, params=SOURCE).json()["results"]
    assert all("rectified" in found for found in answers), "one after the other"
