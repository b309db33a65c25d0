"""Bodies taken apart: the quick way says what the thorough one does, and large ones leave others their turn."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from starlette.types import Message

from service.api.request_body import COPIED_IN_PLACE, Body, parse_form, read_form, split_form
from service.inference.admission import CapacityLimiter, Permit
from service.inference.preprocessing import Upload

Value = TypeVar("Value")
TYPE = b"multipart/form-data; boundary=x"
HEAD = b'Content-Disposition: form-data; name="images"; filename="a.png"\r\n'
PART = b"--x\r\n" + HEAD + b"Content-Type: image/png\r\n\r\n%b\r\n"
UNUSUAL_PART = b"--x\r\nX-More: 1\r\n" + HEAD + b"Content-Type: image/png\r\n\r\n%b\r\n"
END = b"--x--\r\n"

FORMS = {
    "one part": PART % b"abc" + END,
    "several": PART % b"abc" + PART % b"" + PART % b"de\r\nf" + END,
    "without a last line break": PART % b"abc" + END[:-2],
    "without a type": b"--x\r\n" + HEAD + b"\r\nabc\r\n" + END,
    "dashes and breaks in the content": PART % b"--\r\n--y\r\n" + END,
}
OTHERS = {
    "a header more": UNUSUAL_PART % b"abc" + END,
    "a part of another name": PART.replace(b"images", b"other") % b"abc" + END,
    "no line break behind the boundary": PART.replace(b"--x\r\n", b"--x") % b"abc" + END,
    "no line break before the boundary": PART % b"abc" + PART[:-2] % b"abc" + END,
    "a head and nothing behind": PART[:-4] + END,
    "something ahead": b"\r\n" + PART % b"abc" + END,
    "something behind": PART % b"abc" + END + b"more",
    "cut short": PART % b"abc" + b"--x",
    "no parts": END,
    "nothing": b"",
    "too many": PART % b"abc" * 4 + END,
}


def body_of(content: bytes, pieces: int = 1) -> Body:
    step = -(-len(content) // pieces)
    rest = [content[start : start + step] for start in range(0, len(content), step)]

    async def receive() -> Message:
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    return Body([(b"content-type", TYPE)], receive)


async def with_turns(work: Awaitable[Value]) -> tuple[Value, int]:
    """What comes of ``work``, and how many turns others had meanwhile."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return task.result(), turns


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_the_quick_way_finds_what_the_thorough_one_does(content: bytes) -> None:
    found = split_form(content, TYPE, "images", 3)
    assert found
    assert found == asyncio.run(parse_form(content, body_of(content), "images", 3))


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_the_quick_way_leaves_the_rest_to_the_thorough_one(content: bytes) -> None:
    assert split_form(content, TYPE, "images", 3) is None


PICTURES = [bytes([number]) * COPIED_IN_PLACE for number in range(3)]


def test_others_have_their_turn_while_a_large_form_is_taken_apart() -> None:
    content = b"".join(PART % picture for picture in PICTURES) + END
    seat = Permit(CapacityLimiter(9, len(content), 9))
    found, turns = asyncio.run(with_turns(read_form(body_of(content), len(content), seat, "images", 3)))
    assert found == [Upload(picture, "image/png") for picture in PICTURES]
    assert turns > 2


def test_others_have_their_turn_while_a_large_form_is_parsed_thoroughly() -> None:
    content = b"".join(UNUSUAL_PART % picture for picture in PICTURES) + END
    found, turns = asyncio.run(with_turns(parse_form(content, body_of(content), "images", 3)))
    assert found == [Upload(picture, "image/png") for picture in PICTURES]
    assert turns > 2


def test_others_have_their_turn_while_a_large_body_is_put_together() -> None:
    content = bytes(4 * COPIED_IN_PLACE)
    seat = Permit(CapacityLimiter(9, len(content), 9))
    found, turns = asyncio.run(with_turns(body_of(content, pieces=4).read(len(content), seat)))
    assert found == content
    assert turns > 2
