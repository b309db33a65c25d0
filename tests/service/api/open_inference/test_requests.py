"""What clients send to infer: tensors and pictures, in JSON and behind it, right and wrong."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, predict
from tests.service.api.open_inference.exchange import (
    INFER,
    JSON_LENGTH,
    NAME,
    PROBABILITIES,
    ask,
    binary,
    elements,
    files,
    golden,
    refused,
    tensor,
    tensors,
)
from tests.service.broken import DAMAGED, FOREIGN, HUGE, WHOLE
from tests.service.pictures import GOLDEN_PICTURES, Answer, difference, drawing, encode, noise

PIXELS = GOLDEN_PICTURES.tobytes()
NESTED = GOLDEN_PICTURES.tolist()
FLAT = GOLDEN_PICTURES.ravel().tolist()
MAX_PICTURES, MAX_BYTES, MAX_BATCH_BYTES = 3, 8_000, 20_000


@pytest.fixture(scope="module")
def narrow() -> Iterator[Service]:
    """A service with limits that are easy to exceed."""
    limits = ("--max-pictures", MAX_PICTURES, "--max-bytes", MAX_BYTES, "--max-batch-bytes", MAX_BATCH_BYTES)
    with start_service(*limits) as service:
        yield service


@pytest.mark.parametrize("data", [FLAT, NESTED], ids=["flat", "nested"])
def test_a_tensor_in_json_may_be_flat_or_nested(server: Service, data: list[Any]) -> None:
    golden(tensors(ask(server, {"inputs": [tensor(data=data)]})))


def test_a_tensor_may_be_bytes_behind_the_json(server: Service) -> None:
    golden(tensors(ask(server, {"inputs": [binary()]}, PIXELS)))


def test_no_content_type_is_asked_for_and_none_is_looked_at(server: Service) -> None:
    for declared in ("", "text/plain", "multipart/form-data"):
        golden(tensors(ask(server, {"inputs": [tensor()]}, **{"Content-Type": declared})))


def test_a_raw_body_is_one_picture_and_all_outputs_come_as_bytes(server: Service) -> None:
    response = server.client.post(INFER, content=GOLDEN_PICTURES[1].tobytes(), headers={JSON_LENGTH: "0"})
    assert response.headers["content-type"] == "application/octet-stream"
    golden(tensors(response), slice(1, 2))


@pytest.mark.parametrize("size", [0, 1, GOLDEN_PICTURES[0].nbytes - 1, GOLDEN_PICTURES[0].nbytes + 1])
def test_a_raw_body_of_another_size_is_refused(server: Service, size: int) -> None:
    refused(
        server.client.post(INFER, content=bytes(size), headers={JSON_LENGTH: "0"}), 400, "one picture of [42, 42, 1]"
    )


def test_pictures_as_files_are_answered_as_predict_does_each_in_its_own_size(server: Service) -> None:
    pictures = [*WHOLE.values(), encode(drawing(300, 200), "JPEG"), encode(noise(1)), PICTURE]
    found = tensors(ask(server, {"inputs": [files(*pictures)]}, elements(*pictures)))
    for index, picture in enumerate(pictures):
        expected = predict(server, picture)
        assert difference(found["theta"][index], np.array(expected["theta"])) < 1e-3
        best = expected["predictions"][0]
        assert found[PROBABILITIES][index][best["index"]] == pytest.approx(best["probability"], abs=1e-3)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_pictures_in_json_are_base64_or_data_urls(server: Service, prefix: str) -> None:
    texts = [prefix + base64.b64encode(encode(picture[..., 0])).decode() for picture in GOLDEN_PICTURES]
    request = {"inputs": [{"name": NAME, "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    golden(tensors(ask(server, request)))


def test_one_bad_picture_fails_its_request_and_is_named(server: Service) -> None:
    for bad, status in (
        (b"", 400),
        (DAMAGED["PNG cut in half"], 400),
        (FOREIGN["PDF"], 415),
        (HUGE["PNG"], 413),
    ):
        pictures = [PICTURE] * 20 + [bad, PICTURE]
        refused(ask(server, {"inputs": [files(*pictures)]}, elements(*pictures)), status, "picture 21: ")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "one input, 'image', not none"),
        ([tensor(), tensor()], "one input"),
        ([tensor(name="x")], "not 'x'"),
        ([tensor(datatype="FP32")], "must be UINT8, or BYTES"),
        ([tensor(shape=[4, 42, 42])], "must have the shape [N, 42, 42, 1]"),
        ([tensor(shape=[4, 1, 42, 42])], "must have the shape [N, 42, 42, 1]"),
        ([tensor(shape=[0, 42, 42, 1], data=[])], "at least one"),
        ([tensor(shape=[-4, 42, 42, 1])], "inputs.0.shape.0: "),
        ([tensor(shape=[4.0, 42, 42, 1])], "inputs.0.shape.0: "),
        ([tensor(shape=[True, 42, 42, 1])], "inputs.0.shape.0: "),
        ([tensor(shape=None)], "inputs.0.shape: "),
        ([tensor(data=None)], "needs either data or"),
        ([tensor(parameters={"binary_data_size": 0})], "needs either data or"),
        ([tensor(data=FLAT[1:])], "7056 in a list"),
        ([tensor(data=[*FLAT, 0])], "whole numbers from 0 to 255"),
        ([tensor(data=[256, *FLAT[1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=[-1, *FLAT[1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=[2**70, *FLAT[1:]])], ""),
        ([tensor(data=[0.5, *FLAT[1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=["7", *FLAT[1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=[None, *FLAT[1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=[*FLAT[:-1], [0]])], "whole numbers from 0 to 255"),
        ([tensor(data=[*NESTED[:-1], NESTED[-1][1:]])], "whole numbers from 0 to 255"),
        ([tensor(data=NESTED[0])], "whole numbers from 0 to 255"),
        ([tensor(data={"0": 0})], "whole numbers from 0 to 255"),
        ([tensor(data="x" * len(FLAT))], "whole numbers from 0 to 255"),
        ([tensor(parameters={"triton_x": 1})], "reserved"),
        ([tensor(parameters={"shared_memory_region": "x"})], "shared memory is not supported"),
        ([tensor(parameters=7)], "inputs.0.parameters: "),
        ([{"name": NAME}], "missing required field"),
        (["image"], "inputs.0: "),
        ([tensor(datatype="BYTES")], "must have the shape [N] as BYTES"),
        ([tensor(datatype="BYTES", shape=[2], data=["seven", 7])], "base64 or a data URL"),
        ([tensor(datatype="BYTES", shape=[1], data=["%%%"])], "base64 or a data URL"),
        ([tensor(datatype="BYTES", shape=[2], data=["AAAA"])], "a list of 2 pictures"),
        ([tensor(datatype="BYTES", shape=[1], data="A")], "a list of 1 pictures"),
    ],
)
def test_an_input_that_is_not_as_the_model_takes_it_is_refused(server: Service, inputs: list[Any], says: str) -> None:
    refused(ask(server, {"inputs": inputs}), 400, says)


@pytest.mark.parametrize(
    ("request_fields", "says"),
    [
        ({"id": 7}, "id: "),
        ({"parameters": {"triton_final": True}}, "reserved"),
        ({"parameters": {"binary_data_output": 1}}, "must be true or false"),
        ({"parameters": {"timeout": -1}}, "'timeout' must be a whole number"),
        ({"parameters": {"timeout": "soon"}}, "'timeout' must be a whole number"),
        ({"outputs": [{"name": "x"}]}, "probabilities, theta, rectified"),
        ({"outputs": [{"name": "theta"}, {"name": "theta"}]}, "each once"),
        ({"outputs": [{"name": "theta", "parameters": {"binary_data": "yes"}}]}, "must be true or false"),
        ({"outputs": [{"name": "theta", "parameters": {"triton_x": 1}}]}, "reserved"),
        ({"outputs": [{"name": "theta", "parameters": {"shared_memory_region": "x"}}]}, "not supported"),
        ({"outputs": [{"name": "theta", "parameters": {"classification": 2}}]}, "is for 'probabilities' only"),
        ({"outputs": [{"name": PROBABILITIES, "parameters": {"classification": -1}}]}, "0 or more"),
        ({"outputs": [{"name": PROBABILITIES, "parameters": {"classification": True}}]}, "0 or more"),
        ({"outputs": [{"name": PROBABILITIES, "parameters": {"classification": 1.5}}]}, "0 or more"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(server: Service, request_fields: Answer, says: str) -> None:
    refused(ask(server, {"inputs": [tensor()]} | request_fields), 400, says)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"null", b"\xff", b"{}", b'{"inputs": 7}', b"[" * 100_000, b'{"inputs": [{"data": NaN}]}'],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_request_is_refused(server: Service, content: bytes) -> None:
    refused(server.client.post(INFER, content=content), 400)


def test_unknown_fields_and_parameters_are_ignored(server: Service) -> None:
    request = {"model_name": "x", "parameters": {"sequence_id": 7, "mine": None}, "inputs": [tensor(mine={})]}
    golden(tensors(ask(server, request)))


@pytest.mark.parametrize("length", ["", "x", "-1", "+1", "1.0", "0x10", "1_0", "٣", "9" * 5000, "99999999"])
def test_a_length_of_the_json_that_cannot_be_is_refused(server: Service, length: str) -> None:
    body = json.dumps({"inputs": [binary()]}).encode() + PIXELS
    headers = {JSON_LENGTH.encode(): length.encode()}
    refused(server.client.post(INFER, content=body, headers=headers), 400, JSON_LENGTH)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body[:-1], "bytes behind the JSON"),
        (lambda body: body + b"\0", "bytes behind the JSON"),
        (lambda body: b"", "bytes behind the JSON"),
    ],
    ids=["too few", "left over", "none"],
)
def test_bytes_that_are_missing_or_left_over_are_refused(
    server: Service, change: Callable[[bytes], bytes], says: str
) -> None:
    refused(ask(server, {"inputs": [binary()]}, change(PIXELS)), 400, says)
    pictures = elements(PICTURE, PICTURE)
    refused(ask(server, {"inputs": [files(PICTURE, PICTURE)]}, change(pictures)), 400, says)


def test_bytes_without_the_header_that_says_where_they_begin_are_refused(server: Service) -> None:
    refused(server.client.post(INFER, content=json.dumps({"inputs": [binary()]}).encode() + PIXELS), 400, "not JSON")
    refused(ask(server, {"inputs": [binary()]}), 400, "there are 0 bytes behind the JSON")


@pytest.mark.parametrize("size", [-1, True, "7056", 1.0, 10**30])
def test_a_size_that_is_no_number_is_refused(server: Service, size: object) -> None:
    refused(ask(server, {"inputs": [binary(binary_data_size=size)]}, PIXELS), 400)


def test_a_size_that_is_not_that_of_the_shape_is_refused(server: Service) -> None:
    refused(ask(server, {"inputs": [binary(binary_data_size=10)]}, bytes(10)), 400, "has 7056 bytes, and not 10")


@pytest.mark.parametrize(
    "content",
    [
        elements(PICTURE),
        elements(PICTURE, PICTURE, PICTURE),
        elements(PICTURE, PICTURE)[:-1],
        elements(PICTURE) + b"\xff\xff\xff\xff" + PICTURE,
        elements(PICTURE) + b"\0\0",
        b"",
    ],
)
def test_elements_that_are_not_as_many_or_as_long_as_said_are_refused(server: Service, content: bytes) -> None:
    request = {"inputs": [files(PICTURE, PICTURE, binary_data_size=len(content))]}
    refused(ask(server, request, content), 400, "are not 2 elements")


def test_limits_hold_for_pictures_and_bytes(narrow: Service) -> None:
    pixels = np.stack([GOLDEN_PICTURES[0]] * MAX_PICTURES)
    assert len(tensors(ask(narrow, {"inputs": [binary(pixels)]}, pixels.tobytes()))["theta"]) == MAX_PICTURES
    many = np.concatenate([pixels, pixels[:1]])
    refused(ask(narrow, {"inputs": [binary(many)]}, many.tobytes()), 413, "4 pictures are more than the 3")
    large = PICTURE + bytes(MAX_BYTES)
    refused(ask(narrow, {"inputs": [files(large)]}, elements(large)), 413, f"more than {MAX_BYTES} bytes")
    refused(ask(narrow, {"inputs": [tensor(pixels)]}), 413, f"more than {MAX_BYTES} bytes")
    refused(ask(narrow, {"inputs": [binary()]}, bytes(MAX_BATCH_BYTES)), 413, f"more than {MAX_BATCH_BYTES} bytes")
    padded = {"inputs": [binary(pixels)], "padding": "x" * MAX_BYTES}
    refused(ask(narrow, padded, pixels.tobytes()), 413, "send tensors as binary data")
