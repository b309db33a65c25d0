"""Requests for inference: JSON, with tensors in it or as bytes behind it (Triton's binary tensor extension)."""

import math
import struct
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from export.artifact import Manifest
from service.api.open_inference.schemas import InferenceRequest, Parameters, RequestInput, RequestOutput
from service.api.request_body import from_text, too_large
from service.errors import InvalidBodyError, TooLargeError
from service.inference.preprocessing import Upload
from service.settings import Settings

TENSOR, PICTURES = "UINT8", "BYTES"
RESERVED = "triton_"
SHARED_MEMORY = "shared_memory_region"
LENGTH = struct.Struct("<I")
"""Before each element of a BYTES tensor."""
MICROSECONDS = 1000
"""In a millisecond."""
LONGEST_NUMBER = 18
"""Digits of a length that can be meant."""


class Wanted(NamedTuple):
    """An output that was asked for."""

    name: str
    binary: bool
    classes: int
    """How many of the best classes to name; 0 for the tensor itself."""


class Question(NamedTuple):
    """What a request asks."""

    id: str | None
    pictures: NDArray[np.uint8] | list[Upload]
    """``(N, H, W, C)`` of the model's input, or N pictures as files."""
    wanted: list[Wanted]
    timeout_ms: float
    """That the request allows for its answer; 0 if it does not say."""


def read_request(content: bytes, header_length: bytes | None, manifest: Manifest, settings: Settings) -> Question:
    """What ``content`` asks, of which ``Inference-Header-Content-Length`` bytes are JSON.

    Raises:
        InvalidBodyError: it is not as the protocol says, or not for this model.
        TooLargeError: it has more pictures, or larger ones, than the service takes.
    """
    length = len(content) if header_length is None else json_length(header_length, len(content))
    if length == 0 and header_length is not None:
        return raw_request(content, manifest)
    if length > settings.max_bytes:
        raise TooLargeError(f"there are more than {settings.max_bytes} bytes of JSON; send tensors as binary data")
    request = parse(content[:length])
    check_parameters(request.parameters)
    if len(request.inputs) != 1 or request.inputs[0].name != manifest.input.name:
        found = ", ".join(repr(tensor.name) for tensor in request.inputs[:10]) or "none"
        raise InvalidBodyError(f"the model takes one input, {manifest.input.name!r}, not {found}")
    pictures = read_pictures(request.inputs[0], memoryview(content)[length:], manifest, settings)
    wanted = read_outputs(request, manifest)
    return Question(request.id, pictures, wanted, (number(request.parameters, "timeout") or 0) / MICROSECONDS)


def json_length(header_length: bytes, most: int) -> int:
    """How many of the ``most`` bytes of a body are JSON; 0 if all of it is a tensor."""
    if not header_length.isdigit() or len(header_length) > LONGEST_NUMBER:
        raise InvalidBodyError("Inference-Header-Content-Length must be the number of bytes that the JSON has")
    length = int(header_length)
    if length > most:
        raise InvalidBodyError(f"Inference-Header-Content-Length is {length}, but the body has only {most} bytes")
    return length


def raw_request(content: bytes, manifest: Manifest) -> Question:
    """A body that is nothing but the tensor of one picture; all outputs are wanted as bytes."""
    tensor = manifest.image()
    expected = math.prod(tensor.shape)
    if len(content) != expected:
        raise InvalidBodyError(
            f"a raw body must be one picture of {list(tensor.shape)}, {expected} bytes, and not {len(content)}; "
            "other pictures go in a BYTES tensor"
        )
    pictures = np.frombuffer(content, np.uint8).reshape(1, *tensor.shape)
    return Question(None, pictures, [Wanted(name, True, 0) for name in manifest.outputs], 0)


def parse(content: bytes) -> InferenceRequest:
    """The JSON of a request."""
    try:
        return InferenceRequest.model_validate(orjson.loads(content), strict=True)
    except orjson.JSONDecodeError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the request"
        raise InvalidBodyError(f"{where}: {problem['msg']}; /docs describes the request") from None


def check_parameters(parameters: Parameters) -> None:
    """Raise `InvalidBodyError` if there is one that cannot be meant for this service."""
    for name in parameters:
        if name.startswith(RESERVED):
            raise InvalidBodyError(f"the parameter {name[:100]!r} is reserved, as all that begin with {RESERVED!r}")
    if SHARED_MEMORY in parameters:
        raise InvalidBodyError("shared memory is not offered; send and take tensors in the body")


def number(parameters: Parameters, name: str) -> int | None:
    """A parameter that is a whole number, 0 or more."""
    value = parameters.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidBodyError(f"the parameter {name!r} must be a whole number, 0 or more")
    return value


def flag(parameters: Parameters, name: str, default: bool) -> bool:
    """A parameter that is true or false."""
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidBodyError(f"the parameter {name!r} must be true or false")
    return value


def read_pictures(
    tensor: RequestInput, behind: memoryview, manifest: Manifest, settings: Settings
) -> NDArray[np.uint8] | list[Upload]:
    """The pictures of a request, whose bytes ``behind`` the JSON are theirs alone."""
    check_parameters(tensor.parameters)
    name, shape = tensor.name, tensor.shape
    expected = manifest.image().shape
    if tensor.datatype not in (TENSOR, PICTURES):
        raise InvalidBodyError(
            f"{name!r} must be {TENSOR}, or {PICTURES} for pictures as files, and not another datatype"
        )
    if tensor.datatype == TENSOR and (len(shape) != 4 or tuple(shape[1:]) != expected):
        raise InvalidBodyError(f"{name!r} must have the shape [N, {', '.join(map(str, expected))}], not {shape[:10]}")
    if tensor.datatype == PICTURES and len(shape) != 1:
        raise InvalidBodyError(f"{name!r} must have the shape [N] as {PICTURES}, not {shape[:10]}")
    if not shape[0]:
        raise InvalidBodyError(f"{name!r} has no picture; send at least one")
    if shape[0] > settings.max_pictures:
        raise TooLargeError(f"{shape[0]} pictures are more than the {settings.max_pictures} of a request; send fewer")
    size = number(tensor.parameters, "binary_data_size")
    if (size is None) == (tensor.data is None):
        raise InvalidBodyError(f"{name!r} needs either data or the parameter 'binary_data_size'")
    if len(behind) != (size or 0):
        raise InvalidBodyError(f"there are {len(behind)} bytes behind the JSON, and {size or 0} belong to {name!r}")
    if tensor.datatype == TENSOR:
        return numbers_in_json(tensor) if size is None else numbers_in_bytes(tensor, behind)
    files = files_in_json(tensor) if size is None else files_in_bytes(tensor, behind)
    if any(len(file.data) > settings.max_bytes for file in files):
        raise too_large(settings.max_bytes)
    return files


def numbers_in_bytes(tensor: RequestInput, content: memoryview) -> NDArray[np.uint8]:
    """A UINT8 tensor in row-major order; not copied."""
    expected = math.prod(tensor.shape)
    if len(content) != expected:
        raise InvalidBodyError(f"{tensor.name!r} of {tensor.shape} has {expected} bytes, and not {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(tensor.shape)


def numbers_in_json(tensor: RequestInput) -> NDArray[np.uint8]:
    """A UINT8 tensor in lists, nested or flat."""
    try:
        content = bytes(flatten(tensor.data, tensor.shape))
    except (TypeError, ValueError):
        raise InvalidBodyError(
            f"the data of {tensor.name!r} must be whole numbers from 0 to 255: {math.prod(tensor.shape)} in a list, or "
            f"in lists as {tensor.shape} says"
        ) from None
    return np.frombuffer(content, np.uint8).reshape(tensor.shape)


def flatten(data: Any, shape: list[int]) -> list[Any]:
    """The elements of ``data`` in row-major order.

    Raises:
        ValueError: it is neither flat nor nested as ``shape`` says.
    """
    if type(data) is list and len(data) == math.prod(shape) and type(data[0]) is not list:
        return data
    level = [data]
    for side in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {side}:
            raise ValueError
        level = list(chain.from_iterable(level))
    return level


def files_in_bytes(tensor: RequestInput, content: memoryview) -> list[Upload]:
    """The elements of a BYTES tensor."""
    files = []
    start = 0
    for _ in range(tensor.shape[0]):
        if len(content) - start < LENGTH.size:
            break
        (size,) = LENGTH.unpack_from(content, start)
        start += LENGTH.size + size
        files.append(Upload(bytes(content[start - size : start]), None))
    if len(files) != tensor.shape[0] or start != len(content):
        raise InvalidBodyError(
            f"the {len(content)} bytes of {tensor.name!r} are not {tensor.shape[0]} elements, each after its length as "
            "a little-endian 32-bit number"
        )
    return files


def files_in_json(tensor: RequestInput) -> list[Upload]:
    """The elements of a BYTES tensor, as texts: JSON cannot hold a picture as it is."""
    try:
        return [from_text(text) for text in flatten(tensor.data, tensor.shape)]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidBodyError(
            f"the data of {tensor.name!r} must be a list of {tensor.shape[0]} pictures, each as base64 or a data URL"
        ) from error


def read_outputs(request: InferenceRequest, manifest: Manifest) -> list[Wanted]:
    """The outputs that are asked for: all, unless they are named."""
    binary = flag(request.parameters, "binary_data_output", False)
    if not request.outputs:
        return [Wanted(name, binary, 0) for name in manifest.outputs]
    names = [output.name for output in request.outputs]
    unknown = [name for name in names if name not in manifest.outputs]
    if unknown or len(set(names)) < len(names):
        raise InvalidBodyError(f"outputs must be some of {', '.join(manifest.outputs)}, each once")
    return [read_output(output, binary, manifest) for output in request.outputs]


def read_output(output: RequestOutput, binary: bool, manifest: Manifest) -> Wanted:
    """See `read_outputs`."""
    check_parameters(output.parameters)
    classes = number(output.parameters, "classification") or 0
    if classes and output.name != manifest.probabilities:
        raise InvalidBodyError(f"'classification' is of {manifest.probabilities!r} alone, not of {output.name[:100]!r}")
    return Wanted(output.name, flag(output.parameters, "binary_data", binary), min(classes, len(manifest.classes)))
