"""Request bodies: multipart, raw picture or JSON, read under a limit and taken apart into uploads."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadBodyError, BadOptionError, NotAPictureError, TooLargeError
from service.images import Upload

ONE = "image"
SEVERAL = "images"
DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
MAX_FIELDS = 16
IN_PLACE_BYTES = 64 * 2**10
"""JSON bodies up to this are parsed on the event loop; 10 MB take some 20 ms."""
HOW = f"send multipart/form-data with a part called {ONE!r}, a picture with Content-Type: image/..., or JSON"


async def read_one(request: Request, max_bytes: int) -> Upload:
    """The one picture of ``request``.

    Raises:
        TooLargeError: the body has more than ``max_bytes``.
        BadBodyError: the body cannot be parsed.
        BadOptionError: the body has no such picture, or more than one.
        NotAPictureError: the body is of a type that holds no picture.
    """
    content_type = media_type(request.headers.get("content-type"))
    if content_type == "multipart/form-data":
        form = await read_form(request, max_bytes, max_files=MAX_FIELDS)
        parts = form.getlist(ONE)
        if not parts:
            raise no_part(ONE, form)
        if len(parts) > 1:
            raise BadOptionError(f"{len(parts)} parts are called {ONE!r}; POST /predict/batch takes several pictures")
        return await from_part(parts[0], ONE)
    if content_type == "application/json":
        body = await read_body(request, max_bytes)
        return from_json(body) if len(body) <= IN_PLACE_BYTES else await asyncio.to_thread(from_json, body)
    if content_type is None or content_type.startswith("image/") or content_type == "application/octet-stream":
        return Upload(await read_body(request, max_bytes), content_type)
    raise NotAPictureError(f"a body of type {content_type} is not a picture; {HOW}")


async def read_several(request: Request, max_bytes: int, max_pictures: int) -> list[Upload]:
    """All pictures of ``request``, in order.

    Raises:
        TooLargeError: the body has more than ``max_bytes`` or more than ``max_pictures`` pictures.
        BadBodyError: the body cannot be parsed.
        BadOptionError: the body has no pictures.
        NotAPictureError: the body is not multipart.
    """
    content_type = media_type(request.headers.get("content-type"))
    if content_type != "multipart/form-data":
        raise NotAPictureError(f"send multipart/form-data with parts called {SEVERAL!r}, not {content_type}")
    form = await read_form(request, max_bytes, max_files=max_pictures + 1)
    parts = form.getlist(SEVERAL)
    if len(parts) > max_pictures:
        raise TooLargeError(
            f"more than {max_pictures} pictures were sent, which is the most in one request; send fewer"
        )
    if not parts:
        raise no_part(SEVERAL, form)
    return [await from_part(part, SEVERAL) for part in parts]


async def chunks(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; stops as soon as it is known to be too large."""
    refusal = TooLargeError(
        f"the body has more than {max_bytes} bytes, which is the most that is taken; scale the picture down"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise refusal
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise refusal
        yield chunk


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body."""
    return b"".join([chunk async for chunk in chunks(request, max_bytes)])


async def read_form(request: Request, max_bytes: int, max_files: int) -> FormData:
    """The parts of a multipart body; at most ``max_files`` files and `MAX_FIELDS` texts."""
    parser = Parser(
        request.headers, chunks(request, max_bytes), max_files=max_files, max_fields=MAX_FIELDS, max_part_size=max_bytes
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise TooLargeError(f"{error.message} Send fewer in one request.") from error
        raise BadBodyError(f"the multipart body cannot be parsed: {error.message}") from error
    except ValueError as error:  # charsets that cannot decode names
        raise BadBodyError(f"the multipart body cannot be parsed: {error}") from error
    if not parser.ended:
        raise BadBodyError("the multipart body ends before its closing boundary; send it again whole")
    return form


class Parser(MultiPartParser):
    """Starlette's, which drops a part that is cut short, made to tell."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


def no_part(name: str, form: FormData) -> BadOptionError:
    """The error for a form without a part called ``name``."""
    found = ", ".join(sorted({repr(key) for key in form})) or "none"
    return BadOptionError(f"no part of the body is called {name!r} (found: {found}); curl -F {name}=@PICTURE makes one")


async def from_part(part: UploadFile | str, name: str) -> Upload:
    """The picture in a part called ``name``."""
    if isinstance(part, str):
        raise BadOptionError(f"the part {name!r} is text, not a file; curl -F {name}=@PICTURE needs the @")
    return Upload(await part.read(), media_type(part.content_type))


def from_json(body: bytes) -> Upload:
    """The picture in ``{"image": base64 or data URL}``."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadBodyError(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict) or content.keys() != {ONE} or not isinstance(content[ONE], str):
        raise BadOptionError(f'the JSON body must be {{"{ONE}": "<base64>"}} and nothing else')
    text: str = content[ONE]
    prefix = DATA_URL.match(text[:200])
    encoded = text[prefix.end() :] if prefix else text
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadBodyError(f"{ONE!r} is not base64: {error}") from error
    return Upload(data, (prefix["type"].lower() or None) if prefix else None)


def media_type(header: str | None) -> str | None:
    """``Image/PNG; charset=x`` -> ``image/png``."""
    return (header or "").partition(";")[0].strip().lower() or None
