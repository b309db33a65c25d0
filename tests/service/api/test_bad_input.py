"""Whatever is sent is answered with a prediction or with what is wrong and how to cure it, and breaks nothing."""

from collections.abc import Iterator

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imaging.formats.signatures import MEDIA_TYPES
from tests.conftest import Service, start_service
from tests.imaging.formats.test_pillow_formats import heic
from tests.imaging.formats.tiffs import Layout, write
from tests.service.answers import PICTURE, predict, prediction, refused, well
from tests.service.broken import COLOUR, DAMAGED, FOREIGN, HUGE, ODD, WHOLE, png, rows
from tests.service.pictures import encode, read

MAX_BYTES = 200_000
MAX_PIXELS = 1_000_000
GREY = np.asarray(Image.fromarray(COLOUR).convert("L"))
UNREAD = {
    "a TIFF of floating-point numbers": (encode(GREY.astype(np.float32), "TIFF"), "save it as a TIFF of 8-bit grey"),
    "a TIFF of signed levels": (encode(GREY.astype(np.int32), "TIFF"), "save it as a TIFF of 8-bit grey"),
    "a hierarchical JPEG": (b"\xff\xd8\xff\xc5\0\x0b\x08\0\x08\0\x08\1\1\x11\0\xff\xd9", "send it as a JPEG of 8 bits"),
}
READ = {
    "HEIC": heic(COLOUR),
    "AVIF": encode(COLOUR, "AVIF", quality=100),
    "JPEG of 12 bits": bytes(imagecodecs.jpeg8_encode(GREY.astype(np.uint16) * 16, level=100, bitspersample=12)),
    "TIFF of 12 bits": write(GREY.astype(np.uint16) * 16, Layout(bits=12)),
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    """A service with limits that are easy to exceed."""
    with start_service("--max-bytes", MAX_BYTES, "--max-pixels", MAX_PIXELS) as service:
        yield service


@pytest.fixture(autouse=True, scope="module")
def every_service_stays_well(server: Service, strict: Service) -> Iterator[None]:
    yield
    well(server)
    well(strict)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_refused(server: Service, name: str) -> None:
    refused(server.client.post("/predict", content=DAMAGED[name]), 400, "invalid_image", "send it again whole")
    well(server)


@pytest.mark.parametrize("name", HUGE)
def test_a_header_that_claims_billions_of_pixels_is_refused_undecoded(server: Service, name: str) -> None:
    refused(server.client.post("/predict", content=HUGE[name]), 413, "too_large", "scale it down")
    well(server)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_that_viewers_show_is_answered(server: Service, name: str) -> None:
    prediction(server.client.post("/predict", content=ODD[name]))
    well(server)


@pytest.mark.parametrize("name", FOREIGN)
def test_another_kind_of_file_is_refused_with_the_formats_that_are_taken(server: Service, name: str) -> None:
    refused(
        server.client.post("/predict", files={"image": FOREIGN[name]}), 415, "unsupported_media_type", "send PNG, JPEG"
    )
    well(server)


@pytest.mark.parametrize("name", ["HTML", "zip", "PDF", "SVG", "ICO", "JPEG 2000", "sound"])
def test_the_bytes_decide_and_not_the_declared_type(server: Service, name: str) -> None:
    response = server.client.post("/predict", content=FOREIGN[name], headers={"content-type": "image/jpeg"})
    refused(response, 415, "unsupported_media_type", "which is not taken; ")


@pytest.mark.parametrize("name", UNREAD)
def test_a_whole_picture_of_a_kind_that_is_not_read_is_named(server: Service, name: str) -> None:
    data, kind = UNREAD[name]
    refused(server.client.post("/predict", content=data), 415, "unsupported_media_type", kind)


@pytest.mark.parametrize("name", READ)
def test_what_phones_scanners_and_clinics_make_is_answered(server: Service, name: str) -> None:
    response = server.client.post("/predict", content=READ[name], headers={"content-type": "image/jpeg"})
    levels = GREY if name in ("TIFF of 12 bits", "JPEG of 12 bits") else COLOUR
    expected = predict(server, encode(levels))
    found = prediction(response)
    assert np.abs(read(found["rectified"]).astype(float) - read(expected["rectified"])).mean() < 4


@pytest.mark.parametrize("declared", sorted(MEDIA_TYPES))
def test_what_is_declared_as_a_picture_and_is_none_is_a_bad_picture(server: Service, declared: str) -> None:
    response = server.client.post("/predict", content=b"seven", headers={"content-type": declared})
    refused(response, 400, "invalid_image", "is the file complete?")


@pytest.mark.parametrize("declared", ["image/svg+xml", "image/jxl", "image/", "image/\u00ff", "IMAGE/X-ICON; a=b"])
def test_a_picture_type_that_is_not_taken_is_told_from_a_damaged_file(server: Service, declared: str) -> None:
    headers = {b"content-type": declared.encode("latin-1")}
    refused(
        server.client.post("/predict", content=b"seven", headers=headers),
        415,
        "unsupported_media_type",
        "send PNG, JPEG",
    )


def test_a_decompression_bomb_is_refused(strict: Service) -> None:
    bomb = png(10_000, 10_000, rows(10_000, 10_000))
    assert len(bomb) < MAX_BYTES
    refused(strict.client.post("/predict", content=bomb), 413, "too_large", f"at most {MAX_PIXELS}")


@pytest.mark.parametrize("side", [1000, 1001])
def test_the_limit_of_pixels_is_exact(strict: Service, side: int) -> None:
    response = strict.client.post("/predict", content=png(side, 1000, rows(side, 1000)))
    if side == 1000:
        prediction(response)
    else:
        refused(response, 413, "too_large", "1001 x 1000")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize("excess", [0, 1, 5_000_000])
def test_the_limit_of_bytes_is_exact(strict: Service, declared: bool, excess: int) -> None:
    body = PICTURE + bytes(MAX_BYTES + excess - len(PICTURE))
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    response = strict.client.post("/predict", content=body if declared else pieces)
    if excess == 0:
        prediction(response)
    else:
        refused(response, 413, "too_large", f"more than {MAX_BYTES} bytes")


@pytest.mark.parametrize("field", ["image", "other"])
def test_the_limit_of_bytes_holds_in_multipart(strict: Service, field: str) -> None:
    response = strict.client.post("/predict", files={field: bytes(MAX_BYTES + 1)})
    refused(response, 413, "too_large", f"more than {MAX_BYTES} bytes")


OPTIONS: dict[str, tuple[int, str, str]] = {
    "top_k=0": (422, "invalid_parameter", "top_k"),
    "top_k=-1": (422, "invalid_parameter", "top_k"),
    "top_k=abc": (422, "invalid_parameter", "top_k"),
    "top_k=": (422, "invalid_parameter", "top_k"),
    "top_k=1.5": (422, "invalid_parameter", "top_k"),
    "top_k=nan": (422, "invalid_parameter", "top_k"),
    "top_k=1e9": (422, "invalid_parameter", "top_k"),
    "top_k=1001": (422, "invalid_parameter", "top_k"),
    "top_k=" + "9" * 5000: (422, "invalid_parameter", "top_k"),
    "rectified=gif": (422, "invalid_parameter", "'png', 'jpeg', 'webp' or 'none'"),
    "rectified=": (422, "invalid_parameter", "rectified"),
    "rectified_size=": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=huge": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=0x5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=-5x5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=5x": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=1e3x5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=5X5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=5x5x5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=5x5%0A": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=%D9%A5x%D9%A5": (422, "invalid_parameter", "rectified_size"),
    "rectified_size=100000x1": (422, "invalid_parameter", "rectified_size"),
    "padding=red&rectified_size=source": (422, "invalid_parameter", "'black', 'white', 'edge' or 'transparent'"),
    "padding=white": (422, "invalid_parameter", "need rectified_size"),
    "padding=transparent&rectified_size=source&rectified=jpeg": (422, "invalid_parameter", "JPEG"),
    "margin=0.1": (422, "invalid_parameter", "need rectified_size"),
    "margin=-0.1&rectified_size=source": (422, "invalid_parameter", "margin"),
    "margin=1.01&rectified_size=source": (422, "invalid_parameter", "margin"),
    "margin=nan&rectified_size=source": (422, "invalid_parameter", "margin"),
    "margin=inf&rectified_size=source": (422, "invalid_parameter", "margin"),
    "margin=-inf&rectified_size=source": (422, "invalid_parameter", "margin"),
    "margin=1e999&rectified_size=source": (422, "invalid_parameter", "margin"),
    "version=0": (422, "invalid_parameter", "version"),
    "version=x": (422, "invalid_parameter", "version"),
    "version=999": (404, "model_not_found", "it has: "),
    "version=" + "9" * 400: (404, "model_not_found", "it has: "),
    "model=unknown": (404, "model_not_found", "there are: digits"),
    "model=": (404, "model_not_found", "there are: digits"),
    "model=../digits": (404, "model_not_found", "there are: digits"),
    "model=digits%2F1": (404, "model_not_found", "there are: digits"),
    "model=digits%00": (404, "model_not_found", "there are: digits"),
    "model=%ff%fe": (404, "model_not_found", "there are: digits"),
    "model=Digits": (404, "model_not_found", "there are: digits"),
    "model=" + "x" * 20_000: (404, "model_not_found", "there are: digits"),
    "topk=3": (422, "invalid_parameter", "topk"),
    "%00=%00": (422, "invalid_parameter", "/docs"),
    "top_k=0&version=x": (422, "invalid_parameter", "version"),
}


@pytest.mark.parametrize("query", OPTIONS, ids=lambda query: query[:24])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_wrong_option_is_refused(server: Service, path: str, query: str) -> None:
    refused(server.client.post(f"{path}?{query}", files={"image": PICTURE, "images": PICTURE}), *OPTIONS[query])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/predicts", 404, "not_found"),
        ("POST", "/predict/batch/1", 404, "not_found"),
        ("POST", "/predict%00", 404, "not_found"),
        ("POST", "/%70redict%2fbatch%3f", 404, "not_found"),
        ("GET", "/" + "a/" * 5000, 404, "not_found"),
        ("GET", "/swagger/..%2f..%2f..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("GET", "/%ff%fe/%c0%ae", 404, "not_found"),
        ("GET", "/health", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("PUT", "/predict", 405, "method_not_allowed"),
        ("PATCH", "/predict/batch", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("OPTIONS", "/predict", 405, "method_not_allowed"),
        ("TRACE", "/health/live", 405, "method_not_allowed"),
        ("POST", "/health/ready", 405, "method_not_allowed"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_not_there_is_refused(server: Service, method: str, path: str, status: int, code: str) -> None:
    response = server.client.request(method, path)
    refused(response, status, code, "/docs")
    assert ("allow" in response.headers) == (status == 405)
    well(server)


def test_an_answer_to_head_has_no_body(server: Service) -> None:
    for path in ("/predict", "/nowhere"):
        response = server.client.head(path)
        assert response.status_code in {404, 405}
        assert response.content == b""
    well(server)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good picture with some bytes flipped, deleted, inserted or cut off."""
    content = bytearray(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(draw(st.integers(1, 6))):
        # Headers, where most of the meaning is, are hit as often as all the rest.
        position = draw(st.integers(0, min(64, len(content))) | st.integers(0, len(content)))
        match draw(st.sampled_from(["flip", "delete", "insert", "cut"])):
            case "flip" if position < len(content):
                content[position] ^= draw(st.integers(1, 255))
            case "delete":
                del content[position : position + draw(st.integers(1, 16))]
            case "insert":
                content[position:position] = draw(st.binary(min_size=1, max_size=16))
            case "cut":
                del content[max(position, 1) :]
            case _:
                pass
    return bytes(content)


@settings(
    max_examples=400,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=mutations())
def test_a_mutated_picture_is_answered_or_refused(strict: Service, content: bytes) -> None:
    response = strict.client.post("/predict", content=content)
    if response.status_code == 200:
        prediction(response)
    else:
        codes: dict[int, str] = {400: "invalid_image", 413: "too_large", 415: "unsupported_media_type"}
        refused(response, response.status_code, codes[response.status_code])
