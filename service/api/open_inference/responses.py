"""Writes inference responses: JSON, with binary outputs behind it."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson

from service.api.open_inference.requests import LENGTH, DecodedRequest, RequestedOutput
from service.api.prediction_json import describe_reliability
from service.inference.outputs import ModelOutput
from service.inference.registry import Model
from service.inference.views.reliability import Reliability
from service.responses import JSON, Json, RawResponse

BINARY = (b"content-type", b"application/octet-stream")
JSON_LENGTH = b"inference-header-content-length"
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}

Buffer = bytes | memoryview


class Inferred(NamedTuple):
    """A request and what was found in its pictures, or in the regions of each."""

    request: DecodedRequest
    results: Sequence[ModelOutput]
    files: Sequence[bytes] = ()
    """The rectified images, if the request asked for them."""
    reliability: Sequence[Reliability] = ()
    """Only if the request asked for it."""


class Output(NamedTuple):
    """An output of a response."""

    description: Json
    """A `service.api.open_inference.schemas.ResponseOutput`."""
    buffers: Sequence[Buffer]
    """The bytes behind the JSON, if it is a binary output."""


def write_response(model: Model, inferred: Inferred) -> RawResponse:
    """Write the response to a request."""
    request = inferred.request
    outputs = [write_requested(model, requested, inferred) for requested in request.outputs]
    answer = {
        "model_name": model.name,
        "model_version": str(model.version),
        **({} if request.id is None else {"id": request.id}),
        "outputs": [output.description for output in outputs],
    }
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    buffers = [buffer for output in outputs for buffer in output.buffers]
    if not any(requested.binary for requested in request.outputs):
        return RawResponse(head, (JSON,))
    return RawResponse(b"".join((head, *buffers)), (BINARY, (JSON_LENGTH, b"%d" % len(head))))


def write_requested(model: Model, requested: RequestedOutput, inferred: Inferred) -> Output:
    """Write an output, which may be one that every model has."""
    if requested.rectified is not None:
        texts = [] if requested.binary else [base64.b64encode(file).decode() for file in inferred.files]
        return write_elements(requested, inferred.files, texts)
    if requested.is_reliability:
        told = [orjson.dumps(describe_reliability(each)) for each in inferred.reliability]
        return write_elements(requested, told, [each.decode() for each in told])
    return write_output(model, requested, inferred.results)


def write_output(model: Model, requested: RequestedOutput, results: Sequence[ModelOutput]) -> Output:
    """Write one of the outputs for all pictures."""
    if requested.classes:
        texts = best_classes(model, requested.classes, results)
        described = {"name": requested.name, "datatype": "BYTES", "shape": [len(results), requested.classes]}
        if not requested.binary:
            return Output(described | {"data": texts}, ())
        encoded = [text.encode() for text in texts]
        return with_bytes(described, [part for text in encoded for part in (LENGTH.pack(len(text)), text)])
    rows = [result.outputs[requested.name][result.row] for result in results]
    shape = [len(rows), *rows[0].shape]
    described = {"name": requested.name, "datatype": DATATYPES[rows[0].dtype.name], "shape": shape}
    if not requested.binary:
        return Output(described | {"data": np.stack(rows).ravel()}, ())
    return with_bytes(described, [np.ascontiguousarray(row).data for row in rows])


def write_elements(requested: RequestedOutput, elements: Sequence[bytes], texts: Sequence[str]) -> Output:
    """Write a BYTES output: its ``elements`` as bytes, or as ``texts`` in JSON."""
    described = {"name": requested.name, "datatype": "BYTES", "shape": [len(elements)]}
    if not requested.binary:
        return Output(described | {"data": texts}, ())
    return with_bytes(described, [part for each in elements for part in (LENGTH.pack(len(each)), each)])


def with_bytes(description: Json, buffers: Sequence[Buffer]) -> Output:
    """Make an output whose bytes are behind the JSON."""
    size = sum(memoryview(buffer).nbytes for buffer in buffers)
    return Output(description | {"parameters": {"binary_data_size": size}}, buffers)


def best_classes(model: Model, count: int, results: Sequence[ModelOutput]) -> list[str]:
    """Return ``value:index:label`` of the ``count`` most probable classes of each picture in order."""
    return [
        f"{value:f}:{index}:{model.manifest.label(index)}"
        for result in results
        for value, index in zip(result.probabilities[:count].tolist(), result.ranking[:count].tolist(), strict=True)
    ]
