"""JSON of requests decoded by type: it takes what the document describes, and builds nothing that it refuses."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from service.api.open_inference import json_body, schemas
from service.api.open_inference.json_body import (
    MAX_DIMENSIONS,
    MAX_ID,
    MAX_LIST_BYTES,
    MAX_OUTPUTS,
    MAX_PARAMETERS,
    MAX_PARAMETERS_BYTES,
    decode_outputs,
    decode_parameters,
    decode_request,
    decode_shape,
)
from service.api.open_inference.requests import PIECE, brackets, files_in_json, numbers_in_json, split_list
from service.errors import InvalidBodyError, TooLargeError

LIMIT = 2**20
INPUT: dict[str, Any] = {"name": "image", "shape": [1], "datatype": "BYTES"}


def decode(content: bytes) -> json_body.InferenceRequest:
    return decode_request(memoryview(content), LIMIT)


def raw(content: object) -> msgspec.Raw:
    """JSON that is not decoded yet."""
    return msgspec.Raw(json.dumps(content).encode())


@pytest.mark.parametrize("name", ["InferenceRequest", "RequestInput", "RequestOutput"])
def test_it_takes_the_fields_that_the_document_describes(name: str) -> None:
    assert set(getattr(json_body, name).__struct_fields__) == set(getattr(schemas, name).model_fields)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"inputs":[' + b"{}," * 300_000 + b"{}]}", "inputs.0: Object missing required field `name`"),
        (b"[" * 500_000, "the request: Expected `object`, got `array`"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "inputs.0: Expected `object`"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"inputs":[]}', "nested too deeply"),
        (b'{"inputs":[],"id":"' + b"x" * (MAX_ID + 1) + b'"}', "id: "),
        (b'{"inputs":[],"id":1e999}', "id: "),
        (b'{"' + b"x" * 2**21 + b'":1}', "missing required field `inputs`"),
        (b'{"inputs":NaN}', "not JSON"),
    ],
)
def test_it_ends_at_the_first_error(content: bytes, says: str) -> None:
    with pytest.raises(InvalidBodyError, match=says) as caught:
        decode(content)
    assert len(str(caught.value)) < 300


def test_inputs_beyond_the_first_are_noticed_and_not_decoded() -> None:
    inputs = decode(json.dumps({"inputs": [INPUT] + [7] * 100_000}).encode()).inputs
    assert isinstance(inputs.first, json_body.RequestInput)
    assert inputs.second == msgspec.Raw(b"7")


def test_json_has_a_limit_of_its_own_from_which_base64_is_exempt() -> None:
    decode(json.dumps({"inputs": [INPUT | {"data": ["A" * 4 * LIMIT]}]}).encode())
    with pytest.raises(TooLargeError, match=f"more than {LIMIT} bytes of JSON"):
        decode(json.dumps({"inputs": [INPUT], "padding": [[]] * (LIMIT // 3)}).encode())


@pytest.mark.parametrize(
    ("most", "says"),
    [(MAX_OUTPUTS, f"more than {MAX_OUTPUTS}"), (MAX_LIST_BYTES, f"more than {MAX_LIST_BYTES} bytes")],
)
def test_outputs_are_limited_in_number_and_in_bytes(most: int, says: str) -> None:
    assert len(decode_outputs(raw([{"name": "a"}] * MAX_OUTPUTS))) == MAX_OUTPUTS
    with pytest.raises(InvalidBodyError, match=says):
        decode_outputs(raw([{"name": "a"}] * (most + 1)))


@pytest.mark.parametrize(
    ("most", "says"),
    [
        (MAX_PARAMETERS, f"more than {MAX_PARAMETERS}"),
        (MAX_PARAMETERS_BYTES, f"{MAX_PARAMETERS_BYTES} bytes"),
    ],
)
def test_parameters_are_limited_in_number_and_in_bytes(most: int, says: str) -> None:
    def parameters(count: int) -> msgspec.Raw:
        return raw(dict.fromkeys(map(str, range(count)), 0))

    assert len(decode_parameters(parameters(MAX_PARAMETERS), "parameters")) == MAX_PARAMETERS
    with pytest.raises(InvalidBodyError, match=f"^parameters: .*{says}"):
        decode_parameters(parameters(most + 1), "parameters")


@pytest.mark.parametrize(
    "shape", ["[" * 200, json.dumps([1] * (MAX_DIMENSIONS + 1)), json.dumps(["a"] * 100), '["a"]', "1e999", "[9e9]"]
)
def test_a_shape_is_a_short_list_of_whole_numbers(shape: str) -> None:
    assert decode_shape(raw([1] * MAX_DIMENSIONS), "shape") == [1] * MAX_DIMENSIONS
    with pytest.raises(InvalidBodyError):
        decode_shape(msgspec.Raw(shape.encode()), "shape")


def test_deep_parameters_are_refused() -> None:
    with pytest.raises(InvalidBodyError, match="nested too deeply"):
        decode_parameters(msgspec.Raw(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"), "parameters")


SHAPE = [2, 2, 3, 1]
NUMBERS = np.arange(12, dtype=np.uint8).reshape(SHAPE)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("numbers", [NUMBERS.tolist(), NUMBERS.ravel().tolist()], ids=["nested", "flat"])
def test_numbers_are_read_without_building_their_lists(numbers: list[Any], indent: int | None) -> None:
    found = numbers_in_json("image", SHAPE, json.dumps(numbers, indent=indent).encode(), LIMIT)
    assert np.array_equal(found, NUMBERS)


@pytest.mark.parametrize(
    "numbers",
    [
        [[]] * 12,
        [[[]]] * 4,
        NUMBERS.reshape(2, 3, 2, 1).tolist(),
        NUMBERS.reshape(2, 6).tolist(),
        [NUMBERS.tolist()],
        [*range(11), "11"],
        [*range(11), "1,1"],
        [*range(11), None],
        [*range(11), {}],
        [*range(11), 256],
        [*range(11), 1.5],
        list(range(13)),
        dict.fromkeys("abcdefghijkl", 0),
        7,
    ],
)
def test_numbers_of_another_shape_or_kind_are_refused(numbers: object) -> None:
    with pytest.raises(InvalidBodyError, match="whole numbers from 0 to 255: 12 in a list"):
        numbers_in_json("image", SHAPE, json.dumps(numbers).encode(), LIMIT)


def test_many_numbers_are_decoded_in_pieces() -> None:
    numbers = np.arange(3 * PIECE, dtype=np.uint8).reshape(-1, 1)
    text = json.dumps(numbers.ravel().tolist()).encode()
    assert np.array_equal(numbers_in_json("image", [*numbers.shape], text, len(text)), numbers)
    assert max(map(len, split_list(text[1:-1]))) < PIECE + 10


@pytest.mark.parametrize("end", [b"1,", b",1", b",,1", b'1,"2'])
def test_pieces_of_numbers_hide_no_error(end: bytes) -> None:
    text = b"[%b%b]" % (b"7," * (PIECE // 2 + 1), end)
    shape = [text.count(b",") + 1]
    with pytest.raises(InvalidBodyError, match="whole numbers from 0 to 255"):
        numbers_in_json("image", shape, text, LIMIT + PIECE)


def test_numbers_beyond_the_limit_of_json_are_refused() -> None:
    with pytest.raises(TooLargeError, match="send tensors as binary data"):
        numbers_in_json("image", SHAPE, json.dumps(NUMBERS.tolist()).encode(), 10)


def test_brackets_are_those_of_the_shape() -> None:
    assert brackets([2, 3]) == b"[[,,],[,,]]"
    assert brackets([1]) == b"[]"


FILES = ['["' + '","' * 100_000 + '"]', '["",[]]', "[" * 100, '{"a":"b"}', '["\\"","a"]', "[]"]


@pytest.mark.parametrize("files", FILES)
def test_files_that_are_not_as_many_texts_as_said_are_refused(files: str) -> None:
    with pytest.raises(InvalidBodyError, match="a list of 2 pictures"):
        files_in_json("image", 2, files.encode())
