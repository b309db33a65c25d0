"""Bodies that are cheap to send and were dear to read, sent to the real process: refused, in little memory."""

import base64
import gzip
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import Service, start_service, wait_until
from tests.service.answers import PICTURE, connect, post, predict, prediction, receive, refused, well, without_time
from tests.service.api.open_inference.exchange import INFER
from tests.service.api.open_inference.exchange import refused as infer_refused
from tests.service.exposed import scrape

MEMORY = 200 * 2**20
"""Bytes that no body may take beyond what the largest picture needs."""
JSON = 10 * 2**20
"""Bytes of JSON in an attack: the largest body."""
MAX_QUEUE_BYTES = 400_000
MAX_BATCH_BYTES = 100_000
MOST_ANSWER = 1500
"""Bytes of an answer that is an error."""
FORM = "multipart/form-data; boundary=x"
INPUT = b'{"name":"image","shape":[1],"datatype":"UINT8"'
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A service whose memory is looked at."""
    with start_service() as service:
        predict(service)
        yield service
        well(service)


def peak(service: Service) -> int:
    """The most memory that it has ever had, in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def fill(head: bytes, piece: bytes, tail: bytes) -> bytes:
    return head + piece * ((JSON - len(head) - len(tail)) // len(piece)) + tail


STRUCTURES: dict[str, Callable[[], bytes]] = {
    "inputs of nothing": lambda: fill(b'{"inputs":[', b"{},", b"{}]}"),
    "inputs": lambda: fill(b'{"inputs":[', INPUT + b"},", INPUT + b"}]}"),
    "outputs": lambda: fill(b'{"inputs":[' + INPUT + b'}],"outputs":[', b'{"name":"a"},', b'{"name":"a"}]}'),
    "parameters": lambda: fill(b'{"inputs":[],"parameters":{', b'"aaaaaaa":1,', b'"a":1}}'),
    "shape": lambda: fill(b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[', b'"a",', b'"a"]}]}'),
    "lists of data": lambda: fill(b'{"inputs":[' + INPUT + b',"data":[', b"[],", b"[]]}]}"),
    "numbers": lambda: fill(b'{"inputs":[' + INPUT + b',"data":[', b"0,", b"0]}]}"),
    "one number": lambda: fill(b'{"inputs":[' + INPUT + b',"data":[', b"9", b"]}]}"),
    "depth": lambda: fill(b'{"inputs":[' + INPUT + b',"data":', b"[", b""),
    "an unknown field": lambda: fill(b'{"inputs":[],"x":[', b"{},", b"{}]}"),
    "a key": lambda: fill(b'{"', b"x", b'":1}'),
}


@linux
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_json_of_countless_elements_is_refused_and_not_built(own: Service, name: str, compressed: bool) -> None:
    content = STRUCTURES[name]()
    headers = {"Content-Encoding": "gzip"} if compressed else {}
    before = peak(own)
    response = own.client.post(INFER, content=gzip.compress(content, 1) if compressed else content, headers=headers)
    infer_refused(response, response.status_code)
    assert response.status_code in (400, 413)
    assert len(response.content) < MOST_ANSWER
    assert peak(own) - before < MEMORY


def test_a_line_break_behind_the_path_is_no_way_around_the_limits(own: Service) -> None:
    infer_refused(own.client.post(f"{INFER}%0A", content=STRUCTURES["inputs of nothing"]()), 413, "bytes of JSON")
    for path in "/predict", "/predict/batch":
        refused(
            own.client.post(f"{path}%0A", content=b"{}", headers={"content-type": "text/plain"}),
            415,
            "unsupported_media_type",
        )


@linux
@pytest.mark.parametrize(
    "content",
    [fill(b"[", b"[],", b"[]]"), fill(b'{"image":"', b"aa ", b'"}'), fill(b'{"image":"', b"\\n", b'"}')],
    ids=["lists", "white space", "escapes"],
)
def test_json_of_predict_is_refused_and_not_built(own: Service, content: bytes) -> None:
    before = peak(own)
    response = own.client.post("/predict", content=content, headers={"content-type": "application/json"})
    refused(response, 413, "too_large", "bytes of JSON")
    assert peak(own) - before < MEMORY


def test_a_large_picture_in_base64_is_no_costly_json(own: Service) -> None:
    text = base64.b64encode(PICTURE + bytes(JSON // 2)).decode()
    assert without_time(prediction(own.client.post("/predict", json={"image": text}))) == without_time(predict(own))


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "utf-16", "zip", "no-such-charset"])
def test_no_codec_that_a_client_names_is_used(own: Service, charset: str) -> None:
    part = '--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    text = "a" * 1_300_000 + "-" + "A" * 9
    form = f"{part % ('top_k', '')}{text}\r\n{part % ('image', '; filename=a')}".encode() + PICTURE + b"\r\n--x--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    refused(
        own.client.post("/predict", content=form, headers=headers), 422, "invalid_parameter", "'top_k' has more than"
    )
    short = form.replace(text.encode(), b"1")
    assert len(prediction(own.client.post("/predict", content=short, headers=headers))["predictions"]) == 1


def long_requests(service: Service) -> Iterator[httpx.Response]:
    """Answers to requests that are refused for something long."""
    client = service.client
    yield client.post("/predict?" + "&".join(f"option{number}" for number in range(4000)), content=PICTURE)
    yield client.post("/predict?" + "&".join(f"{'x' * 3000}{number}=1" for number in range(20)), content=PICTURE)
    yield client.post("/predict", content=PICTURE, headers={"content-type": "x" * 60_000})
    yield client.post("/predict/batch", content=PICTURE, headers={"content-type": "x" * 60_000})
    yield client.post("/predict?model=" + "x" * 60_000, content=PICTURE)
    yield client.post("/predict", files={f"{'x' * 7000}{number}": b"" for number in range(16)})
    yield client.post("/predict", data={f"{'x' * 7000}{number}": "" for number in range(16)}, files={"image": PICTURE})
    yield client.post(INFER, content=PICTURE, headers={"content-encoding": "x" * 60_000})
    yield client.post(INFER, content=json.dumps({"inputs": [{"name": "x" * 10**6, "shape": [1], "datatype": "UINT8"}]}))
    yield client.post(f"/v2/models/{'x' * 60_000}/infer", content=b"{}")
    yield client.get(f"/v2/models/{'x' * 60_000}")
    yield client.get("/" + "x" * 60_000)


def test_an_error_does_not_repeat_all_that_was_sent(own: Service) -> None:
    start = len(own.log())
    for response in long_requests(own):
        assert 400 <= response.status_code < 500
        assert len(response.content) < MOST_ANSWER, response.text[:200]
    assert max(map(len, own.log()[start:].splitlines())) < 2 * MOST_ANSWER


OPTIONS: dict[str, str | int] = {"top_k": 2, "rectified": "none", "points": 2, "model": "signs", "version": 1}


def test_options_may_be_fields_of_the_form(own: Service) -> None:
    for batch, name in ("", "image"), ("/batch", "images"):
        in_query = own.client.post(f"/predict{batch}", params=OPTIONS, files={name: PICTURE}).json()
        in_form = own.client.post(f"/predict{batch}", data=OPTIONS, files={name: PICTURE}).json()
        expected, found = (answer["results"][0] if batch else answer for answer in (in_query, in_form))
        assert found["model"] == {"name": "signs", "version": 1}
        assert without_time(found) == without_time(expected)
    assert predict(own)["model"]["name"] == "digits", "the next request without a model is not for the form's"


def test_options_in_query_and_form_must_agree(own: Service) -> None:
    def ask(query: str, **fields: str) -> httpx.Response:
        return own.client.post(f"/predict?{query}", data=fields, files={"image": PICTURE})

    assert len(prediction(ask("top_k=2", top_k="2"))["predictions"]) == 2
    refused(ask("top_k=2", top_k="3"), 422, "invalid_parameter", "top_k: it has two different values")
    refused(ask("top_k=2&top_k=3"), 422, "invalid_parameter", "top_k: it has two different values")
    refused(ask("", topk="3"), 422, "invalid_parameter", "topk")
    refused(ask("", top_k="three"), 422, "invalid_parameter", "top_k")
    refused(ask("", model="unknown"), 404, "model_not_found", "there are: digits")


def begin(service: Service, size: int) -> socket.socket:
    """A connection on which all but one byte of a batch of ``size`` bytes has arrived."""
    connection = connect(service)
    connection.sendall(post(bytes(size), f"Content-Type: {FORM}", target="/predict/batch")[:-1])
    return connection


def test_bodies_that_never_end_leave_others_their_room() -> None:
    limits = (
        "--max-queue-bytes",
        MAX_QUEUE_BYTES,
        "--max-batch-bytes",
        MAX_BATCH_BYTES,
        "--max-bytes",
        MAX_BATCH_BYTES,
    )
    with start_service(*limits) as service, ExitStack() as stack:
        predict(service)
        stalled = [stack.enter_context(begin(service, MAX_BATCH_BYTES)) for _ in range(8)]
        wait_until(lambda: scrape(service)("stn_requests_total", status="408") >= 6)
        large = PICTURE + bytes(MAX_BATCH_BYTES - len(PICTURE))
        for content in PICTURE, large:
            for _ in range(5):
                prediction(service.client.post("/predict", content=content))
        pieces = [large[start : start + 10_000] for start in range(0, len(large), 10_000)]
        prediction(service.client.post("/predict", content=iter(pieces)))
        gone = [receive(connection).status for connection in stalled if readable(connection)]
        assert set(gone) == {408}
        assert len(gone) < len(stalled)


def readable(connection: socket.socket) -> bool:
    """Whether something has come on a connection."""
    connection.settimeout(0.2)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
