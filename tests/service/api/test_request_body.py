"""Bodies taken apart: options beside pictures, JSON by type, and others have their turn while large ones are read."""

import asyncio
import base64
import json
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from starlette.types import Message

from service.api.request_body import (
    COPIED_IN_PLACE,
    MAX_FIELD_BYTES,
    PIECE,
    Body,
    Form,
    check_structure,
    from_base64,
    from_json,
    parse_form,
    read_form,
    read_one,
)
from service.errors import InvalidBodyError, InvalidParameterError, RequestError, TooLargeError
from service.inference.admission import CapacityLimiter, Permit
from service.inference.preprocessing import Upload

Value = TypeVar("Value")
TYPE = b"multipart/form-data; boundary=x"
NAMED = b'--x\r\nContent-Disposition: form-data; name="%b"'
PART = NAMED % b"images" + b'; filename="a.png"\r\nContent-Type: image/png\r\n\r\n%b\r\n'
END = b"--x--\r\n"
UPLOAD = Upload(b"abc", "image/png")


def field(name: bytes, value: bytes, headers: bytes = b"") -> bytes:
    """A part of text."""
    return NAMED % name + headers + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> Form:
    """What `parse_form` finds in ``parts``, for pictures called ``images``."""
    return parse_form(b"".join(parts) + END, TYPE, "images", 3)


def body_of(content: bytes, pieces: int = 1, content_type: bytes = TYPE) -> Body:
    step = -(-len(content) // pieces)
    rest = [content[start : start + step] for start in range(0, len(content), step)]

    async def receive() -> Message:
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    return Body([(b"content-type", content_type)], receive)


async def with_turns(work: Awaitable[Value]) -> tuple[Value, int]:
    """What comes of ``work``, and how many turns others had meanwhile."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return task.result(), turns


def test_texts_beside_a_picture_are_its_options() -> None:
    found = form(field(b"top_k", b"3"), PART % b"abc", field(b"_charset_", b"punycode"), field(b"model", b"signs"))
    assert found == Form([UPLOAD], [("top_k", "3"), ("model", "signs")])


def test_a_text_is_decoded_as_utf_8_or_latin_1_whatever_codec_its_client_names() -> None:
    named = b"\r\nContent-Type: text/plain; charset=punycode"
    assert form(PART % b"abc", field(b"a", "ä-AAA".encode(), named)).fields == [("a", "ä-AAA")]
    assert form(PART % b"abc", field(b"a", b"\xe4-AAA", named)).fields == [("a", "ä-AAA")]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([field(b"a", b"b" * (MAX_FIELD_BYTES + 1)), PART % b"abc"], f"more than {MAX_FIELD_BYTES} bytes"),
        ([PART % b"abc", field(b"images", b"abc")], "is text, not a file"),
        ([PART % b"abc", PART.replace(b"images", b"other") % b"abc"], "'other' is a file"),
        ([field(b"n%d" % number, b"") for number in range(9)], "'n0', 'n1', 'n2', 'n3', 'n4' and 4 more"),
    ],
)
def test_a_part_that_cannot_be_meant_is_refused(parts: list[bytes], says: str) -> None:
    with pytest.raises(InvalidParameterError, match=says):
        form(*parts)


def test_a_part_in_base64_is_decoded_and_in_another_encoding_refused() -> None:
    encoded = PART.replace(b"image/png", b"image/png\r\nContent-Transfer-Encoding: BASE64")
    assert form(encoded % base64.encodebytes(bytes(range(256)))).uploads == [Upload(bytes(range(256)), "image/png")]
    with pytest.raises(InvalidBodyError, match="not base64"):
        form(encoded % b"%")
    with pytest.raises(InvalidBodyError, match="send binary or base64"):
        form(PART.replace(b"image/png", b"image/png\r\nContent-Transfer-Encoding: quoted-printable") % b"=41")


def test_a_form_within_a_form_is_refused() -> None:
    with pytest.raises(RequestError, match="itself multipart"):
        form(PART.replace(b"image/png", b"multipart/mixed; boundary=y") % b"--y--")


@pytest.mark.parametrize("space", ["", " ", "\n", "\r\n\t"])
def test_base64_may_have_white_space_in_it(space: str) -> None:
    content = bytes(range(256)) * 2000
    text = base64.b64encode(content).decode()
    spaced = space.join(text[start : start + 76] for start in range(0, len(text), 76))
    assert from_base64(spaced.encode()) == content


def test_json_beyond_its_own_limit_is_refused_unless_it_is_base64() -> None:
    limit = 1000
    picture = json.dumps({"image": base64.b64encode(bytes(9 * limit)).decode()}).encode()
    assert from_json(picture, limit) == Upload(bytes(9 * limit), None)
    for costly in b"[" + b"[]," * limit + b"[]]", b'{"image":"' + b"\\n" * 2 * limit + b'"}', b"{" * 2 * limit:
        with pytest.raises(TooLargeError, match=f"more than {limit} bytes of JSON"):
            from_json(costly, limit)


@pytest.mark.parametrize(
    "content", [b"[[],[]]", b'{"image": {}}', b'{"a": [[[[]]]], "image": ""}', b'{"image": 1e999}', b"9" * 10_000]
)
def test_json_of_another_form_is_refused_at_its_first_error(content: bytes) -> None:
    with pytest.raises(InvalidParameterError, match="and nothing else"):
        from_json(content, 2**20)


PICTURES = [bytes([number]) * COPIED_IN_PLACE for number in range(3)]


def test_others_have_their_turn_while_a_large_form_is_taken_apart() -> None:
    content = b"".join(PART % picture for picture in PICTURES) + END
    permit = Permit(CapacityLimiter(9, len(content), 9))
    found, turns = asyncio.run(with_turns(read_form(body_of(content), len(content), permit, "images", 3)))
    assert found == Form([Upload(picture, "image/png") for picture in PICTURES], [])
    assert turns > 2


def test_others_have_their_turn_while_a_large_body_is_put_together() -> None:
    content = bytes(4 * COPIED_IN_PLACE)
    permit = Permit(CapacityLimiter(9, len(content), 9))
    body = body_of(content, pieces=4, content_type=b"image/png")
    (found, fields), turns = asyncio.run(with_turns(read_one(body, len(content), 1, permit)))
    assert (found, fields) == (Upload(content, "image/png"), [])
    assert turns > 2


def test_json_besides_base64_is_counted_over_all_pieces() -> None:
    content = (b"A" * (PIECE - 10) + b"[" * 10) * 3
    check_structure(content, 30)
    with pytest.raises(TooLargeError, match="more than 29 bytes of JSON"):
        check_structure(bytearray(content), 29)
