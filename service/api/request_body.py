"""Reads request bodies under limits and parses them into uploads: multipart, raw pictures or JSON."""

import asyncio
import binascii
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.api.multipart import Part, read_media_type, read_text, split_form
from service.errors import InvalidBodyError, InvalidParameterError, TooLargeError, UnsupportedMediaTypeError, shorten
from service.inference.admission import Permit
from service.inference.preprocessing import Upload
from service.schemas.options import MAX_REGIONS

IMAGE_FIELD = "image"
IMAGES_FIELD = "images"
CHARSET = "_charset_"
"""A field in which browsers may name the encoding of the others (RFC 7578). It is ignored, as options are ASCII."""
DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
NO_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
WHITE_SPACE = b" \t\n\r\f\v"
MAX_FIELDS = 16 + MAX_REGIONS
MAX_FIELD_BYTES = 1000
MAX_NAMES = 5
"""Maximum number of names in an error, each with at most `MAX_NAME` characters."""
MAX_NAME = 60
IN_PLACE_BYTES = 64 * 2**10
"""Largest JSON body in bytes that is parsed on the event loop."""
PIECE = 2**18
"""Characters or bytes that are processed at a time, so that other threads can run in between."""
COPIED_IN_PLACE = 2**20
"""Most bytes that are copied on the event loop, in a fraction of a millisecond."""
HOW = f"send multipart/form-data with a part called {IMAGE_FIELD!r}, a picture with Content-Type: image/..., or JSON"

Content = bytes | bytearray
"""A body. It stays a bytearray if it arrived in pieces, since a copy would block the interpreter."""
Fields = list[tuple[str, str]]
"""Names and values."""


class Form(NamedTuple):
    """The pictures and options in the form of a request."""

    uploads: list[Upload]
    fields: Fields


class JsonPicture(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request with a picture in JSON."""

    image: str


decode_picture = msgspec.json.Decoder(JsonPicture).decode
check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


class Body:
    """The body of a request and the headers that describe it."""

    __slots__ = ("_content", "_length", "_receive", "headers", "type")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]], receive: Receive, content: bytes | None = None) -> None:
        """``content`` is the complete body, if it has arrived."""
        self.headers = headers
        self._receive = receive
        self._content = content
        self.type: bytes | None = None
        self._length = b""
        for name, value in headers:
            if name == b"content-type":
                self.type = value
            elif name == b"content-length":
                self._length = value

    async def read(self, max_bytes: int, permit: Permit) -> Content:
        """Read the complete body, or stop as soon as it is too large.

        Raises:
            TooLargeError: the body has more than ``max_bytes``.
            QueueFullError: there is no capacity for the body.
            RequestTimeoutError: the body was dropped in favour of faster ones.
            ClientDisconnect: the client has disconnected.
        """
        if self._length.isdigit() and int(self._length) > max_bytes:
            raise too_large(max_bytes)
        whole = self._content
        if whole is None:
            message = await self._receive()
            whole = read_chunk(message)
            if message.get("more_body", False):
                return await self._read_pieces(message, max_bytes, permit)
        if len(whole) > max_bytes:
            raise too_large(max_bytes)
        permit.take(size=len(whole))
        return whole

    async def _read_pieces(self, message: Message, max_bytes: int, permit: Permit) -> bytearray:
        """Read a body that arrives in several pieces, of which ``message`` is the first."""
        content = bytearray()
        async with permit.arrival() as arrival:
            while True:
                chunk = read_chunk(message)
                if len(content) + len(chunk) > max_bytes:
                    raise too_large(max_bytes)
                arrival.add(len(chunk))
                content += chunk
                if not message.get("more_body", False):
                    break
                message = await self._receive()
        return content


def read_chunk(message: Message) -> bytes:
    """Return the piece of a body in an ASGI message."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk: bytes = message.get("body", b"")
    return chunk


async def read_one(body: Body, max_bytes: int, max_json_bytes: int, permit: Permit) -> tuple[Upload, Fields]:
    """Read the picture of a request and the options in its form.

    Raises:
        TooLargeError: the body has more than ``max_bytes``, or more than ``max_json_bytes`` of JSON besides base64.
        InvalidBodyError: the body cannot be parsed.
        InvalidParameterError: the body has no picture or several.
        UnsupportedMediaTypeError: the type of the body is not supported.
        QueueFullError: there is no capacity for the body.
    """
    content_type = read_media_type(body.type)
    if content_type == "multipart/form-data":
        uploads, fields = await read_form(body, max_bytes, permit, IMAGE_FIELD, MAX_FIELDS)
        if len(uploads) > 1:
            raise InvalidParameterError(
                f"{len(uploads)} parts are called {IMAGE_FIELD!r}; POST /predict/batch takes several pictures"
            )
        return uploads[0], fields
    if content_type == "application/json":
        content = await body.read(max_bytes, permit)
        if len(content) <= IN_PLACE_BYTES:
            return from_json(content, max_json_bytes), []
        return await asyncio.to_thread(from_json, content, max_json_bytes), []
    if content_type is None or content_type.startswith("image/") or content_type == "application/octet-stream":
        content = await body.read(max_bytes, permit)
        return Upload(content if isinstance(content, bytes) else await copy(content), content_type), []
    raise UnsupportedMediaTypeError(f"a body of type {shorten(content_type, MAX_NAME)} is not a picture; {HOW}")


async def copy(content: bytearray) -> bytes:
    """Copy ``content`` to bytes, in a thread if it is large."""
    return bytes(content) if len(content) <= COPIED_IN_PLACE else await asyncio.to_thread(bytes, content)


async def read_several(body: Body, max_bytes: int, max_each: int, max_pictures: int, permit: Permit) -> Form:
    """Read the pictures of a request in order and the options in its form.

    Of a picture with more than ``max_each`` bytes, which is rejected later, ``max_each`` + 1 bytes are read.

    Raises:
        TooLargeError: the body has more than ``max_bytes`` or more than ``max_pictures`` pictures.
        InvalidBodyError: the body cannot be parsed.
        InvalidParameterError: the body has no pictures.
        UnsupportedMediaTypeError: the body is not multipart.
        QueueFullError: there is no capacity for the body.
    """
    content_type = read_media_type(body.type)
    if content_type != "multipart/form-data":
        found = shorten(str(content_type), MAX_NAME)
        raise UnsupportedMediaTypeError(f"send multipart/form-data with parts called {IMAGES_FIELD!r}, not {found}")
    return await read_form(body, max_bytes, permit, IMAGES_FIELD, max_pictures, max_each)


async def read_form(
    body: Body, max_bytes: int, permit: Permit, name: str, max_files: int, max_each: int | None = None
) -> Form:
    """Read a form with pictures in parts called ``name``, of which there must be at least one.

    The form may have ``max_files`` files and `MAX_FIELDS` texts. `read_several` describes ``max_each``.
    """
    content = await body.read(max_bytes, permit)
    content_type = body.type or b""
    if len(content) <= COPIED_IN_PLACE:
        return parse_form(content, content_type, name, max_files, max_each)
    return await asyncio.to_thread(parse_form, content, content_type, name, max_files, max_each)


def parse_form(content: Content, content_type: bytes, name: str, max_files: int, max_each: int | None = None) -> Form:
    """See `read_form`."""
    parts = split_form(content, content_type, max_files, MAX_FIELDS)
    pictures = [part for part in parts if part.is_file and part.name == name]
    if len(pictures) == len(parts) > 0:
        return Form([read_upload(content, part, max_each) for part in pictures], [])
    check_names(parts, name)
    texts = [part for part in parts if not part.is_file and part.name != CHARSET]
    fields = [(part.name, read_field(content, part)) for part in texts]
    return Form([read_upload(content, part, max_each) for part in pictures], fields)


def check_names(parts: Sequence[Part], name: str) -> None:
    """Raise `InvalidParameterError` unless the parts called ``name`` are files and all others are texts."""
    names = {part.name for part in parts}
    if name not in names:
        found = ", ".join(repr(shorten(other, MAX_NAME)) for other in sorted(names)[:MAX_NAMES]) or "none"
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        raise InvalidParameterError(
            f"no part of the body is called {name!r} (found: {found}{more}); curl -F {name}=@PICTURE makes one"
        )
    for part in parts:
        if part.name == name and not part.is_file:
            raise InvalidParameterError(f"the part {name!r} is text, not a file; curl -F {name}=@PICTURE needs the @")
        if part.name != name and part.is_file:
            raise InvalidParameterError(
                f"the part {shorten(part.name, MAX_NAME)!r} is a file; pictures go into parts called {name!r}"
            )


def read_upload(content: Content, part: Part, max_each: int | None) -> Upload:
    """Return the picture in a part."""
    if not part.is_base64:
        end = part.end if max_each is None else min(part.end, part.start + max_each + 1)
        return Upload(cut(content, part.start, end), part.type)
    try:
        return Upload(from_base64(cut(content, part.start, part.end)), part.type)
    except ValueError as error:
        raise InvalidBodyError(f"the part {shorten(part.name, MAX_NAME)!r} is not base64: {error}") from None


def cut(content: Content, start: int, end: int) -> bytes:
    """Copy a part of ``content``."""
    return content[start:end] if isinstance(content, bytes) else bytes(memoryview(content)[start:end])


def read_field(content: Content, part: Part) -> str:
    """Return the text in a part."""
    name = shorten(part.name, MAX_NAME)
    if part.end - part.start > MAX_FIELD_BYTES:
        raise InvalidParameterError(
            f"the field {name!r} has more than {MAX_FIELD_BYTES} bytes; /docs lists the options"
        )
    data = cut(content, part.start, part.end)
    try:
        return read_text(from_base64(data) if part.is_base64 else data)
    except ValueError as error:
        raise InvalidBodyError(f"the field {name!r} is not base64: {error}") from None


def too_large(max_bytes: int) -> TooLargeError:
    """Make the error for a body of more than ``max_bytes``."""
    return TooLargeError(f"the body has more than {max_bytes} bytes; scale the picture down, or send fewer")


def check_structure(content: Content | memoryview, max_json_bytes: int) -> None:
    """Raise `TooLargeError` if JSON has more than ``max_json_bytes`` besides the text of pictures in base64.

    The bytes outside of base64 are counted at the speed of a copy. A body that passes is parsed within milliseconds.
    """
    if len(content) <= max_json_bytes:
        return
    view, counted = memoryview(content), 0
    for start in range(0, len(view), PIECE):
        counted += len(bytes(view[start : start + PIECE]).translate(None, NO_BASE64))
        if counted <= max_json_bytes:
            continue
        raise TooLargeError(
            f"there are more than {max_json_bytes} bytes of JSON besides pictures in base64; send pictures as files, "
            "and tensors as binary data"
        )


def from_json(body: Content, max_json_bytes: int) -> Upload:
    """Return the picture in ``{"image": base64 or data URL}``."""
    check_structure(body, max_json_bytes)
    try:
        text = decode_picture(body).image
    except msgspec.ValidationError:
        if len(body) <= max_json_bytes:
            check_json(body)
        raise InvalidParameterError(f'the JSON body must be {{"{IMAGE_FIELD}": "<base64>"}} and nothing else') from None
    except msgspec.DecodeError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from None
    try:
        return from_text(text)
    except ValueError as error:
        raise InvalidBodyError(f"{IMAGE_FIELD!r} is not base64: {error}") from None


def check_json(content: Content) -> None:
    """Raise `InvalidBodyError` if ``content`` is not JSON. No objects are built."""
    try:
        check_syntax(content)
    except msgspec.DecodeError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidBodyError("the body is not JSON that can be read: it is nested too deeply") from None


def from_text(text: str) -> Upload:
    """Decode a picture in base64 or a data URL.

    Raises:
        ValueError: the text is neither.
    """
    prefix = DATA_URL.match(text[:200])
    data = from_base64((text[prefix.end() :] if prefix else text).encode("ascii"))
    return Upload(data, (prefix["type"].lower() or None) if prefix else None)


def from_base64(text: bytes) -> bytes:
    """Decode base64 with optional white space.

    Raises:
        ValueError: the text is not base64.
    """
    encoded = b"".join(
        [text[start : start + PIECE].translate(None, WHITE_SPACE) for start in range(0, len(text), PIECE)]
    )
    if encoded.find(b"=", 0, -2) >= 0:
        raise ValueError("there is padding in the middle")
    pieces = (encoded[start : start + PIECE] for start in range(0, len(encoded), PIECE))
    return b"".join([binascii.a2b_base64(piece, strict_mode=True) for piece in pieces])
