"""Decodes the JSON of inference requests by type.

The decoder stops at the first error and builds no unused objects: lists and parameters stay bytes until their size is
known. `service.api.open_inference.schemas` describes the same form, which tests verify.
"""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.api.request_body import check_structure
from service.errors import InvalidBodyError

MAX_OUTPUTS = 64
MAX_DIMENSIONS = 16
MAX_PARAMETERS = 64
MAX_LIST_BYTES = 16 * 2**10
"""Largest list of outputs of a request in bytes."""
MAX_PARAMETERS_BYTES = 16 * 2**10
MAX_SHAPE_BYTES = 400
MAX_ID = 1000
INDEX = re.compile(r"\[(\d+|\.\.\.)\]")

Decoded = TypeVar("Decoded")
Parameters = dict[str, Any]


class RequestInput(Struct):
    """An input, whose shape, parameters and data are decoded when they are needed."""

    name: str
    shape: Raw
    datatype: str
    parameters: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class RequestInputs(Struct, array_like=True):
    """The list of inputs, which must have one element. Further elements are not built."""

    first: RequestInput | UnsetType = UNSET
    second: Raw | UnsetType = UNSET


class RequestOutput(Struct):
    """A requested output."""

    name: str
    parameters: Raw | UnsetType = UNSET


class InferenceRequest(Struct):
    """A request."""

    inputs: RequestInputs
    id: Annotated[str, Meta(max_length=MAX_ID)] | None = None
    parameters: Raw | UnsetType = UNSET
    outputs: Raw | UnsetType = UNSET


decode_as_request = msgspec.json.Decoder(InferenceRequest)
decode_as_outputs = msgspec.json.Decoder(list[RequestOutput])
decode_as_parameters = msgspec.json.Decoder(Parameters)
decode_as_shape = msgspec.json.Decoder(list[Annotated[int, Meta(ge=0)]])
decode_as_texts = msgspec.json.Decoder(list[str])
decode_as_bytes = msgspec.json.Decoder(list[Annotated[int, Meta(ge=0, le=255)]])


def decode_request(content: memoryview, max_json_bytes: int) -> InferenceRequest:
    """Decode a request.

    Raises:
        InvalidBodyError: the content is not a request.
        TooLargeError: the content has more than ``max_json_bytes`` besides pictures in base64.
    """
    check_structure(content, max_json_bytes)
    return decode(decode_as_request, content, "")


def decode_outputs(outputs: Raw | UnsetType) -> list[RequestOutput]:
    """Decode the outputs of a request."""
    return decode_list(decode_as_outputs, outputs, "outputs", MAX_LIST_BYTES, MAX_OUTPUTS)


def decode_shape(shape: Raw, path: str) -> list[int]:
    """Decode the shape of a tensor."""
    return decode_list(decode_as_shape, shape, path, MAX_SHAPE_BYTES, MAX_DIMENSIONS)


def decode_parameters(parameters: Raw | UnsetType, path: str) -> Parameters:
    """Decode the parameters of a request, an input or an output."""
    if isinstance(parameters, UnsetType):
        return {}
    check_size(parameters, path, MAX_PARAMETERS_BYTES)
    decoded = decode(decode_as_parameters, parameters, path)
    if len(decoded) > MAX_PARAMETERS:
        raise InvalidBodyError(f"{path}: there are more than {MAX_PARAMETERS}; /docs describes the request")
    return decoded


def decode_list(
    decoder: "msgspec.json.Decoder[list[Decoded]]", content: Raw | UnsetType, path: str, max_bytes: int, most: int
) -> list[Decoded]:
    """Decode a list of at most ``most`` elements, empty if it is missing."""
    if isinstance(content, UnsetType):
        return []
    check_size(content, path, max_bytes)
    decoded = decode(decoder, content, path)
    if len(decoded) > most:
        raise InvalidBodyError(f"{path}: there are more than {most}; /docs describes the request")
    return decoded


def check_size(content: Raw, path: str, max_bytes: int) -> None:
    """Raise `InvalidBodyError` if there are more than ``max_bytes``."""
    if len(memoryview(content)) > max_bytes:
        raise InvalidBodyError(f"{path}: it has more than {max_bytes} bytes; /docs describes the request")


def decode(decoder: "msgspec.json.Decoder[Decoded]", content: Raw | bytes | memoryview, path: str) -> Decoded:
    """Decode ``content`` at ``path`` of the request.

    Raises:
        InvalidBodyError: the content has another type.
    """
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        problem, _, within = str(error).partition(" - at `$")
        where = (path + INDEX.sub(r".\1", within.rstrip("`"))).lstrip(".") or "the request"
        raise InvalidBodyError(f"{where}: {problem}; /docs describes the request") from None
    except msgspec.DecodeError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidBodyError("the body is not JSON that can be read: it is nested too deeply") from None
