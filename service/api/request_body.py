"""Request bodies: multipart, raw picture or JSON, read under a limit and taken apart into uploads."""

import asyncio
import binascii
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import InvalidBodyError, InvalidParameterError, TooLargeError, UnsupportedMediaTypeError
from service.inference.admission import Permit
from service.inference.preprocessing import Upload

ONE = "image"
SEVERAL = "images"
DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
BOUNDARY = re.compile(rb'multipart/form-data; ?boundary="?([\w\'()+,./:=?-]{1,70})"?', re.IGNORECASE | re.ASCII)
PART = re.compile(
    rb'\r\nContent-Disposition: form-data; name="(?P<name>\w+)"; filename="[^"\r\n\\\0]*"'
    rb"(?:\r\nContent-Type: ?(?P<type>[\w.+/-]+))?\r\n\r\n",
    re.IGNORECASE | re.ASCII,
)
"""The head of a part as curl, browsers and HTTP libraries write it."""
MAX_FIELDS = 16
IN_PLACE_BYTES = 64 * 2**10
"""JSON bodies up to this are parsed on the event loop."""
PIECE = 2**18
"""Characters or bytes that are worked on in one go; the event loop can take its turn in between."""
COPIED_IN_PLACE = 2**20
"""Bytes that may be copied on the event loop: a fraction of a millisecond."""
HOW = f"send multipart/form-data with a part called {ONE!r}, a picture with Content-Type: image/..., or JSON"


class Body:
    """The body of a request, and what its head says of it."""

    __slots__ = ("_length", "_receive", "headers", "type")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]], receive: Receive) -> None:
        self.headers = headers
        self._receive = receive
        self.type: bytes | None = None
        self._length = b""
        for name, value in headers:
            if name == b"content-type":
                self.type = value
            elif name == b"content-length":
                self._length = value

    async def read(self, max_bytes: int, seat: Permit) -> bytes:
        """The whole body; stops as soon as it is known to be too large.

        Raises:
            TooLargeError: it has more than ``max_bytes``.
            QueueFullError: there is no room for it.
            ClientDisconnect: it will never be whole.
        """
        if self._length.isdigit() and int(self._length) > max_bytes:
            raise too_large(max_bytes)
        received = 0
        chunks = []
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > max_bytes:
                raise too_large(max_bytes)
            seat.take(size=len(chunk))
            chunks.append(chunk)
            more = message.get("more_body", False)
        if len(chunks) == 1:
            return chunks[0]
        return b"".join(chunks) if received <= COPIED_IN_PLACE else await asyncio.to_thread(b"".join, chunks)


class WholeBody(Body):
    """One that has come already."""

    __slots__ = ("_content",)

    def __init__(self, content_type: bytes, content: bytes) -> None:
        self.type = content_type or None
        self.headers = ((b"content-type", content_type),) if content_type else ()
        self._content = content

    async def read(self, max_bytes: int, seat: Permit) -> bytes:
        size = len(self._content)
        if size > max_bytes:
            raise too_large(max_bytes)
        seat.take(size=size)
        return self._content


async def read_one(body: Body, max_bytes: int, seat: Permit) -> Upload:
    """The one picture of a request.

    Raises:
        TooLargeError: the body has more than ``max_bytes``.
        InvalidBodyError: the body cannot be parsed.
        InvalidParameterError: the body has no such picture, or more than one.
        UnsupportedMediaTypeError: the body is of a type that holds no picture.
        QueueFullError: there is no room for it.
    """
    content_type = media_type(body.type)
    if content_type == "multipart/form-data":
        uploads = await read_form(body, max_bytes, seat, ONE, MAX_FIELDS)
        if len(uploads) > 1:
            raise InvalidParameterError(
                f"{len(uploads)} parts are called {ONE!r}; POST /predict/batch takes several pictures"
            )
        return uploads[0]
    if content_type == "application/json":
        content = await body.read(max_bytes, seat)
        return from_json(content) if len(content) <= IN_PLACE_BYTES else await asyncio.to_thread(from_json, content)
    if content_type is None or content_type.startswith("image/") or content_type == "application/octet-stream":
        return Upload(await body.read(max_bytes, seat), content_type)
    raise UnsupportedMediaTypeError(f"a body of type {content_type} is not a picture; {HOW}")


async def read_several(body: Body, max_bytes: int, max_pictures: int, seat: Permit) -> list[Upload]:
    """All pictures of a request, in order.

    Raises:
        TooLargeError: the body has more than ``max_bytes`` or more than ``max_pictures`` pictures.
        InvalidBodyError: the body cannot be parsed.
        InvalidParameterError: the body has no pictures.
        UnsupportedMediaTypeError: the body is not multipart.
        QueueFullError: there is no room for it.
    """
    content_type = media_type(body.type)
    if content_type != "multipart/form-data":
        raise UnsupportedMediaTypeError(f"send multipart/form-data with parts called {SEVERAL!r}, not {content_type}")
    uploads = await read_form(body, max_bytes, seat, SEVERAL, max_pictures + 1)
    if len(uploads) > max_pictures:
        raise TooLargeError(
            f"more than {max_pictures} pictures were sent, which is the most in one request; send fewer"
        )
    return uploads


async def read_form(body: Body, max_bytes: int, seat: Permit, name: str, max_files: int) -> list[Upload]:
    """The pictures in the parts called ``name`` of a multipart body; there is at least one.

    Of at most ``max_files`` files and `MAX_FIELDS` texts.
    """
    content = await body.read(max_bytes, seat)
    form = content, body.type or b"", name, max_files
    uploads = split_form(*form) if len(content) <= COPIED_IN_PLACE else await asyncio.to_thread(split_form, *form)
    return uploads if uploads is not None else await parse_form(content, body, name, max_files)


def split_form(content: bytes, content_type: bytes, name: str, max_files: int) -> list[Upload] | None:
    """What `parse_form` gives, if all parts are plainly written files called ``name``; takes a tenth of its time."""
    declared = BOUNDARY.fullmatch(content_type)
    if declared is None:
        return None
    boundary = b"--" + declared[1]
    if not content.startswith(boundary):
        return None
    uploads: list[Upload] = []
    start = len(boundary)
    while (end := content.find(boundary, start)) >= 0:
        head = PART.match(content, start, end - 2)
        if head is None or head["name"] != name.encode() or content[end - 2 : end] != b"\r\n":
            return None
        if len(uploads) == max_files:
            return None
        declared_type = head["type"]
        uploads.append(Upload(content[head.end() : end - 2], declared_type.decode().lower() if declared_type else None))
        start = end + len(boundary)
    return uploads if uploads and content[start:] in (b"--\r\n", b"--") else None


async def parse_form(content: bytes, body: Body, name: str, max_files: int) -> list[Upload]:
    """See `read_form`; takes whatever is multipart and tells what is wrong."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]
            await asyncio.sleep(0)

    parser = Parser(
        Headers(raw=list(body.headers)),
        pieces(),
        max_files=max_files,
        max_fields=MAX_FIELDS,
        max_part_size=len(content),
    )
    parser.spool_max_size = len(content) + 1  # it is in memory already
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise TooLargeError(f"{error.message} Send fewer in one request.") from error
        raise InvalidBodyError(f"the multipart body cannot be parsed: {error.message}") from error
    except ValueError as error:  # charsets that cannot decode names
        raise InvalidBodyError(f"the multipart body cannot be parsed: {error}") from error
    if not parser.ended:
        raise InvalidBodyError("the multipart body ends before its closing boundary; send it again whole")
    parts = form.getlist(name)
    if not parts:
        raise no_part(name, form)
    return [await from_part(part, name) for part in parts]


class Parser(MultiPartParser):
    """Starlette's, which drops a part that is cut short, made to tell."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


def too_large(max_bytes: int) -> TooLargeError:
    """The error for a body of more than ``max_bytes``."""
    return TooLargeError(
        f"the body has more than {max_bytes} bytes, the most that is taken; scale the picture down, or send fewer"
    )


def no_part(name: str, form: FormData) -> InvalidParameterError:
    """The error for a form without a part called ``name``."""
    found = ", ".join(sorted({repr(key) for key in form})) or "none"
    return InvalidParameterError(
        f"no part of the body is called {name!r} (found: {found}); curl -F {name}=@PICTURE makes one"
    )


async def from_part(part: UploadFile | str, name: str) -> Upload:
    """The picture in a part called ``name``."""
    if isinstance(part, str):
        raise InvalidParameterError(f"the part {name!r} is text, not a file; curl -F {name}=@PICTURE needs the @")
    return Upload(await part.read(), media_type((part.content_type or "").encode("latin-1", "replace")))


def from_json(body: bytes) -> Upload:
    """The picture in ``{"image": base64 or data URL}``."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict) or content.keys() != {ONE} or not isinstance(content[ONE], str):
        raise InvalidParameterError(f'the JSON body must be {{"{ONE}": "<base64>"}} and nothing else')
    try:
        return from_text(content[ONE])
    except (binascii.Error, ValueError) as error:
        raise InvalidBodyError(f"{ONE!r} is not base64: {error}") from error


def from_text(text: str) -> Upload:
    """The picture in base64 or a data URL.

    Raises:
        ValueError: it is neither.
    """
    prefix = DATA_URL.match(text[:200])
    data = from_base64(text[prefix.end() :] if prefix else text)
    return Upload(data, (prefix["type"].lower() or None) if prefix else None)


def from_base64(text: str) -> bytes:
    """The bytes of a text that may have white space in it.

    Raises:
        ValueError: it is not base64.
    """
    encoded = "".join(text.split()).encode("ascii")
    if b"=" in encoded[:-2]:
        raise ValueError("there is padding in the middle")
    pieces = (encoded[start : start + PIECE] for start in range(0, len(encoded), PIECE))
    return b"".join([binascii.a2b_base64(piece, strict_mode=True) for piece in pieces])


def media_type(header: bytes | None) -> str | None:
    """``Image/PNG; charset=x`` -> ``image/png``."""
    return (header or b"").decode("latin-1").partition(";")[0].strip().lower() or None
