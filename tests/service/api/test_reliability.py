"""Reliability and views of pictures, over HTTP."""

import base64
import json

import httpx
import numpy as np
import pytest

from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, predict, prediction, refused, well, without_time
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, HEIGHT, VERSION, WIDTH, drawing, encode


def batch(service: Service, pictures: int, **options: int) -> httpx.Response:
    return service.client.post("/predict/batch", params=options, files=[("images", PICTURE)] * pictures)


def ask(service: Service, **options: int) -> httpx.Response:
    return service.client.post("/predict", params=options, content=PICTURE)


def test_an_answer_says_how_far_to_trust_it(server: Service) -> None:
    plain, found = predict(server), predict(server, reliability=8)
    told = found.pop("reliability")
    assert found.pop("batch_size") == 9
    assert told["views"] == 8
    assert told["angle"] == "follows"
    assert told["label_agreement"] > 0.8
    assert 0 < told["corner_deviation_px"] < 3
    assert 0 < told["score"] <= 1
    assert told["within_px"] > 0
    plain.pop("batch_size")
    for one, other in zip(found["corners"], plain["corners"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert found.keys() == plain.keys(), "nothing else is said"


def test_probabilities_are_averaged_over_views(server: Service) -> None:
    plain, found = predict(server, top_k=10), predict(server, top_k=10, views=16)
    assert found["batch_size"] == 17
    assert "reliability" not in found
    assert sum(each["probability"] for each in found["predictions"]) == pytest.approx(1, abs=1e-5)
    assert found["predictions"][0]["probability"] != plain["predictions"][0]["probability"]


def test_options_in_a_form_count_as_well(server: Service) -> None:
    form = {"reliability": "4", "views": "4"}
    found = prediction(server.client.post("/predict", files={"image": PICTURE}, data=form))
    assert found["batch_size"] == 5
    assert found["reliability"] == predict(server, reliability=4, views=4)["reliability"]


def test_every_picture_of_a_batch_has_its_own(server: Service) -> None:
    files = [("images", PICTURE), ("images", b"none"), ("images", encode(DIGITS[1]))]
    response = server.client.post("/predict/batch", params={"reliability": 4, "rectified": "none"}, files=files)
    first, second, third = response.json()["results"]
    assert first["reliability"] != third["reliability"]
    assert second["error"]["code"] == "unsupported_media_type"


def test_rectify_says_it_in_a_header(server: Service) -> None:
    response = server.client.post("/rectify", params={"reliability": 4}, files={"image": PICTURE})
    assert json.loads(response.headers["x-reliability"]) == predict(server, reliability=4)["reliability"]
    accept = {"accept": "application/json"}
    response = server.client.post("/rectify", params={"reliability": 4}, files={"image": PICTURE}, headers=accept)
    expected = predict(server, reliability=4, rectified_size="source")
    assert without_time(prediction(response)) == without_time(expected)
    assert "x-reliability" not in server.client.post("/rectify", files={"image": PICTURE}).headers


@pytest.mark.parametrize("path", ["/predict", "/rectify"])
@pytest.mark.parametrize("option", ["reliability", "views"])
@pytest.mark.parametrize("value", ["3", "17", "-1", "1e9", "x", "", "4.5", "1000000000000000000000"])
def test_other_numbers_of_views_are_refused(server: Service, path: str, option: str, value: str) -> None:
    response = server.client.post(path, params={option: value}, files={"image": PICTURE})
    refused(response, 422, "invalid_parameter", option)


@pytest.mark.parametrize(
    "picture",
    [
        encode(np.full((HEIGHT, WIDTH), 128, np.uint8)),
        encode(np.zeros((1, 1), np.uint8)),
        encode(np.zeros((1, 3000), np.uint8)),
        encode(np.zeros((3000, 1, 3), np.uint8)),
        encode(np.dstack((drawing(70, 50), np.full((50, 70), 90, np.uint8)))),
        encode(DIGITS[0].astype(np.uint16) * 257),
    ],
    ids=["grey", "one pixel", "a row", "a column", "transparent", "deep"],
)
@pytest.mark.parametrize("model", ["digits", "signs"])
def test_any_picture_has_views(server: Service, picture: bytes, model: str) -> None:
    found = predict(server, picture, model=model, reliability=16, views=4, rectified="none")
    told = found["reliability"]
    assert 0 <= told["label_agreement"] <= 1
    assert told["corner_deviation_px"] >= 0
    assert 0 <= told["angle_deviation_deg"] <= 180
    well(server)


def test_views_count_as_pictures_of_a_request(server: Service) -> None:
    refused(batch(server, 64, views=16), 413, "too_large", "1024 views")
    well(server)


def test_views_count_as_requests_of_the_client_and_as_pictures_in_flight() -> None:
    with start_service("--rate-limit", "40/hour", "--max-queue", "16") as service:
        refused(batch(service, 3, views=16), 413, "too_large", "40 per 1 hour")  # 1 is counted
        refused(ask(service, views=16), 413, "too_large", "capacity")  # 18
        assert batch(service, 1, views=15).status_code == 200  # 34
        prediction(ask(service, views=4))  # 39
        late = ask(service, reliability=4)  # 40, and too many
        refused(late, 429, "rate_limited", "40 per 1 hour")
        assert int(late.headers["retry-after"]) >= 1


def test_views_are_counted(server: Service) -> None:
    before = scrape(server)("stn_views_total", model="digits", version=VERSION)
    predict(server, views=8, reliability=4)
    assert scrape(server)("stn_views_total", model="digits", version=VERSION) - before == 8


def test_a_second_look_is_the_same_over_every_route_and_is_counted(server: Service) -> None:
    disc = encode(np.where(np.hypot(*np.mgrid[-20.5:21.5, -20.5:21.5]) < 9, np.uint8(255), np.uint8(0)))
    before = scrape(server)("stn_second_looks_total", model="digits", version=VERSION)
    found = predict(server, disc, reliability=8)
    assert found["reliability"]["second_look"]
    assert scrape(server)("stn_second_looks_total", model="digits", version=VERSION) - before == 1
    assert found["corners"] != predict(server, disc)["corners"]
    files = [("images", disc), ("images", PICTURE)]
    first, second = server.client.post("/predict/batch", params={"reliability": 8}, files=files).json()["results"]
    assert not second["reliability"]["second_look"]
    straight = server.client.post("/rectify", params={"reliability": 8}, files={"image": disc})
    corners = [first["corners"], json.loads(straight.headers["x-corners"])]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(disc).decode()]}
    body = {"parameters": {"reliability": 8}, "inputs": [tensor]}
    answer = server.client.post("/v2/models/digits/infer", json=body).json()
    theta = next(each["data"] for each in answer["outputs"] if each["name"] == "theta")
    assert np.reshape(theta, (2, 3)) == pytest.approx(np.array(found["theta"]), abs=1e-4)
    for each in corners:
        assert np.array(each) == pytest.approx(np.array(found["corners"]), abs=0.02)
