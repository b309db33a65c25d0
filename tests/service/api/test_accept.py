"""The type of a response, as the header Accept asks for it."""

import time

import pytest

from service.api.accept import choose_type
from service.errors import NotAcceptableError

OFFERED = ["image/jpeg", "image/png", "application/json"]
CHOICES = {
    "": "image/jpeg",
    "*/*": "image/jpeg",
    "image/*": "image/jpeg",
    "image/png": "image/png",
    "IMAGE/PNG": "image/png",
    "application/json": "application/json",
    "application/*": "application/json",
    "image/png;q=0.5, application/json": "application/json",
    "image/png; q=0.9 , application/json;q=0.8": "image/png",
    "image/*;q=0.2, */*;q=0.1, image/png;q=0.3": "image/png",
    "image/jpeg;q=0, */*": "image/png",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8": "image/jpeg",
    "image/png;level=1": "image/png",
    "nonsense, image/png": "image/png",
    "nonsense": "image/jpeg",
    "image/png;q=7": "image/png",
    ",,,": "image/jpeg",
}


@pytest.mark.parametrize("header", CHOICES)
def test_the_best_type_is_chosen(header: str) -> None:
    headers = [(b"host", b"test"), (b"accept", header.encode())] if header else []
    assert choose_type(headers, OFFERED) == CHOICES[header]


def test_several_headers_count_as_one() -> None:
    headers = [(b"accept", b"image/jpeg;q=0"), (b"accept", b"image/png")]
    assert choose_type(headers, OFFERED) == "image/png"


@pytest.mark.parametrize("header", ["text/html", "image/gif", "*/*;q=0", "image/*;q=0, text/plain"])
def test_where_nothing_fits_the_error_names_what_there_is(header: str) -> None:
    with pytest.raises(NotAcceptableError, match="image/jpeg, image/png, application/json"):
        choose_type([(b"accept", header.encode())], OFFERED)


def test_a_hostile_header_takes_no_time() -> None:
    started = time.process_time()
    for header in (b"a/b;" * 16_000, b"a/b," * 16_000, b";q=" * 20_000, b"a/" + b"b" * 60_000, b" " * 64_000):
        try:
            choose_type([(b"accept", header)], OFFERED)
        except NotAcceptableError:
            continue
    assert time.process_time() - started < 1
