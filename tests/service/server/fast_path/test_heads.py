"""Which requests need no parser, and that those say what a parser would have read in them."""

from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.middleware.auth import EVERYBODY, Principal
from service.server.fast_path.heads import LONGEST_HEAD, LONGEST_TARGET, MOST_HEADS, Arrival, Head, Heads
from service.server.protocol import without_upgrade

PATHS = ["/predict", "/predict/batch"]
PLAIN = b"POST /predict?model=digits HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\nabcd"
FORM = PLAIN.replace(b"image/png", b"multipart/form-data; boundary=abc")
HEAD = Head(b"/predict?model=digits", "/predict", b"model=digits", b"image/png", None, None, False)
OTHERS = {
    "not whole": PLAIN[:-1],
    "more than one": PLAIN + b"e",
    "two": PLAIN + PLAIN,
    "a piece of a head": PLAIN[:40],
    "another method": PLAIN.replace(b"POST", b"GET"),
    "a method in lower case": PLAIN.replace(b"POST", b"post"),
    "another path": PLAIN.replace(b"/predict", b"/v2"),
    "a path that begins alike": PLAIN.replace(b"/predict", b"/predict/"),
    "a path in another form": PLAIN.replace(b"/predict", b"/%70redict"),
    "a whole address": PLAIN.replace(b"/predict", b"http://h/predict"),
    "a fragment": PLAIN.replace(b"digits", b"digits#1"),
    "another protocol": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no length": PLAIN.replace(b"Content-Length: 4\r\n", b""),
    "two lengths": PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\ncontent-length: 4"),
    "two lengths, one in another way": PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\nCONTENT-length:4"),
    "a length with a sign": PLAIN.replace(b"Content-Length: 4", b"Content-Length: +4"),
    "no number": PLAIN.replace(b"Content-Length: 4", b"Content-Length: "),
    "a very large number": PLAIN.replace(b"Content-Length: 4", b"Content-Length: 0000000004"),
    "a space before a colon": PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\nContent-Length : 40"),
    "a line feed alone": PLAIN.replace(b"Content-Length: 4", b"X: a\nContent-Length: 40\r\nContent-Length: 4"),
    "a carriage return alone": PLAIN.replace(b"Content-Length: 4", b"X: a\rContent-Length: 4"),
    "a folded line": PLAIN.replace(b"Content-Length: 4", b"Content-Length: 4\r\n 0"),
    "an odd space": PLAIN.replace(b"Content-Length: 4", b"Content-Length: \x0b4"),
    "a zero byte": PLAIN.replace(b"Host: h", b"Host: h\0"),
    "a line that is no header": PLAIN.replace(b"Host: h", b"Host h"),
    "chunks": PLAIN.replace(b"Host: h", b"Host: h\r\nTransfer-Encoding: chunked"),
    "wants to be asked for its body": PLAIN.replace(b"Host: h", b"Host: h\r\nExpect: 100-continue"),
    "another protocol wanted": PLAIN.replace(b"Host: h", b"Host: h\r\nUpgrade: h2c"),
    "a time of its own": PLAIN.replace(b"Host: h", b"Host: h\r\nX-Timeout-Ms: 5"),
    "two types": PLAIN.replace(b"Host: h", b"Host: h\r\nContent-Type: image/jpeg"),
    "a boundary in the target": FORM.replace(b"model=", b"boundary="),
    "a boundary elsewhere": FORM.replace(b"Host: h", b"Host: boundary=x"),
    "a boundary elsewhere alone": PLAIN.replace(b"Host: h", b"Host: boundary=x"),
    "two boundaries": FORM.replace(b"=abc", b"=abc; boundary=abc"),
    "more behind the boundary": FORM.replace(b"=abc", b"=abc; charset=x"),
    "a boundary that hides a line": FORM.replace(b"=abc", b"=abc\nTransfer-Encoding: chunked"),
    "no boundary in it": FORM.replace(b"=abc", b"="),
    "a long target": PLAIN.replace(b"digits", b"d" * LONGEST_TARGET),
    "a long head": PLAIN.replace(b"Host: h", b"Host: " + b"h" * LONGEST_HEAD),
}


def read(data: bytes) -> Arrival | None:
    return Heads(PATHS, lambda _: EVERYBODY, {b"origin"}).read(data)


def test_a_plain_request_says_all_that_is_asked() -> None:
    arrival = read(PLAIN)
    assert arrival is not None
    assert arrival.head == HEAD
    assert (arrival.is_whole, arrival.size, arrival.body, arrival.type) == (True, 4, b"abcd", b"image/png")


def test_what_is_not_said_is_empty() -> None:
    arrival = read(b"POST /predict HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    assert arrival is not None
    assert (arrival.head.query, arrival.type, arrival.body, arrival.is_whole) == (b"", b"", b"", True)


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_all_else_is_left_to_the_parser(data: bytes) -> None:
    heads = Heads(PATHS, lambda _: EVERYBODY)
    for _ in range(2):
        assert heads.read(data) is None
        assert heads.read(PLAIN) is not None


def test_a_head_alone_is_known_before_its_body_comes() -> None:
    arrival = read(PLAIN[:-4])
    assert arrival is not None
    assert (arrival.head, arrival.size, arrival.is_whole) == (HEAD, 4, False)


def test_only_what_differs_from_one_to_the_next_is_read_again() -> None:
    asked: list[bytes] = []

    def owner(headers: bytes) -> Principal:
        asked.append(headers)
        return Principal("me")

    heads = Heads(PATHS, owner)
    for boundary in (b"abc", b'"d e"'.replace(b" ", b"-"), b"----f"):
        for body in (b"", b"x", 1000 * b"x"):
            length = b"Content-Length: %d" % len(body)
            data = FORM[:-4].replace(b"Content-Length: 4", length).replace(b"abc", boundary) + body
            arrival = heads.read(data)
            assert arrival is not None
            assert (arrival.body, arrival.head.key) == (body, "me")
            assert arrival.type == b"multipart/form-data; boundary=" + boundary
    assert len(asked) == 1
    assert heads.read(PLAIN.replace(b"digits", b"signs")) is not None
    assert len(asked) == 2


def test_who_may_not_be_answered_is_left_to_the_application() -> None:
    assert Heads(PATHS, lambda _: None).read(PLAIN) is None


@pytest.mark.parametrize(
    "header",
    [
        b"Connection: close",
        b"connection:close",
        b"Proxy-Connection: close",
        b"Connection: keep-alive, Close",
        b"Origin: https://a.example",
    ],
)
def test_what_an_answer_has_to_regard_is_said(header: bytes) -> None:
    arrival = read(PLAIN.replace(b"Host: h", b"Host: h\r\n" + header))
    assert arrival is not None
    assert arrival.head.personal


def test_headers_that_nobody_regards_are_plain() -> None:
    arrival = Heads(PATHS, lambda _: EVERYBODY).read(PLAIN.replace(b"Host: h", b"Host: h\r\nOrigin: https://a.example"))
    assert arrival is not None
    assert not arrival.head.personal


def test_a_name_that_a_client_gives_its_request_is_kept_if_it_is_sane() -> None:
    for name, kept in ((b"mine", "mine"), (b"a b", None), (b"", None), (b"x" * 200, None)):
        arrival = read(PLAIN.replace(b"Host: h", b"Host: h\r\nX-Request-ID: " + name))
        assert arrival is not None
        assert (arrival.head.id, arrival.head.personal) == (kept, False)


def test_who_says_that_it_stays_is_plain() -> None:
    arrival = read(PLAIN.replace(b"Host: h", b"Host: h\r\nConnection: Keep-Alive"))
    assert arrival is not None
    assert not arrival.head.personal


def test_what_it_remembers_has_an_end() -> None:
    heads = Heads(PATHS, lambda _: EVERYBODY)
    for number in range(10 * MOST_HEADS):
        assert heads.read(PLAIN.replace(b"digits", b"%d" % number)) is not None
    assert len(heads._known) == MOST_HEADS


def test_what_is_no_head_is_not_remembered() -> None:
    heads = Heads(PATHS, lambda _: EVERYBODY)
    for begin in range(2 * len(PLAIN)):  # from wherever the length is counted
        data = PLAIN[:-6] + b"x" * LONGEST_HEAD
        claimed = b"Content-Length: %d" % (len(data) + 3 - begin)
        assert heads.read(data.replace(b"Content-Length: 4", claimed)) is None
    assert not heads._known


def test_what_never_comes_twice_is_not_remembered() -> None:
    heads = Heads(PATHS, lambda _: EVERYBODY)
    assert heads.read(PLAIN) is not None
    for number in range(10):
        for name in (b"X-Request-Id", b"traceparent"):
            assert heads.read(PLAIN.replace(b"Host: h", b"Host: h\r\n%s: %d" % (name, number))) is not None
    assert len(heads._known) == 1


class Reader:
    """What a parser reads."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


LINES = [
    *(
        b"Connection:close",
        b"connection: a, close",
        b"Connection: Keep-Alive",
        b"Proxy-Connection: close",
        b"Keep-Alive: 5",
    ),
    *(
        b"Content-Length: 4",
        b"content-length:4",
        b"Content-Length: 0",
        b"Content-Type: image/jpeg",
        b"content-type:text/html",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"X-A: b",
        b"X-A:",
        b":",
        b" folded",
        b"Host : h",
    ),
    *(
        b"Content-Type: multipart/form-data; boundary=a",
        b"X-A: boundary=b",
        b"Trailer: Content-Length",
        b"X\xff: a",
        b"X-A: \xff",
    ),
]
MARKS = list(b'\r\n\0\t :;=#?/%"\xff04aZ')
PIECES = st.one_of(
    st.sampled_from(LINES).map(lambda line: b"\r\n" + line),
    st.sampled_from(MARKS).map(lambda mark: bytes([mark])),
    st.sampled_from(
        [b"POST ", b"/predict", b"?model=a", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"boundary="]
    ),
)


@st.composite
def mutilated(draw: Any) -> bytes:
    """A plain request with a few pieces put in, taken out or put elsewhere."""
    data = bytearray(draw(st.sampled_from([PLAIN, FORM, PLAIN[:-4], *OTHERS.values()])))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.one_of(st.integers(0, len(data)), st.just(max(0, data.find(b"\r\n")))))
        stop = start + draw(st.sampled_from([0, 0, 0, 1, 2, 8]))
        data[start:stop] = draw(PIECES)
    return bytes(data)


@settings(max_examples=2000, deadline=None)
@given(mutilated())
@example(PLAIN)
@example(FORM)
def test_what_needs_no_parser_is_what_a_parser_would_have_read(data: bytes) -> None:
    arrival = read(data)
    if arrival is None:
        return
    reader = Reader()
    parser = httptools.HttpRequestParser(reader)
    parser.feed_data(without_upgrade(data) if arrival.is_whole else data + b"x" * arrival.size)
    assert (parser.get_method(), parser.get_http_version(), reader.ended) == (b"POST", "1.1", 1)
    headers = dict(reader.headers)
    assert len([name for name, _ in reader.headers if name in {b"content-length", b"content-type"}]) == len(
        headers.keys() & {b"content-length", b"content-type"}
    )
    url = httptools.parse_url(reader.target)
    assert (url.path.decode(), url.query or b"") == (arrival.head.path, arrival.head.query)
    assert headers.get(b"content-type", b"").strip(b" \t") == arrival.type
    assert int(headers[b"content-length"]) == arrival.size
    assert parser.should_keep_alive() or arrival.head.personal
    if arrival.is_whole:
        assert reader.body == arrival.body
