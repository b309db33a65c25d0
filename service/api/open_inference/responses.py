"""Answers to requests for inference: JSON, and as bytes behind it what is wanted so."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson

from service.api.open_inference.requests import LENGTH, Question, Wanted
from service.inference.outputs import ModelOutput
from service.inference.registry import Model
from service.responses import JSON, Json, RawResponse

BINARY = (b"content-type", b"application/octet-stream")
JSON_LENGTH = b"inference-header-content-length"
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}

Buffer = bytes | memoryview


class Output(NamedTuple):
    """An output of a response."""

    description: Json
    """A `service.api.open_inference.schemas.ResponseOutput`."""
    buffers: Sequence[Buffer]
    """Its bytes, if they are wanted behind the JSON."""


def write_response(model: Model, question: Question, readings: Sequence[ModelOutput]) -> RawResponse:
    """The answer to ``question``, whose pictures have these ``readings``."""
    outputs = [write_output(model, wanted, readings) for wanted in question.wanted]
    answer = {
        "model_name": model.name,
        "model_version": str(model.version),
        **({} if question.id is None else {"id": question.id}),
        "outputs": [output.description for output in outputs],
    }
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    buffers = [buffer for output in outputs for buffer in output.buffers]
    if not any(wanted.binary for wanted in question.wanted):
        return RawResponse(head, (JSON,))
    return RawResponse(b"".join((head, *buffers)), (BINARY, (JSON_LENGTH, b"%d" % len(head))))


def write_output(model: Model, wanted: Wanted, readings: Sequence[ModelOutput]) -> Output:
    """One of the outputs for all pictures."""
    if wanted.classes:
        texts = best_classes(model, wanted.classes, readings)
        described = {"name": wanted.name, "datatype": "BYTES", "shape": [len(readings), wanted.classes]}
        if not wanted.binary:
            return Output(described | {"data": texts}, ())
        encoded = [text.encode() for text in texts]
        return with_bytes(described, [part for text in encoded for part in (LENGTH.pack(len(text)), text)])
    rows = [reading.outputs[wanted.name][reading.row] for reading in readings]
    shape = [len(rows), *rows[0].shape]
    described = {"name": wanted.name, "datatype": DATATYPES[rows[0].dtype.name], "shape": shape}
    if not wanted.binary:
        return Output(described | {"data": np.stack(rows).ravel()}, ())
    return with_bytes(described, [np.ascontiguousarray(row).data for row in rows])


def with_bytes(description: Json, buffers: Sequence[Buffer]) -> Output:
    """An output whose bytes are behind the JSON."""
    size = sum(memoryview(buffer).nbytes for buffer in buffers)
    return Output(description | {"parameters": {"binary_data_size": size}}, buffers)


def best_classes(model: Model, count: int, readings: Sequence[ModelOutput]) -> list[str]:
    """``value:index:label`` of the ``count`` most probable classes of each picture, the most probable first."""
    classes = model.manifest.classes
    return [
        f"{value:f}:{index}:{classes[index]}"
        for reading in readings
        for value, index in zip(reading.probabilities[:count].tolist(), reading.ranking[:count].tolist(), strict=True)
    ]
