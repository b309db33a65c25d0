"""Converts messages of the protocol to the requests of `service.api.open_inference`, and results to messages."""

from collections.abc import Mapping
from typing import Any

import orjson

from service.api.open_inference.options import PICTURES
from service.api.open_inference.requests import LENGTH
from service.api.open_inference.responses import Inferred, write_requested
from service.api.open_inference.schemas import TensorMetadata
from service.errors import InvalidBodyError, TooLargeError
from service.grpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
)
from service.inference.registry import Model

BINARY = ("binary_data", "binary_data_size", "binary_data_output")
"""Parameters of the protocol over HTTP. Here outputs are always raw bytes."""


def read_message(message: ModelInferRequest, max_json_bytes: int) -> tuple[bytes, bytes]:
    """Return ``message`` as a body of the protocol over HTTP, JSON before the tensor, and the length of the JSON.

    Raises:
        InvalidBodyError: the message violates the protocol.
        TooLargeError: it has more than ``max_json_bytes`` besides raw tensors and picture files.
    """
    if len(message.inputs) > 1 or len(message.raw_input_contents) > 1:  # before anything walks millions of them
        raise InvalidBodyError("the model takes one input, not several")
    contents = [tensor.contents for tensor in message.inputs if tensor.HasField("contents")]
    raw = sum(map(len, message.raw_input_contents))
    if message.ByteSize() - raw - sum(len(file) for each in contents for file in each.bytes_contents) > max_json_bytes:
        raise TooLargeError(
            f"there are more than {max_json_bytes} bytes besides tensors; send tensors in raw_input_contents"
        )
    if contents and message.raw_input_contents:
        raise InvalidBodyError("an input has either contents or raw_input_contents, not both")
    if message.raw_input_contents and len(message.raw_input_contents) != len(message.inputs):
        raise InvalidBodyError(
            f"there are {len(message.raw_input_contents)} raw_input_contents for {len(message.inputs)} inputs"
        )
    buffers = list(message.raw_input_contents) or [
        typed_contents(tensor.name, tensor.datatype, tensor.contents) for tensor in message.inputs
    ]
    request: dict[str, Any] = {
        "parameters": read_parameters(message.parameters) | {"binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": read_parameters(tensor.parameters) | {"binary_data_size": len(buffer)},
            }
            for tensor, buffer in zip(message.inputs, buffers, strict=True)
        ],
        "outputs": [
            {"name": output.name, "parameters": read_parameters(output.parameters)} for output in message.outputs
        ],
    }
    if message.id:
        request["id"] = message.id
    head = orjson.dumps(request)
    return b"".join((head, *buffers)), b"%d" % len(head)


def read_parameters(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    """Return the values of parameters."""
    found: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None and name not in BINARY:
            found[name] = getattr(parameter, choice)
    return found


def typed_contents(name: str, datatype: str, contents: InferTensorContents) -> bytes:
    """Return the contents of an input as raw bytes.

    Raises:
        InvalidBodyError: they are not those of the datatype.
    """
    if datatype == PICTURES:
        return b"".join(part for file in contents.bytes_contents for part in (LENGTH.pack(len(file)), file))
    try:
        return bytes(contents.uint_contents)
    except ValueError:
        raise InvalidBodyError(f"the uint_contents of {name[:100]!r} must be numbers from 0 to 255") from None


def write_message(model: Model, inferred: Inferred) -> ModelInferResponse:
    """Return the results of a request, with all outputs as raw bytes."""
    request = inferred.request
    response = ModelInferResponse(
        model_name=model.name, model_version=str(model.version), id="" if request.id is None else request.id
    )
    for requested in request.outputs:
        written = write_requested(model, requested, inferred)
        described: dict[str, Any] = written.description
        response.outputs.add(name=described["name"], datatype=described["datatype"], shape=described["shape"])
        response.raw_output_contents.append(b"".join(written.buffers))
    return response


def write_tensor(tensor: TensorMetadata) -> ModelMetadataResponse.TensorMetadata:
    """Return the description of an input or output."""
    return ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
