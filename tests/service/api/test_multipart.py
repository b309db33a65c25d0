"""Forms as curl, browsers, old clients and attackers write them: split as RFC 2046 and RFC 7578 have it, or refused."""

import pytest

from service.api.multipart import (
    MAX_HEAD,
    MAX_HEADERS,
    MAX_HEADS,
    MAX_PARAMETERS,
    PIECE,
    Part,
    read_media_type,
    split_form,
)
from service.errors import InvalidBodyError, TooLargeError

TYPE = b"multipart/form-data; boundary=x"
NAME = b'Content-Disposition: form-data; name="image"'
FILE = NAME + b'; filename="a.png"'
PNG = b"Content-Type: image/png"
END = b"--x--\r\n"


def part(*headers: bytes, content: bytes = b"abc", boundary: bytes = b"x") -> bytes:
    """A part with the boundary before it."""
    return b"\r\n".join([b"--" + boundary, *headers, b"", content, b""])


def split(content: bytes, content_type: bytes = TYPE) -> list[tuple[str, bool, str | None, bytes]]:
    """The name, kind, type and content of each part."""
    parts = split_form(content, content_type, 3, 2)
    return [(found.name, found.is_file, found.type, content[found.start : found.end]) for found in parts]


ABC = ("image", True, "image/png", b"abc")


@pytest.mark.parametrize(
    "form",
    [
        part(FILE, PNG) + END,
        part(FILE, PNG) + END[:-2],
        part(FILE, PNG) + END + b"an epilogue\r\n--x\r\nthat is ignored",
        b"a preamble\r\nof two lines\r\n" + part(FILE, PNG) + END,
        b"\r\n" + part(FILE, PNG) + END,
        part(FILE, PNG).replace(b"--x", b"--x \t") + END,
        part(FILE, PNG) + END[:-2] + b"  \r\n",
        part(PNG, FILE) + END,
        part(FILE.upper().replace(b"IMAGE", b"image"), b"CONTENT-TYPE:IMAGE/PNG; charset=punycode") + END,
        part(FILE.replace(b"; ", b";\r\n\t"), PNG) + END,
        part(FILE.replace(b'"image"', b"image"), PNG) + END,
        part(FILE + b"; filename*=UTF-8''%e2%82%ac.png", PNG) + END,
        part(NAME + b"; filename*=punycode''aaa-AAA", PNG) + END,
        part(NAME + rb'; filename="C:\a\"', PNG) + END,
        part(NAME + rb'; filename="a\".png; name=\"b"', PNG) + END,
        part(NAME + b';; filename="a;b" ;', PNG) + END,
        part(NAME, PNG) + END,
        part(FILE, PNG, b"Content-Transfer-Encoding: Binary", b"X-More:") + END,
    ],
)
def test_a_picture_is_found_however_its_form_is_written(form: bytes) -> None:
    assert split(form) == [ABC]


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/form-data; boundary="x"',
        b'Multipart/Form-Data;Boundary="x" ; charset=punycode',
        b'multipart/form-data; charset="a;boundary=y"; boundary=x',
        b"multipart/form-data; boundary=x ",
        b"multipart/form-data; boundary=x;",
    ],
)
def test_the_boundary_may_be_quoted_and_have_company(content_type: bytes) -> None:
    assert split(part(FILE, PNG) + END, content_type) == [ABC]


def test_a_boundary_may_have_a_space_in_it() -> None:
    form = part(FILE, PNG, boundary=b"a b") + b"--a b--"
    assert split(form, b'multipart/form-data; boundary="a b"') == [ABC]


@pytest.mark.parametrize("content", [b"", b"\r\n", b"--", b"\r\n--y\r\n", b"\n--x\n", b"\r\n\r\n--\r\n", b"x--x"])
def test_dashes_and_breaks_in_a_picture_are_the_pictures(content: bytes) -> None:
    for headers in (FILE, PNG), (FILE, PNG, b"X-More: 1"):
        assert split(part(*headers, content=content) * 2 + END) == [("image", True, "image/png", content)] * 2


@pytest.mark.parametrize(
    ("headers", "is_file", "media_type"),
    [
        ((NAME,), False, None),
        ((NAME, b"Content-Type: text/plain; charset=utf-8"), False, "text/plain"),
        ((FILE,), True, None),
        ((NAME + b'; filename=""', b"Content-Type: application/octet-stream"), True, "application/octet-stream"),
        ((NAME, b"Content-Type: image/jpeg"), True, "image/jpeg"),
        ((NAME + b"; filename*=UTF-8''a",), True, None),
    ],
)
def test_a_filename_or_a_type_that_is_no_text_makes_a_file(
    headers: tuple[bytes, ...], is_file: bool, media_type: str | None
) -> None:
    assert split(part(*headers) + END) == [("image", is_file, media_type, b"abc")]


@pytest.mark.parametrize(("name", "expected"), [("ä".encode(), "ä"), (b"\xe4", "ä"), (rb"a\"\\", 'a"\\')])
def test_a_name_is_utf_8_or_latin_1(name: bytes, expected: str) -> None:
    assert split(part(FILE.replace(b"image", name), PNG) + END)[0][0] == expected


MALFORMED = {
    "no boundary in it": (b"abc", "send the complete form"),
    "lines ended by LF": (b"\n" + (part(FILE, PNG) + END).replace(b"\r", b""), "CR and LF"),
    "lines ended by LF from the start": (
        (part(FILE, PNG) + END).replace(b"\r", b""),
        "closing boundary after CR and LF",
    ),
    "cut short": (part(FILE, PNG), "ends without a closing boundary"),
    "cut in the boundary": (part(FILE, PNG) + b"--", "ends without a closing boundary"),
    "cut behind the boundary": (part(FILE, PNG) + b"--x", "ends without a closing boundary"),
    "a longer boundary": (part(FILE, PNG) + part(FILE, PNG, boundary=b"xy") + END, "continues after the boundary"),
    "no head": (part() + END, "no head"),
    "nothing": (b"--x\r\n" + END, "no head"),
    "a head without end": (b"--x\r\n" + FILE + b"\r\n" + END, "no name|no head"),
    "a head too long": (part(FILE, b"X: " + b"y" * MAX_HEAD) + END, "no head"),
    "too many headers": (part(FILE, *[b"X-%d: y" % number for number in range(MAX_HEADERS)]) + END, "more than"),
    "too many parameters": (part(FILE + b";a=1" * MAX_PARAMETERS) + END, "more than 16 parameters"),
    "a name of a file without end": (part(FILE[:-1] + b"a" * MAX_HEAD + b'"') + END, "no head"),
    "a type without end": (part(FILE, PNG + b"a" * MAX_HEAD) + END, "no head"),
    "padding without end": (
        b"--x" + b" " * MAX_HEAD + b"\r\n" + FILE + b"\r\n\r\n" + END,
        "continues after the boundary",
    ),
    "no name": (part(b"Content-Disposition: form-data") + END, "no name"),
    "another disposition": (part(FILE.replace(b"form-data", b"attachment")) + END, "no name"),
    "two dispositions": (part(FILE, FILE) + END, "same header twice"),
    "no colon": (part(FILE, b"X-More") + END, "not a header"),
    "an odd name": (part(FILE, b"X \0: 1") + END, "not a header"),
    "a space before the colon": (part(FILE, b"Content-Type : image/png") + END, "not a header"),
    "a break in a header": (part(FILE.replace(b"a.png", b"a\nb")) + END, "not a header"),
    "a quote without end": (part(NAME + b'; filename="a') + END, "cannot be read"),
    "uuencode": (part(FILE, b"Content-Transfer-Encoding: x-uuencode") + END, "send binary or base64"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_form_is_refused(name: str) -> None:
    form, says = MALFORMED[name]
    with pytest.raises(InvalidBodyError, match=says):
        split(form)


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"x" * 71],
)
def test_a_form_without_a_usable_boundary_is_refused(content_type: bytes) -> None:
    with pytest.raises(InvalidBodyError, match="declares no boundary"):
        split(part(FILE, PNG) + END, content_type)


@pytest.mark.parametrize(("one", "most"), [(part(FILE, PNG), 3), (part(FILE, PNG, b"X: 1"), 3), (part(NAME), 2)])
def test_more_parts_than_are_taken_are_refused(one: bytes, most: int) -> None:
    assert len(split(one * most + END)) == most
    with pytest.raises(TooLargeError, match=f"more than {most}"):
        split(one * (most + 1) + END)


def test_the_heads_of_all_parts_together_are_limited() -> None:
    one = part(FILE, b"X: " + b"y" * (MAX_HEAD // 2))
    fitting = MAX_HEADS // len(one)
    assert len(split_form(one * fitting + END, TYPE, 100, 0)) == fitting
    with pytest.raises(InvalidBodyError, match="heads of its parts have more than"):
        split_form(one * (fitting + 2) + END, TYPE, 100, 0)


class Searched(bytes):
    """A body that knows the longest stretch that was searched in one go, which holds all threads."""

    longest = 0

    def find(self, wanted: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        found = super().find(wanted, start, end)
        Searched.longest = max(Searched.longest, (len(self) if end is None else min(end, len(self))) - start)
        return found


@pytest.mark.parametrize("before", range(PIECE - 8, PIECE + 2))
def test_a_boundary_is_found_wherever_the_search_pauses(before: int) -> None:
    Searched.longest = 0
    form = Searched(b"p" * before + b"\r\n" + part(FILE, PNG, content=b"-" * 2 * PIECE) + END)
    (found,) = split_form(form, TYPE, 1, 0)
    assert found.end - found.start == 2 * PIECE
    assert Searched.longest < PIECE + 100


def test_where_a_part_is_can_be_told() -> None:
    form = part(FILE, PNG) + END
    start = form.index(b"abc")
    assert split_form(form, TYPE, 1, 0) == [Part("image", True, "image/png", False, start, start + 3)]


def test_a_media_type_is_told_without_its_parameters() -> None:
    assert read_media_type(b"Image/PNG; charset=x") == "image/png"
    assert read_media_type(None) is None
