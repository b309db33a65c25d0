"""Answers for regions of a picture: as for the cut-out part, in coordinates of the whole."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from service.schemas.answers import BatchRegionPredictions, RegionPredictions
from service.schemas.options import MAX_REGIONS
from tests.conftest import Service, start_service
from tests.service.answers import as_schema, predict, prediction, refused, well, without_time
from tests.service.api.test_rectify import compare, cut_out, seen
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, Answer, drawing, encode, save

WIDTH, HEIGHT = 200, 140
LEFT, TOP, RIGHT, BOTTOM = BOX = (30, 20, 110, 100)
REGION = ",".join(map(str, BOX))
OTHER = "120,60,190,130"


def scene() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Two digits on a large picture."""
    picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    picture[TOP:BOTTOM, LEFT:RIGHT] = drawing(RIGHT - LEFT, BOTTOM - TOP)
    digit = np.asarray(Image.fromarray(DIGITS[1]).resize((70, 70)))
    picture[60:130, 120:190] = digit[..., None]
    return picture


SCENE = scene()
PICTURE = encode(SCENE)
CUT = encode(SCENE[TOP:BOTTOM, LEFT:RIGHT])


def ask(service: Service, *regions: str, route: str = "/predict", picture: bytes = PICTURE, **options: Any) -> Any:
    params = {"region": list(regions)} | options
    if route == "/predict/batch":
        return service.client.post(route, params=params, files=[("images", picture), ("images", b"none")])
    return service.client.post(route, params=params, files={"image": picture})


def regions(response: httpx.Response) -> list[Answer]:
    assert response.status_code == 200, response.text
    found: list[Answer] = as_schema(RegionPredictions, response.content)["regions"]
    return found


def test_the_answer_for_a_region_is_that_for_the_cut_out_picture_in_coordinates_of_the_whole(server: Service) -> None:
    (found,) = regions(ask(server, REGION))
    alone = predict(server, CUT)
    assert found["predictions"] == alone["predictions"]
    assert found["rectified"] == alone["rectified"]
    assert found["region"] == list(BOX)
    assert "region" not in alone
    np.testing.assert_allclose(found["corners"], np.add(alone["corners"], (LEFT, TOP)))
    square = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    corners = (square @ np.array(found["theta"]).T + 1) / 2 * (WIDTH, HEIGHT)
    np.testing.assert_allclose(corners, found["corners"], atol=1e-9)


def test_there_is_an_answer_for_each_region_in_order(server: Service) -> None:
    found = regions(ask(server, OTHER, REGION, OTHER, rectified="none", points=3))
    assert [each["region"] for each in found] == [[120, 60, 190, 130], list(BOX), [120, 60, 190, 130]]
    np.testing.assert_allclose(found[0]["theta"], found[2]["theta"], rtol=1e-4)
    assert found[0]["predictions"][0]["label"] == predict(server, encode(DIGITS[1]))["predictions"][0]["label"]
    for each in found:
        points = np.array(each["points"])
        np.testing.assert_allclose(points[[0, 2, 8, 6]], each["corners"], atol=1e-4)
    assert found[0]["batch_size"] > 1


def test_regions_are_clipped_to_the_picture_and_cover_whole_pixels(server: Service) -> None:
    found = regions(ask(server, "-40,-1.5,50.2,60.9", "119.99,60,5000,1e5", rectified="none"))
    assert [each["region"] for each in found] == [[0, 0, 51, 61], [119, 60, WIDTH, HEIGHT]]


def test_regions_refer_to_the_upright_picture(server: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be upright
    lying = save(Image.fromarray(SCENE).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif.tobytes())
    (found,), (expected,) = regions(ask(server, REGION, picture=lying)), regions(ask(server, REGION))
    assert without_time(found) == without_time(expected)


def test_the_rectified_picture_is_sampled_from_the_whole_upload(server: Service) -> None:
    smooth = gaussian_filter(SCENE, (3, 3, 0))
    options: dict[str, Any] = {"rectified_size": "source", "margin": 1}
    (found,) = regions(ask(server, "70,60,100,90", picture=encode(smooth), **options))
    corners = np.array(found["corners"])
    around = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * 3
    assert around[:, 0].min() < 68, "more than the region is shown"
    width, height = found["rectified"]["width"], found["rectified"]["height"]
    assert abs(width - np.hypot(*(around[1] - around[0]))) <= 1
    shown = seen(base64.b64decode(found["rectified"]["data"]))
    compare(shown, cut_out(smooth, around.tolist(), width, height))


def test_one_region_is_rectified_as_a_picture(server: Service) -> None:
    answer = ask(server, REGION, route="/rectify")
    assert answer.headers["content-type"] == "image/png"
    (expected,) = regions(ask(server, REGION, rectified_size="source"))
    assert answer.content == base64.b64decode(expected["rectified"]["data"])
    np.testing.assert_allclose(json.loads(answer.headers["x-corners"]), expected["corners"], atol=0.006)
    alone = server.client.post("/rectify", files={"image": CUT})
    assert answer.headers["x-angle"] == alone.headers["x-angle"]


def test_several_regions_are_no_picture_but_json(server: Service) -> None:
    refused(ask(server, REGION, OTHER, route="/rectify"), 422, "invalid_parameter", "accept application/json")
    both = server.client.post(
        "/rectify",
        params={"region": [REGION, OTHER]},
        content=PICTURE,
        headers={"accept": "application/json"},
    )
    assert [each["rectified"]["format"] for each in regions(both)] == ["png", "png"]


def test_a_batch_has_the_regions_of_each_picture_or_its_error(server: Service) -> None:
    answer = ask(server, REGION, OTHER, route="/predict/batch", rectified="none")
    good, bad = as_schema(BatchRegionPredictions, answer.content)["results"]
    assert [each["region"] for each in good["regions"]] == [list(BOX), [120, 60, 190, 130]]
    assert bad["error"]["code"] == "unsupported_media_type"


def test_regions_may_be_fields_of_the_form(server: Service) -> None:
    data = {"region": [REGION] * 100, "rectified": "none"}
    assert len(regions(server.client.post("/predict", data=data, files={"image": PICTURE}))) == 100


WRONG = "left, top, right and bottom in pixels"


@pytest.mark.parametrize("route", ["/predict", "/rectify"])
@pytest.mark.parametrize(
    ("region", "status", "says"),
    [
        ("", 422, WRONG),
        ("1,2,3", 422, WRONG),
        ("1,2,3,4,5", 422, WRONG),
        ("1;2;3;4", 422, WRONG),
        ("nan,0,10,10", 422, WRONG),
        ("0,0,inf,10", 422, WRONG),
        ("0,0,1e999,10", 422, WRONG),
        ("0,0,10000000,10", 422, WRONG),
        ("0," * 5000, 422, WRONG),
        ("5,5,5,9", 422, "x1 < x2"),
        ("9,9,5,5", 422, "x1 < x2"),
        (f"{WIDTH},0,{WIDTH + 9},9", 422, f"region 1 lies outside of the picture, which has {WIDTH} x {HEIGHT} pixels"),
        ("-9,-9,0,0", 422, "lies outside of the picture"),
    ],
)
def test_a_region_that_is_none_is_refused_with_the_cure(
    server: Service, route: str, region: str, status: int, says: str
) -> None:
    refused(ask(server, region, route=route), status, "invalid_parameter", says)


def test_of_several_regions_the_wrong_one_is_named(server: Service) -> None:
    refused(ask(server, REGION, OTHER, "1,2,3"), 422, "invalid_parameter", "region 3: ")
    refused(ask(server, REGION, OTHER, "900,0,999,9"), 422, "invalid_parameter", "region 3 lies outside")


def test_regions_beyond_the_limits_are_refused(server: Service) -> None:
    most = ["0,0,20,20"] * MAX_REGIONS
    assert len(regions(ask(server, *most, rectified="none", top_k=1))) == MAX_REGIONS
    refused(ask(server, *most, REGION), 413, "too_large", f"more than {MAX_REGIONS}")
    refused(ask(server, *["0,0,9,9"] * 3000), 422, "invalid_parameter", "the query has more than")
    refused(ask(server, *most[:129], route="/predict/batch"), 413, "too_large", "send fewer pictures")
    refused(ask(server, *most, points=64), 413, "too_large", "points")
    refused(ask(server, *most, rectified_size="411x311"), 413, "too_large", "256 rectified images")
    data = {"region": most + most}
    refused(server.client.post("/predict", data=data, files={"image": PICTURE}), 413, "too_large", "fields")
    well(server)


def test_regions_count_as_pictures_for_limits_metrics_and_log() -> None:
    with start_service("--max-queue", 8, "--max-pixels", WIDTH * HEIGHT) as service:
        refused(ask(service, *[REGION] * 9), 413, "too_large", "capacity of the model")
        refused(ask(service, "0,0,200,140", "0,0,1,1"), 413, "too_large", "the regions have")
        assert len(regions(ask(service, *["0,0,40,40"] * 8))) == 8
        well(service)
        assert scrape(service)("stn_batch_size_sum") == 9
        line = next(line for line in service.log().splitlines() if '"pictures":8' in line)
        assert json.loads(line)["status"] == 200


def test_regions_with_their_views_are_as_many_as_pictures_of_a_request() -> None:
    with start_service("--max-pictures", 10) as service:
        assert len(regions(ask(service, *[REGION] * 10, rectified="none"))) == 10
        assert len(regions(ask(service, REGION, OTHER, views=4, rectified="none"))) == 2
        for route in ("/predict", "/rectify", "/predict/batch"):
            refused(
                ask(service, *[REGION] * 11, route=route), 413, "too_large", "more than the 10 pictures of a request"
            )
        refused(ask(service, REGION, OTHER, OTHER, views=4), 413, "too_large", "3 regions with 12 views")
        refused(ask(service, *[REGION] * 6, route="/predict/batch"), 413, "too_large", "12 regions")
        well(service)


def test_decoding_is_counted_once_for_all_regions() -> None:
    with start_service() as service:
        large = encode(np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8))
        found = regions(ask(service, *["0,0,40,40"] * 16, picture=large, rectified="none"))
        shares = [each["timings_ms"]["decode"] for each in found]
        assert len(set(shares)) == 1
        assert sum(shares) <= found[0]["timings_ms"]["total"]
        counted = scrape(service)("stn_stage_duration_seconds_sum", stage="decode")
        assert counted == pytest.approx(sum(shares) / 1000, rel=0.05)


def test_a_picture_of_which_nothing_is_read_costs_no_more_than_any_other(server: Service) -> None:
    large = encode(np.zeros((3000, 4000), np.uint8))
    (found,) = regions(ask(server, "3990,2990,4000,3000", picture=large, rectified_size="source"))
    assert found["region"] == [3990, 2990, 4000, 3000]
    prediction(server.client.post("/predict", content=large))
