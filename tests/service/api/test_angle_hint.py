"""A hint at the angle of the thing in a picture: the model is shown it upright; the answer is that of the upload."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.inference.outputs import angle
from tests.conftest import Service
from tests.service.answers import predict, refused, well
from tests.service.api.test_rectify import compare, cut_out, seen
from tests.service.pictures import DIGITS, encode

WIDTH, HEIGHT = 90, 80
UPRIGHT = np.asarray(Image.fromarray(DIGITS[0]).resize((WIDTH, HEIGHT)).convert("RGB"))
QUARTERS = {0: None, 90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, -90: Image.Transpose.ROTATE_90}
"""How Pillow turns a picture clockwise."""


def turned(degrees: int, pixels: NDArray[np.uint8] = UPRIGHT) -> NDArray[np.uint8]:
    """``pixels``, turned clockwise by a multiple of 90 degrees."""
    how = QUARTERS[degrees]
    return np.asarray(Image.fromarray(pixels) if how is None else Image.fromarray(pixels).transpose(how))


def turn_points(points: Any, degrees: float, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.float64]:
    """Points of the upright picture in the picture that is turned clockwise by ``degrees``, which are quarters."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centred = np.array(points) - (width / 2, height / 2)
    size = np.abs([[cosine, -sine], [sine, cosine]]) @ (width, height)
    found: NDArray[np.float64] = centred @ np.array([[cosine, -sine], [sine, cosine]]).T + size / 2
    return found


def angle_of(found: dict[str, Any], width: int, height: int) -> float:
    return angle(found["theta"], width, height)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_picture_with_a_hint_is_answered_as_the_upright_one_in_its_own_coordinates(
    server: Service, degrees: int
) -> None:
    upright = predict(server, encode(UPRIGHT), points=3)
    found = predict(server, encode(turned(degrees)), angle_hint=degrees, points=3)
    assert found["predictions"][0]["label"] == upright["predictions"][0]["label"]
    assert found["predictions"][0]["probability"] == pytest.approx(upright["predictions"][0]["probability"], abs=0.05)
    np.testing.assert_allclose(found["corners"], turn_points(upright["corners"], degrees), atol=1)
    np.testing.assert_allclose(found["points"], turn_points(upright["points"], degrees), atol=1)
    width, height = turned(degrees).shape[1::-1]
    off = angle_of(found, width, height) - angle_of(upright, WIDTH, HEIGHT) - degrees
    assert abs((off + 180) % 360 - 180) < 4
    assert (
        np.abs(
            seen(base64.b64decode(found["rectified"]["data"])) - seen(base64.b64decode(upright["rectified"]["data"]))
        ).mean()
        < 6
    ), "the rectified image is upright"


def test_a_hint_of_any_size_brings_the_thing_upright(server: Service) -> None:
    image = Image.fromarray(UPRIGHT).rotate(-130, Image.Resampling.BICUBIC, expand=True)
    upright = predict(server, encode(UPRIGHT))
    lost, found = (predict(server, encode(np.asarray(image)), angle_hint=hint) for hint in (0, 130))
    assert found["predictions"][0]["label"] == upright["predictions"][0]["label"]
    assert abs(angle_of(found, *image.size) - angle_of(upright, WIDTH, HEIGHT) - 130) < 12
    assert abs(angle_of(lost, *image.size)) < 100, "without the hint it is not found"


def test_no_hint_is_no_turn(server: Service) -> None:
    plain, found = predict(server, encode(UPRIGHT)), predict(server, encode(UPRIGHT), angle_hint="-0.0")
    for name in ("predictions", "theta", "corners", "rectified"):
        assert found[name] == plain[name]


@pytest.mark.parametrize("degrees", [90, 25.5])
def test_the_rectified_picture_is_sampled_from_the_upload_at_the_corners_of_the_answer(
    server: Service, degrees: float
) -> None:
    picture = turned(90)
    options: dict[str, Any] = {"angle_hint": degrees, "rectified_size": "source", "padding": "edge"}
    found = predict(server, encode(picture), **options)
    file = found["rectified"]
    shown = seen(base64.b64decode(file["data"]))
    inside = np.array(found["corners"])
    if (inside >= 1).all() and (inside <= (HEIGHT - 1, WIDTH - 1)).all():
        compare(shown, cut_out(picture, found["corners"], file["width"], file["height"]))
    sides = np.linalg.norm(np.diff([*found["corners"], found["corners"][0]], axis=0), axis=1)
    assert abs(file["width"] - sides[0]) <= 1
    assert abs(file["height"] - sides[1]) <= 1


def test_regions_are_turned_back_one_by_one(server: Service) -> None:
    scene = np.full((200, 240, 3), 20, np.uint8)
    scene[30:120, 40:120] = turned(90)
    scene[100:190, 150:230] = turned(90)
    regions = [("region", "40,30,120,120"), ("region", "150,100,230,190")]
    answer = server.client.post("/predict", params=[*regions, ("angle_hint", "90")], content=encode(scene))
    first, second = answer.json()["regions"]
    alone = predict(server, encode(turned(90)), angle_hint=90)
    assert first["predictions"][0]["label"] == alone["predictions"][0]["label"]
    np.testing.assert_allclose(first["corners"], np.add(alone["corners"], (40, 30)), atol=0.01)
    np.testing.assert_allclose(second["corners"], np.add(alone["corners"], (150, 100)), atol=0.01)
    assert first["region"] == [40, 30, 120, 120]


def test_a_batch_and_rectify_take_it_too_with_views_and_reliability(server: Service) -> None:
    picture = encode(turned(-90))
    options = {"angle_hint": "-90", "reliability": "4", "views": "4"}
    alone = predict(server, picture, **options)
    files = [("images", picture), ("images", b"none")]
    good, bad = server.client.post("/predict/batch", params=options, files=files).json()["results"]
    np.testing.assert_allclose(good["corners"], alone["corners"], atol=0.01)
    assert bad["error"]["code"] == "unsupported_media_type"
    assert alone["reliability"] == predict(server, picture, **options)["reliability"]
    upright = predict(server, encode(UPRIGHT), reliability=4, views=4)["reliability"]
    assert alone["reliability"]["corner_deviation_px"] == pytest.approx(upright["corner_deviation_px"], abs=1)
    answer = server.client.post("/rectify", params=options, files={"image": picture})
    np.testing.assert_allclose(json.loads(answer.headers["x-corners"]), alone["corners"], atol=0.01)
    assert float(answer.headers["x-angle"]) == pytest.approx(angle_of(alone, HEIGHT, WIDTH), abs=0.01)


@pytest.mark.parametrize("kind", ["grey", "transparent", "one pixel", "a row", "a column"])
def test_any_picture_can_be_turned(server: Service, kind: str) -> None:
    pixels = {
        "grey": UPRIGHT[..., 0],
        "transparent": np.dstack((UPRIGHT, np.full((HEIGHT, WIDTH), 90, np.uint8))),
        "one pixel": np.zeros((1, 1), np.uint8),
        "a row": np.zeros((1, 3000), np.uint8),
        "a column": np.zeros((3000, 1, 3), np.uint8),
    }[kind]
    for model in ("digits", "signs"):
        predict(server, encode(pixels), model=model, angle_hint=33, rectified_size="source", reliability=4)
    well(server)


@pytest.mark.parametrize("hint", ["180.1", "-181", "nan", "inf", "1e999", "", "ninety", "90,1", "0x10"])
@pytest.mark.parametrize("path", ["/predict", "/rectify", "/predict/batch"])
def test_what_is_no_angle_is_refused(server: Service, path: str, hint: str) -> None:
    field = "images" if path == "/predict/batch" else "image"
    response = server.client.post(path, params={"angle_hint": hint}, files={field: encode(UPRIGHT)})
    refused(response, 422, "invalid_parameter", "angle_hint")
