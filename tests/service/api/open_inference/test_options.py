"""Options of POST /predict as parameters of inference requests: regions, hints, views and reliability."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.open_inference.requests import LENGTH
from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, predict, well
from tests.service.api.open_inference.exchange import (
    NAME,
    PROBABILITIES,
    answered,
    ask,
    elements,
    files,
    refused,
    tensor,
    tensors,
)
from tests.service.api.test_angle_hint import turned
from tests.service.api.test_regions import BOX, OTHER, REGION, SCENE
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, MANIFEST, TRANSFORM, VERSION, encode

PICTURES = [encode(SCENE), encode(SCENE[:, ::-1].copy())]
PIXELS = DIGITS[0][None, ..., None]


def infer(
    service: Service, parameters: dict[str, Any], *outputs: str | dict[str, Any], pictures: list[bytes] | None = None
) -> httpx.Response:
    """Ask about pictures as files, with ``parameters`` of the request."""
    sent = PICTURES if pictures is None else pictures
    request: dict[str, Any] = {"inputs": [files(*sent)], "parameters": parameters}
    if outputs:
        request["outputs"] = [{"name": each} if isinstance(each, str) else each for each in outputs]
    return ask(service, request, elements(*sent))


def test_regions_of_each_picture_are_answered_one_after_the_other(server: Service) -> None:
    found = tensors(infer(server, {"region": f"{REGION}; {OTHER}"}))
    assert found.keys() == set(MANIFEST.outputs)
    assert {len(rows) for rows in found.values()} == {4}
    for number, picture in enumerate(PICTURES):
        params: dict[str, Any] = {"region": [REGION, OTHER], "top_k": 10}
        answer = server.client.post("/predict", params=params, content=picture).json()
        for row, expected in zip((2 * number, 2 * number + 1), answer["regions"], strict=True):
            best = expected["predictions"][0]
            assert found[PROBABILITIES][row].argmax() == best["index"]
            np.testing.assert_allclose(found[TRANSFORM.theta][row], expected["theta"], atol=1e-3)


def test_rectified_files_of_regions_are_sampled_from_the_whole_picture(server: Service) -> None:
    output = {"name": "rectified_source", "parameters": {"rectified_size": "30x30", "margin": 0.5}}
    (written,) = answered(infer(server, {"region": f"{REGION};{OTHER}"}, output, pictures=PICTURES[:1]))["outputs"]
    assert written["shape"] == [2]
    options: dict[str, Any] = {"region": [REGION, OTHER], "rectified_size": "30x30", "margin": 0.5}
    answer = server.client.post("/predict", params=options, content=PICTURES[0]).json()["regions"]
    assert written["data"] == [each["rectified"]["data"] for each in answer]


def test_a_hint_turns_each_picture_back_and_theta_is_that_of_the_upload(server: Service) -> None:
    picture = encode(turned(-90))
    (row,) = tensors(infer(server, {"angle_hint": -90}, TRANSFORM.theta, pictures=[picture]))[TRANSFORM.theta]
    np.testing.assert_allclose(row, predict(server, picture, angle_hint=-90)["theta"], atol=1e-3)


@pytest.mark.parametrize("inputs", ["files", "tensor"])
def test_views_are_averaged_and_reliability_is_an_output(server: Service, inputs: str) -> None:
    parameters = {"reliability": 4, "views": 8}
    if inputs == "files":
        response = infer(server, parameters, PROBABILITIES, "reliability", pictures=[PICTURE])
    else:
        outputs = [{"name": PROBABILITIES}, {"name": "reliability"}]
        response = ask(server, {"inputs": [tensor(PIXELS)], "parameters": parameters, "outputs": outputs})
    probabilities, told = answered(response)["outputs"]
    expected = predict(server, reliability=4, views=8)
    assert max(probabilities["data"]) == pytest.approx(expected["predictions"][0]["probability"], abs=1e-4)
    assert (told["datatype"], told["shape"]) == ("BYTES", [1])
    assert json.loads(told["data"][0]) == pytest.approx(expected["reliability"], abs=0.01)


def test_reliability_may_be_bytes_and_is_among_all_outputs(server: Service) -> None:
    response = infer(server, {"reliability": 4, "binary_data_output": True}, pictures=[PICTURE])
    outputs = answered(response)["outputs"]
    assert [each["name"] for each in outputs] == [*MANIFEST.outputs, "reliability"]
    size = outputs[-1]["parameters"]["binary_data_size"]
    told = response.content[-size:]
    assert LENGTH.unpack(told[:4]) == (size - 4,)
    assert json.loads(told[4:])["views"] == 4


def test_all_options_go_together(server: Service) -> None:
    parameters: dict[str, Any] = {"region": REGION, "angle_hint": 20.5, "views": 4, "reliability": 4}
    names = (PROBABILITIES, "reliability", "rectified_source", TRANSFORM.theta)
    outputs = answered(infer(server, parameters, *names, pictures=PICTURES[:1]))["outputs"]
    (expected,) = server.client.post(
        "/predict", params=parameters | {"rectified_size": "source"}, content=PICTURES[0]
    ).json()["regions"]
    assert expected["region"] == list(BOX)
    assert json.loads(outputs[1]["data"][0]) == pytest.approx(expected["reliability"], abs=0.01)
    assert outputs[2]["data"] == [expected["rectified"]["data"]]
    np.testing.assert_allclose(np.reshape(outputs[3]["data"], (2, 3)), expected["theta"], atol=1e-3)


NEED = "need each other"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"reliability": 3}, "parameters: reliability: "),
    ({"reliability": 17}, "parameters: reliability: "),
    ({"reliability": True}, "parameters: reliability: "),
    ({"views": "many"}, "parameters: views: "),
    ({"views": None}, "parameters: views: "),
    ({"views": [4]}, "parameters: views: "),
    ({"region": ""}, "parameters: region 1: "),
    ({"region": f"{REGION};"}, "parameters: region 2: "),
    ({"region": [1, 2, 3, 4]}, "parameters: region 1: "),
    ({"region": "9,9,1,1"}, "x1 < x2"),
    ({"region": "900,0,999,9"}, "region 1 lies outside of the picture"),
    ({"angle_hint": 200}, "parameters: angle_hint: "),
    ({"angle_hint": "nan"}, "parameters: angle_hint: "),
    ({"angle_hint": "inf"}, "parameters: angle_hint: "),
    ({"top_k": 3}, "parameters: 'top_k' is not offered; give the output"),
    ({"points": 3}, "parameters: 'points' is not offered; POST /predict"),
    ({"version": 2}, "parameters: 'version' is not offered; the path names the model"),
    ({"margin": 0.1}, "parameters: 'margin' is a parameter of the output 'rectified_source'"),
]


@pytest.mark.parametrize(("parameters", "says"), WRONG, ids=[str(parameters) for parameters, _ in WRONG])
def test_wrong_parameters_are_refused_and_none_is_ignored(
    server: Service, parameters: dict[str, Any], says: str
) -> None:
    response = infer(server, parameters)
    refused(response, 422 if "lies outside" in says else 400, says)
    well(server)


def test_what_needs_another_parameter_place_or_input_is_refused(server: Service) -> None:
    refused(infer(server, {"reliability": 4}, PROBABILITIES), 400, NEED)
    refused(infer(server, {}, "reliability"), 400, NEED)
    refused(infer(server, {"rectified_size": "source"}, PROBABILITIES), 400, "is a parameter of the output")
    misplaced = {"name": PROBABILITIES, "parameters": {"views": 4}}
    refused(infer(server, {}, misplaced), 400, "outputs.0.parameters: 'views' is a parameter of the request")
    in_input = {"inputs": [files(PICTURE, region=REGION)]}
    refused(
        ask(server, in_input, elements(PICTURE)), 400, "inputs.0.parameters: 'region' is a parameter of the request"
    )
    for parameters in ({"region": REGION}, {"angle_hint": 9}):
        request = {"inputs": [tensor(PIXELS)], "parameters": parameters}
        refused(ask(server, request), 400, "need pictures as files (BYTES), not UINT8")


def test_regions_and_views_count_as_pictures() -> None:
    with start_service("--max-pictures", 20, "--rate-limit", "30/hour", "--max-queue", 16) as service:
        many = ";".join([REGION] * 11)
        refused(infer(service, {"region": many}), 413, "22 regions are more than the 20")  # 1 request is counted
        refused(infer(service, {"views": 16}), 413, "2 pictures with 32 views")  # 2
        refused(infer(service, {"views": 16}, pictures=[PICTURE]), 413, "capacity of the model")  # 19
        assert infer(service, {"views": 8, "region": REGION}, pictures=PICTURES[:1]).status_code == 200  # 28
        refused(infer(service, {"views": 8}, pictures=[PICTURE]), 429, "30 per 1 hour")
        assert scrape(service)("stn_views_total", model="digits", version=VERSION) == 8
        described = service.client.get(f"/v2/models/digits/versions/{VERSION}").json()["inputs"][0]["name"]
        assert described == NAME
