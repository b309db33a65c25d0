"""Reads inference requests: JSON with tensors in it or behind it (Triton's binary tensor extension)."""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Raw, UnsetType
from numpy.typing import NDArray

from export.format.artifact import Manifest
from service.api.open_inference.json_body import (
    InferenceRequest,
    Parameters,
    RequestInput,
    decode_as_bytes,
    decode_as_texts,
    decode_outputs,
    decode_parameters,
    decode_request,
    decode_shape,
)
from service.api.open_inference.options import (
    ANSWER_PARAMETERS,
    NO_OPTIONS,
    PICTURES,
    RECTIFIED_PARAMETERS,
    RECTIFIED_SOURCE,
    RELIABILITY,
    TENSOR,
    read_options,
    refuse_misplaced,
)
from service.api.options import check_options
from service.api.predict import rectified_options, regions_of
from service.api.request_body import Content, from_text, too_large
from service.errors import InvalidBodyError, InvalidParameterError, TooLargeError, shorten
from service.inference.outputs import answers
from service.inference.preprocessing import Upload
from service.inference.rectified.options import RectifiedOptions
from service.schemas.options import AnswerOptions, RectifyOptions
from service.settings import Settings

RESERVED = "triton_"
SHARED_MEMORY = "shared_memory_region"
LENGTH = struct.Struct("<I")
"""The length before each element of a BYTES tensor."""
MICROSECONDS = 1000
"""Microseconds in a millisecond."""
LONGEST_NUMBER = 18
"""Maximum number of digits of a length."""
LARGEST = 2**63 - 1
"""Largest whole number in a parameter."""
PIECE = 2**16
"""Bytes of a list that are decoded at a time."""
MAX_NAME = 100
"""Characters of a name in an error."""
INPUT = "inputs.0"
NO_BRACKETS = bytes(set(range(256)) - set(b'[]{},"'))


class RequestedOutput(NamedTuple):
    """A requested output."""

    name: str
    binary: bool
    classes: int
    """Number of the best classes to name; 0 for the tensor itself."""
    rectified: RectifiedOptions | None = None
    """The form of the rectified images, if the output is `RECTIFIED_SOURCE`."""
    is_reliability: bool = False
    """Whether the output is `RELIABILITY`, and no output of the model's own."""


class DecodedRequest(NamedTuple):
    """An inference request."""

    id: str | None
    pictures: NDArray[np.uint8] | list[Upload]
    """``(N, H, W, C)`` of the input of the model, or N picture files."""
    outputs: list[RequestedOutput]
    timeout_ms: float
    """Time for the response; 0 if the request sets none."""
    options: AnswerOptions = NO_OPTIONS
    """Regions, a hint at the angle, and views; the others are the defaults."""


def read_request(
    content: Content, header_length: bytes | None, manifest: Manifest, settings: Settings
) -> DecodedRequest:
    """Decode ``content``, of which ``header_length`` (Inference-Header-Content-Length) bytes are JSON.

    Raises:
        InvalidBodyError: the request violates the protocol, or does not fit the model.
        TooLargeError: the request has too many or too large pictures.
    """
    length = len(content) if header_length is None else json_length(header_length, len(content))
    if length == 0 and header_length is not None:
        return raw_request(content, manifest)
    if length > settings.max_bytes:
        raise TooLargeError(f"there are more than {settings.max_bytes} bytes of JSON; send tensors as binary data")
    view = memoryview(content)
    request = decode_request(view[:length], settings.max_json_bytes)
    parameters = read_parameters(request.parameters, "parameters")
    tensor = read_input(request, manifest)
    options = read_options(parameters, tensor.datatype, manifest)
    pictures = read_pictures(tensor, view[length:], manifest, settings)
    images = len(pictures) * regions_of(options)
    outputs = read_outputs(request.outputs, parameters, manifest, images, options, settings)
    return DecodedRequest(request.id, pictures, outputs, (number(parameters, "timeout") or 0) / MICROSECONDS, options)


def json_length(header_length: bytes, most: int) -> int:
    """Return how many of the ``most`` bytes of a body are JSON; 0 if all of it is a tensor."""
    if not header_length.isdigit() or len(header_length) > LONGEST_NUMBER:
        raise InvalidBodyError("Inference-Header-Content-Length must be the number of bytes of the JSON")
    length = int(header_length)
    if length > most:
        raise InvalidBodyError(f"Inference-Header-Content-Length is {length}, but the body has only {most} bytes")
    return length


def raw_request(content: Content, manifest: Manifest) -> DecodedRequest:
    """Read a body that is the tensor of one picture. All outputs are returned as bytes."""
    tensor = manifest.image()
    expected = math.prod(tensor.shape)
    if len(content) != expected:
        raise InvalidBodyError(
            f"a raw body must be one picture of {list(tensor.shape)}, {expected} bytes, and not {len(content)}; "
            "other pictures go in a BYTES tensor"
        )
    pictures = np.frombuffer(content, np.uint8).reshape(1, *tensor.shape)
    return DecodedRequest(None, pictures, [RequestedOutput(name, True, 0) for name in manifest.outputs], 0)


def read_input(request: InferenceRequest, manifest: Manifest) -> RequestInput:
    """Return the input of a request."""
    first, name = request.inputs.first, manifest.input.name
    if not isinstance(request.inputs.second, UnsetType):
        raise InvalidBodyError(f"the model takes one input, {name!r}, not several")
    if isinstance(first, UnsetType):
        raise InvalidBodyError(f"the model takes one input, {name!r}, not none")
    if first.name != name:
        raise InvalidBodyError(f"the model takes one input, {name!r}, not {shorten(first.name, MAX_NAME)!r}")
    return first


def read_parameters(raw: Raw | UnsetType, path: str) -> Parameters:
    """Decode parameters, and reject unsupported ones."""
    parameters = decode_parameters(raw, path)
    for name in parameters:
        if name.startswith(RESERVED):
            raise InvalidBodyError(
                f"the parameter {name[:MAX_NAME]!r} is reserved, as all that begin with {RESERVED!r}"
            )
    if SHARED_MEMORY in parameters:
        raise InvalidBodyError("shared memory is not supported; send tensors in the body")
    return parameters


def number(parameters: Parameters, name: str) -> int | None:
    """Return a parameter that is a whole number, 0 or more."""
    value = parameters.get(name)
    if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
        raise InvalidBodyError(f"the parameter {name!r} must be a whole number, 0 or more")
    return value


def flag(parameters: Parameters, name: str, default: bool) -> bool:
    """Return a parameter that is true or false."""
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidBodyError(f"the parameter {name!r} must be true or false")
    return value


def read_pictures(
    tensor: RequestInput, behind: memoryview, manifest: Manifest, settings: Settings
) -> NDArray[np.uint8] | list[Upload]:
    """Read the pictures of a request. All bytes ``behind`` the JSON must belong to them."""
    parameters = read_parameters(tensor.parameters, f"{INPUT}.parameters")
    refuse_misplaced(parameters, f"{INPUT}.parameters")
    shape = read_shape(tensor, manifest, settings)
    name, data = tensor.name, data_of(tensor)
    size = number(parameters, "binary_data_size")
    if (size is None) == (data is None):
        raise InvalidBodyError(f"{name!r} needs either data or the parameter 'binary_data_size'")
    if len(behind) != (size or 0):
        raise InvalidBodyError(f"there are {len(behind)} bytes behind the JSON, and {size or 0} belong to {name!r}")
    if tensor.datatype == TENSOR:
        if data is None:
            return numbers_in_bytes(name, shape, behind)
        return numbers_in_json(name, shape, data, settings.max_json_bytes)
    files = files_in_bytes(name, shape[0], behind) if data is None else files_in_json(name, shape[0], data)
    if any(len(file.data) > settings.max_bytes for file in files):
        raise too_large(settings.max_bytes)
    return files


def data_of(tensor: RequestInput) -> bytes | None:
    """Return the JSON of the data of an input, if any."""
    data = None if isinstance(tensor.data, UnsetType) else bytes(tensor.data)
    return None if data == b"null" else data


def read_shape(tensor: RequestInput, manifest: Manifest, settings: Settings) -> list[int]:
    """Decode the shape of an input, which must fit the model."""
    name, shape = tensor.name, decode_shape(tensor.shape, f"{INPUT}.shape")
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
    return shape


def numbers_in_bytes(name: str, shape: list[int], content: memoryview) -> NDArray[np.uint8]:
    """Read a UINT8 tensor in row-major order, without a copy."""
    expected = math.prod(shape)
    if len(content) != expected:
        raise InvalidBodyError(f"{name!r} of {shape} has {expected} bytes, and not {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def numbers_in_json(name: str, shape: list[int], text: bytes, max_json_bytes: int) -> NDArray[np.uint8]:
    """Read a UINT8 tensor in lists, nested or flat.

    The brackets are compared with those of the shape, and the numbers are decoded as one flat list. Nested lists are
    never built.
    """
    count = math.prod(shape)
    if len(text) > max_json_bytes:
        raise TooLargeError(f"{name!r} has more than {max_json_bytes} bytes as JSON; send tensors as binary data")
    wrong = InvalidBodyError(
        f"the data of {name!r} must be whole numbers from 0 to 255: {count} in a list, or in lists as {shape} says"
    )
    if text.count(b",") != count - 1 or text.translate(None, NO_BRACKETS) not in (brackets([count]), brackets(shape)):
        raise wrong
    try:
        numbers = b"".join([bytes(decode_as_bytes.decode(piece)) for piece in split_list(text.translate(None, b"[]"))])
    except msgspec.DecodeError:
        raise wrong from None
    if len(numbers) != count:
        raise wrong
    return np.frombuffer(numbers, np.uint8).reshape(shape)


def split_list(elements: bytes) -> Iterator[bytes]:
    """JSON of a list of ``elements``, cut at commas; to decode it in one go would hold all threads."""
    start = 0
    while start < len(elements):
        end = elements.find(b",", start + PIECE)
        end = len(elements) if end < 0 else end
        yield b"[%b]" % elements[start:end]
        start = end + 1


def brackets(shape: list[int]) -> bytes:
    """Return the JSON of a tensor without its numbers: ``[[,],[,]]`` for ``[2, 2]``."""
    text = b""
    for side in reversed(shape):
        text = b"[%b]" % b",".join([text] * side)
    return text


def files_in_bytes(name: str, count: int, content: memoryview) -> list[Upload]:
    """Read the elements of a BYTES tensor."""
    files = []
    start = 0
    for _ in range(count):
        if len(content) - start < LENGTH.size:
            break
        (size,) = LENGTH.unpack_from(content, start)
        start += LENGTH.size + size
        files.append(Upload(bytes(content[start - size : start]), None))
    if len(files) != count or start != len(content):
        raise InvalidBodyError(
            f"the {len(content)} bytes of {name!r} are not {count} elements, each after its length as a little-endian "
            "32-bit number"
        )
    return files


def files_in_json(name: str, count: int, text: bytes) -> list[Upload]:
    """Read the elements of a BYTES tensor from texts, since JSON cannot hold bytes."""
    wrong = InvalidBodyError(f"the data of {name!r} must be a list of {count} pictures, each as base64 or a data URL")
    if text.count(b'"') != 2 * count:
        raise wrong
    try:
        texts = decode_as_texts.decode(text)
        files = [from_text(file) for file in texts]
    except (msgspec.DecodeError, ValueError):
        raise wrong from None
    if len(files) != count:
        raise wrong
    return files


def read_outputs(
    raw: Raw | UnsetType,
    parameters: Parameters,
    manifest: Manifest,
    images: int,
    options: AnswerOptions,
    settings: Settings,
) -> list[RequestedOutput]:
    """Return the requested outputs: all of the model, unless the request names some.

    There are as many rectified ``images`` as answers.
    """
    binary = flag(parameters, "binary_data_output", False)
    outputs = decode_outputs(raw)
    own = set(manifest.outputs)
    if not outputs:
        refuse_misplaced(parameters, "parameters", *ANSWER_PARAMETERS)
        every = [RequestedOutput(name, binary, 0) for name in manifest.outputs]
        told = [RequestedOutput(RELIABILITY, binary, 0, is_reliability=True)]
        return every + told if options.reliability and RELIABILITY not in own else every
    names = {output.name for output in outputs}
    known = dict.fromkeys((*manifest.outputs, RECTIFIED_SOURCE, RELIABILITY))
    if not names.issubset(known) or len(names) < len(outputs):
        raise InvalidBodyError(f"outputs must be some of {', '.join(known)}, each once")
    added = names - own
    if bool(options.reliability) != (RELIABILITY in added):
        raise InvalidBodyError(
            f"the parameter {RELIABILITY!r} of the request and the output {RELIABILITY!r} need each other"
        )
    if RECTIFIED_SOURCE not in added:
        refuse_misplaced(parameters, "parameters", *ANSWER_PARAMETERS)
    found = []
    for index, output in enumerate(outputs):
        path = f"outputs.{index}.parameters"
        chosen = read_parameters(output.parameters, path)
        is_rectified = output.name == RECTIFIED_SOURCE and RECTIFIED_SOURCE in added
        refuse_misplaced(chosen, path, *(RECTIFIED_PARAMETERS if is_rectified else ()))
        rectified = read_rectified(parameters | chosen, path, images, settings, manifest) if is_rectified else None
        is_reliability = output.name == RELIABILITY and RELIABILITY in added
        found.append(
            read_output(output.name, chosen, binary, manifest)._replace(
                rectified=rectified, is_reliability=is_reliability
            )
        )
    return found


def read_rectified(
    given: Parameters, path: str, images: int, settings: Settings, manifest: Manifest
) -> RectifiedOptions:
    """Return the form of rectified images that the parameters of the output, else of the request, ask for."""
    chosen = {name: str(given[name]) for name in RECTIFIED_PARAMETERS if name in given}
    try:
        options = check_options(chosen.items(), RectifyOptions)
        wanted = rectified_options(options, options.rectified or "png", images, settings)
        assert wanted is not None  # noqa: S101 - there is a format
        return wanted.of_main(manifest)
    except InvalidParameterError as error:
        raise InvalidBodyError(f"{path}: {error}") from None


def read_output(name: str, parameters: Parameters, binary: bool, manifest: Manifest) -> RequestedOutput:
    """See `read_outputs`."""
    classes = number(parameters, "classification") or 0
    if classes and name != manifest.probabilities:
        only = repr(manifest.probabilities) if manifest.probabilities else "classifiers"
        raise InvalidBodyError(f"'classification' is for {only} only, not for {name!r}")
    return RequestedOutput(name, flag(parameters, "binary_data", binary), min(classes, answers(manifest)))
