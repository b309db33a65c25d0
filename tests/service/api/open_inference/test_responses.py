"""How outputs come back: which of them, as JSON or bytes, as tensors or as the best classes."""

import struct
from typing import Any

import numpy as np
import pytest

from tests.conftest import Service, start_service
from tests.service import artifacts
from tests.service.answers import predict
from tests.service.api.open_inference.exchange import (
    JSON_LENGTH,
    PROBABILITIES,
    TOLERANCE,
    answered,
    ask,
    binary,
    golden,
    tensor,
    tensors,
)
from tests.service.pictures import (
    ARTIFACT,
    GOLDEN_ANSWERS,
    GOLDEN_PICTURES,
    MANIFEST,
    VERSION,
    Answer,
    difference,
    encode,
    noise,
)

PIXELS = GOLDEN_PICTURES.tobytes()
COUNT = len(GOLDEN_PICTURES)


def behind(answer: Answer) -> dict[str, bool]:
    """Which outputs have their bytes behind the JSON."""
    for output in answer["outputs"]:
        assert ("data" in output) != ("parameters" in output)
    return {output["name"]: "data" not in output for output in answer["outputs"]}


def test_all_outputs_are_answered_under_the_names_of_the_artifact_unless_some_are_asked_for(server: Service) -> None:
    for request in {"inputs": [tensor()]}, {"inputs": [tensor()], "outputs": []}:
        answer = answered(ask(server, request))
        assert [output["name"] for output in answer["outputs"]] == list(MANIFEST.outputs)
    wanted = ["rectified", PROBABILITIES]
    answer = answered(ask(server, {"inputs": [tensor()], "outputs": [{"name": name} for name in wanted]}))
    assert [output["name"] for output in answer["outputs"]] == wanted


def test_it_says_which_model_answered_and_returns_the_id(server: Service) -> None:
    request = {"inputs": [tensor()], "outputs": [{"name": "theta"}]}
    for sent in {}, {"id": ""}, {"id": "7-é"}:
        answer = answered(ask(server, request | sent))
        del answer["outputs"]
        assert answer == {"model_name": "digits", "model_version": str(VERSION)} | sent
    assert answered(ask(server, request, path="/v2/models/digits/versions/2/infer"))["model_version"] == "2"


@pytest.mark.parametrize("whole", [None, False, True])
@pytest.mark.parametrize("own", [None, False, True])
def test_an_output_says_for_itself_whether_it_is_bytes_and_else_the_request_does(
    server: Service, whole: bool | None, own: bool | None
) -> None:
    of_request = {} if whole is None else {"parameters": {"binary_data_output": whole}}
    of_output = {} if own is None else {"parameters": {"binary_data": own}}
    outputs = [{"name": "theta"} | of_output, {"name": PROBABILITIES}, {"name": "rectified"} | of_output]
    response = ask(server, {"inputs": [tensor()], "outputs": outputs} | of_request)
    expected = bool(whole if own is None else own)
    assert behind(answered(response)) == {"theta": expected, PROBABILITIES: bool(whole), "rectified": expected}
    assert (JSON_LENGTH in response.headers) == (expected or bool(whole))
    golden(tensors(response))


def test_binary_outputs_may_answer_json_and_json_binary(server: Service) -> None:
    for_bytes = {"binary_data_output": True}
    golden(tensors(ask(server, {"inputs": [tensor()], "parameters": for_bytes})))
    golden(tensors(ask(server, {"inputs": [binary()]}, PIXELS)))
    golden(tensors(ask(server, {"inputs": [binary()], "parameters": for_bytes}, PIXELS)))


def best(count: int) -> list[tuple[int, str]]:
    """Index and label of the best classes of each golden picture, one picture after the other."""
    ranking = np.argsort(-GOLDEN_ANSWERS[PROBABILITIES], axis=1, kind="stable")[:, :count]
    return [(int(index), MANIFEST.classes[index]) for index in ranking.ravel()]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 3), (10, 10), (99, 10)])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_classification_names_the_best_classes(server: Service, asked: int, given: int, as_bytes: bool) -> None:
    parameters = {"classification": asked, "binary_data": as_bytes}
    outputs = [{"name": PROBABILITIES, "parameters": parameters}, {"name": "theta"}]
    response = ask(server, {"inputs": [tensor()], "outputs": outputs})
    described = answered(response)["outputs"][0]
    assert (described["datatype"], described["shape"]) == ("BYTES", [COUNT, given])
    texts: list[str] = described["data"] if not as_bytes else []
    content = response.content[int(response.headers.get(JSON_LENGTH, 0)) :]
    while as_bytes and content:
        (size,) = struct.unpack_from("<I", content)
        texts.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    found = [text.split(":") for text in texts]
    if given < len(MANIFEST.classes):  # the last ones differ by less than rounding does
        assert [(int(index), label) for _, index, label in found] == best(given)
    rows = np.array([float(value) for value, _, _ in found]).reshape(COUNT, given)
    expected = -np.sort(-GOLDEN_ANSWERS[PROBABILITIES], axis=1)[:, :given]
    assert difference(rows, expected) < TOLERANCE


def test_classification_of_none_is_the_tensor(server: Service) -> None:
    outputs = [{"name": PROBABILITIES, "parameters": {"classification": 0}}]
    assert tensors(ask(server, {"inputs": [tensor()], "outputs": outputs}))[PROBABILITIES].shape == (COUNT, 10)


def test_every_picture_of_a_large_request_has_its_own_row(server: Service) -> None:
    pixels = np.stack([noise(seed)[..., None] for seed in range(150)])
    found = tensors(ask(server, {"inputs": [binary(pixels)]}, pixels.tobytes()))
    for index in range(0, len(pixels), 7):
        alone = predict(server, encode(pixels[index, ..., 0]), rectified="none")
        assert difference(found["theta"][index], np.array(alone["theta"])) < TOLERANCE
    assert len({row.tobytes() for row in found["theta"]}) == len(pixels), "or this test could not tell them apart"


def test_all_transformers_of_a_model_answer(tmp_path: Any) -> None:
    artifacts.write_twin(tmp_path / "twin" / "1", branch=2)
    with start_service("--models", tmp_path) as service:
        found = tensors(ask(service, {"inputs": [tensor()]}, path="/v2/models/twin/infer"))
    assert set(found) == {*ARTIFACT.manifest.outputs, "second_theta", "second_rectified"}
    assert difference(found["second_theta"], -found["theta"]) == 0
