import base64
from typing import Any

import numpy as np
import pytest

from tests.conftest import Service
from tests.service.answers import PICTURE, predict, prediction, without_time
from tests.service.pictures import (
    DIGITS,
    GOLDEN_ANSWERS,
    MANIFEST,
    TRANSFORM,
    VERSION,
    difference,
    encode,
    read,
)

BASE64 = base64.b64encode(PICTURE).decode()
WAYS: dict[str, dict[str, Any]] = {
    "multipart": {"files": {"image": ("digit.png", PICTURE, "image/png")}},
    "multipart of unknown type": {"files": {"image": ("digit", PICTURE, "application/octet-stream")}},
    "multipart beside an option": {"files": {"image": PICTURE}, "data": {"rectified": "png"}},
    "raw": {"content": PICTURE, "headers": {"content-type": "image/png"}},
    "raw with parameters": {"content": PICTURE, "headers": {"content-type": "Image/PNG; q=1"}},
    "raw of another image type": {"content": PICTURE, "headers": {"content-type": "image/jpeg"}},
    "raw of unknown type": {"content": PICTURE, "headers": {"content-type": "application/octet-stream"}},
    "raw of no type": {"content": PICTURE},
    "base64": {"json": {"image": BASE64}},
    "base64 in lines": {"json": {"image": "\n".join([BASE64[:76], BASE64[76:152], BASE64[152:]])}},
    "data URL": {"json": {"image": f"data:image/png;base64,{BASE64}"}},
    "data URL with parameters": {"json": {"image": f"data:image/png;name=digit.png;base64,{BASE64}"}},
    "data URL without type": {"json": {"image": f"data:;base64,{BASE64}"}},
    "JSON with a charset": {
        "content": f'{{"image": "{BASE64}"}}',
        "headers": {"content-type": "application/json; charset=utf-8"},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_send_a_picture_gives_the_same_answer(server: Service, way: str) -> None:
    answer = prediction(server.client.post("/predict", **WAYS[way]))
    assert without_time(answer) == without_time(predict(server))


def test_the_answer_has_the_documented_shape_and_nothing_else(server: Service) -> None:
    answer = predict(server)
    keys = ["model", "predictions", "theta", "corners", "rectified", "batch_size", "timings_ms"]
    assert list(answer) == keys, "transforms is only for models with several transformers"
    assert answer["model"] == {"name": "digits", "version": VERSION}
    assert [list(entry) for entry in answer["predictions"]] == [["label", "index", "probability"]] * 5
    assert np.shape(answer["theta"]) == (2, 3)
    assert np.shape(answer["corners"]) == (4, 2)
    assert answer["rectified"].keys() == {"format", "width", "height", "data"}
    assert answer["batch_size"] == 1
    assert answer["timings_ms"].keys() == {"decode", "queue", "inference", "encode", "total"}


@pytest.mark.parametrize("index", range(len(DIGITS)))
def test_a_golden_picture_gets_its_golden_answer(server: Service, index: int) -> None:
    answer = predict(server, encode(DIGITS[index]), top_k=len(MANIFEST.classes))
    expected = {name: outputs[index] for name, outputs in GOLDEN_ANSWERS.items()}
    found = np.zeros(len(MANIFEST.classes))
    for entry in answer["predictions"]:
        found[entry["index"]] = entry["probability"]
    assert difference(found, expected[MANIFEST.probabilities]) < 1e-3
    assert difference(np.array(answer["theta"]), expected[TRANSFORM.theta]) < 1e-3
    assert difference(read(answer["rectified"]), expected[TRANSFORM.rectified][..., 0]) <= 2


@pytest.mark.parametrize("top_k", [1, 2, 3, len(MANIFEST.classes) - 1, len(MANIFEST.classes)])
def test_top_k_is_how_many_classes_come_back_most_probable_first(server: Service, top_k: int) -> None:
    everything = predict(server, top_k=len(MANIFEST.classes))["predictions"]
    found = predict(server, top_k=top_k)["predictions"]
    assert found == everything[:top_k]
    probabilities = [entry["probability"] for entry in found]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("top_k", [len(MANIFEST.classes) + 1, 1000])
def test_a_top_k_above_the_number_of_classes_gives_them_all(server: Service, top_k: int) -> None:
    predictions = predict(server, top_k=top_k)["predictions"]
    assert {entry["index"]: entry["label"] for entry in predictions} == dict(enumerate(MANIFEST.classes))
    assert sum(entry["probability"] for entry in predictions) == pytest.approx(1, abs=1e-5)


def test_without_top_k_the_five_most_probable_classes_come_back(server: Service) -> None:
    assert predict(server)["predictions"] == predict(server, top_k=5)["predictions"]


def test_a_rectified_png_is_exact_and_the_default(server: Service) -> None:
    answer = predict(server)
    assert answer["rectified"]["format"] == "png"
    assert (answer["rectified"]["width"], answer["rectified"]["height"]) == (TRANSFORM.width, TRANSFORM.height)
    assert without_time(answer) == without_time(predict(server, rectified="png"))


def test_a_rectified_jpeg_shows_the_same_as_the_png(server: Service) -> None:
    exact = read(predict(server, rectified="png")["rectified"])
    jpeg = predict(server, rectified="jpeg")["rectified"]
    assert jpeg["format"] == "jpeg"
    assert np.abs(read(jpeg).astype(float) - exact).mean() < 6


def test_without_a_rectified_image_the_field_is_null_and_the_rest_is_the_same(server: Service) -> None:
    answer = predict(server, rectified="none")
    assert answer["rectified"] is None
    assert without_time(answer | {"rectified": 0}) == without_time(predict(server) | {"rectified": 0})


@pytest.mark.parametrize(
    "options", [{"model": "digits"}, {"version": VERSION}, {"model": "digits", "version": VERSION}]
)
def test_the_model_can_be_named(server: Service, options: dict[str, object]) -> None:
    assert without_time(predict(server, PICTURE, **options)) == without_time(predict(server))


def test_the_timings_add_up(server: Service) -> None:
    timings = predict(server, encode(np.tile(DIGITS[0], (10, 10))))["timings_ms"]
    assert all(value >= 0 for value in timings.values())
    assert timings["decode"] > 0
    assert timings["inference"] > 0
    parts = timings["decode"] + timings["queue"] + timings["inference"] + timings["encode"]
    assert timings["total"] >= parts - 0.01, "each is rounded to microseconds"


def test_the_same_picture_gets_the_same_answer_twice(server: Service) -> None:
    assert without_time(predict(server)) == without_time(predict(server))
