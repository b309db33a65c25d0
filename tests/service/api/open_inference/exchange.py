"""Requests of the Open Inference Protocol as they are on the wire, and what is expected of their answers."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service.api.open_inference.schemas import InferenceError, InferenceResponse
from tests.conftest import Service
from tests.service.pictures import GOLDEN_ANSWERS, GOLDEN_PICTURES, MANIFEST, Answer, difference

INFER = "/v2/models/digits/infer"
NAME = MANIFEST.input.name
PROBABILITIES = MANIFEST.probabilities
JSON_LENGTH = "Inference-Header-Content-Length"
DTYPES = {"UINT8": np.uint8, "FP32": np.float32}
TOLERANCE = 1e-3
"""Between batches of other sizes, whose sums are rounded in another order."""

Tensors = dict[str, NDArray[Any]]


def tensor(pixels: NDArray[np.uint8] = GOLDEN_PICTURES, **fields: Any) -> Answer:
    """An input of pixels ``(N, H, W, C)`` in JSON, flat, with other ``fields``."""
    return {"name": NAME, "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()} | fields


def binary(pixels: NDArray[np.uint8] = GOLDEN_PICTURES, **parameters: Any) -> Answer:
    """The same with its bytes behind the JSON."""
    described = tensor(pixels, parameters={"binary_data_size": pixels.nbytes} | parameters)
    del described["data"]
    return described


def elements(*contents: bytes) -> bytes:
    """A BYTES tensor."""
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def files(*contents: bytes, **parameters: Any) -> Answer:
    """An input of encoded pictures, with its bytes behind the JSON."""
    size = len(elements(*contents))
    parameters = {"binary_data_size": size} | parameters
    return {"name": NAME, "datatype": "BYTES", "shape": [len(contents)], "parameters": parameters}


def ask(
    service: Service, request: Mapping[str, Any], *behind: bytes, path: str = INFER, **headers: str
) -> httpx.Response:
    """Send ``request``, with bytes behind it if there are any."""
    head = json.dumps(request).encode()
    if behind:
        headers = {JSON_LENGTH: str(len(head))} | headers
    return service.client.post(path, content=b"".join([head, *behind]), headers=headers)


def answered(response: httpx.Response) -> Answer:
    """The JSON of a success, which must be exactly what its schema describes."""
    assert response.status_code == 200, response.text
    length = response.headers.get(JSON_LENGTH)
    assert response.headers["content-type"] == ("application/octet-stream" if length else "application/json")
    head = response.content[: int(length)] if length else response.content
    answer: Answer = json.loads(head)
    assert InferenceResponse.model_validate_json(head, strict=True).model_dump(mode="json") == answer
    return answer


def tensors(response: httpx.Response) -> Tensors:
    """The outputs of a success by name, whether they are in the JSON or behind it; all bytes must belong to one."""
    answer = answered(response)
    position = int(response.headers.get(JSON_LENGTH, len(response.content)))
    found = {}
    for output in answer["outputs"]:
        if "data" in output:
            values = np.array(output["data"], DTYPES[output["datatype"]])
        else:
            end = position + output["parameters"]["binary_data_size"]
            values = np.frombuffer(response.content[position:end], DTYPES[output["datatype"]])
            position = end
        found[output["name"]] = values.reshape(output["shape"])
    assert position == len(response.content)
    return found


def golden(found: Mapping[str, NDArray[Any]], rows: Sequence[int] | slice = slice(None)) -> None:
    """The outputs are those that the model gave to its golden pictures when it was exported."""
    assert found.keys() == GOLDEN_ANSWERS.keys()
    for name, expected in GOLDEN_ANSWERS.items():
        assert found[name].dtype == expected.dtype
        assert difference(found[name], expected[rows]) <= (1 if expected.dtype == np.uint8 else TOLERANCE), name


def refused(response: httpx.Response, status: int, says: str = "") -> None:
    """An error in the protocol's form and no other, with words that are to help."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    message = InferenceError.model_validate_json(response.content, strict=True).error
    assert response.json() == {"error": message}
    assert says in message, message
    assert not any(innards in message for innards in ("Traceback", ".py", "0x", "\n")), message
