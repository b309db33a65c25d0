"""Ids, headers and the log: what is said of every request, and what is never said."""

import base64
import json
import math
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.middleware.access_log import ATOMIC, describe, pieces
from service.middleware.api_keys import make_key
from service.middleware.request_id import SANE_ID
from service.request_context import AnsweredPicture, RequestContext, Timings
from tests.conftest import STOP_S, Service, start_service
from tests.service import artifacts
from tests.service.answers import PICTURE, connect, post, predict, receive
from tests.service.pictures import encode, noise
from tests.service.server.test_overload import EVIL, misbehaving

CLIENT = ("127.0.0.1", 1)


def stopped_log(service: Service) -> list[dict[str, Any]]:
    """The lines of a service, which is told to end first."""
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(STOP_S) == 0
    return [json.loads(line) for line in service.log().splitlines()]


def requests(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in log if line["event"] == "request"]


def test_every_answer_has_an_id_of_its_own(server: Service) -> None:
    given = [server.client.get(path).headers["x-request-id"] for path in ("/models", "/nowhere", "/health/live") * 10]
    assert len(set(given)) == 30
    assert all(SANE_ID.fullmatch(one.encode()) for one in given)


@pytest.mark.parametrize("sane", ["7", "a" * 128, "00-4bf92f3577b34da6-01", "Root=1-67891233-abcdef"])
def test_a_sane_id_is_taken_and_given_back(server: Service, sane: str) -> None:
    assert server.client.get("/models", headers={"x-request-id": sane}).headers["x-request-id"] == sane


@pytest.mark.parametrize("insane", ["", "a" * 129, "two words", 'quo"te', "{}", "a,b", b"\xff\xfe", "<script>"])
def test_any_other_id_is_replaced(server: Service, insane: str | bytes) -> None:
    answer = server.client.get(
        "/models", headers={b"x-request-id": insane if isinstance(insane, bytes) else insane.encode()}
    )
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != insane
    assert SANE_ID.fullmatch(answer.headers["x-request-id"].encode())


def test_answers_protect_those_who_show_them_in_a_browser(server: Service) -> None:
    for answer in (server.client.post("/predict", content=PICTURE), server.client.get("/models")):
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/models", "/nowhere", "/docs"):
        headers = server.client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert "unsafe-inline" not in server.client.get("/models").headers["content-security-policy"]


def test_every_request_has_a_line_that_says_what_became_of_it() -> None:
    key, entry = make_key("camera")
    with start_service("--api-keys", entry, "--header-timeout-s", 1) as service:
        client = httpx.Client(base_url=service.url, headers={"x-api-key": key})
        before = datetime.now(UTC)
        answer = client.post("/predict", content=PICTURE, headers={"x-request-id": "good"})
        client.post("/predict/batch", files=[("images", PICTURE)] * 3, headers={"x-request-id": "three"})
        client.post("/predict", content=b"seven", headers={"x-request-id": "none"})
        client.post("/predict?model=x", content=PICTURE, headers={"x-request-id": "unknown"})
        service.client.post("/predict", content=PICTURE, headers={"x-request-id": "stranger"})
        client.get('/no"where%0A', headers={"x-request-id": "nowhere"})
        client.get("/models", headers={"x-request-id": "models"})
        with connect(service) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            malformed = receive(connection).headers["x-request-id"]
        with connect(service) as connection:
            connection.sendall(b"GET /models HTTP/1.1\r\nHost:")
            slow = receive(connection).headers["x-request-id"]
        after = datetime.now(UTC)
        log = stopped_log(service)
    lines = {line["request_id"]: line for line in requests(log)}
    assert len(lines) == len(requests(log)) == 9

    good = lines["good"]
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(good["timestamp"]) <= after
    assert (good["level"], good["method"], good["path"], good["status"]) == ("info", "POST", "/predict", 200)
    assert (good["key"], good["client"]) == ("camera", "127.0.0.1")
    assert {"name": good["model"], "version": good["version"]} == answer.json()["model"]
    for stage in ("decode", "queue", "inference", "encode"):
        assert good[f"{stage}_ms"] == answer.json()["timings_ms"][stage]
    assert good["total_ms"] >= answer.json()["timings_ms"]["total"]
    assert (good["pictures"], good["batch_size"], lines["three"]["pictures"]) == (1, 1, 3)

    def ended(request_id: str) -> tuple[int, str | None]:
        return lines[request_id]["status"], lines[request_id].get("error")

    assert ended("none") == (415, "unsupported_media_type")
    assert lines["none"]["model"] == "digits"
    assert "model" not in lines["models"]
    assert ended("unknown") == (404, "model_not_found")
    assert ended("stranger") == (401, "unauthorized")
    assert "key" not in lines["stranger"]
    assert (ended("nowhere"), lines["nowhere"]["path"]) == ((404, "not_found"), '/no"where\n')
    assert ended(malformed) == (400, "bad_request")
    assert ended(slow) == (408, "request_timeout")


def test_the_open_inference_protocol_has_the_same_lines() -> None:
    with start_service() as service:
        taken = service.client.get("/v2/models/signs").json()["inputs"][0]
        shape = [2, *taken["shape"][1:]]
        tensor = taken | {"shape": shape, "data": [0] * math.prod(shape)}
        client = httpx.Client(base_url=service.url, headers={"x-request-id": "tensor"})
        assert client.post("/v2/models/signs/infer", json={"inputs": [tensor]}).status_code == 200
        assert client.post("/v2/models/signs/infer", content=b"{", headers={"x-request-id": "cut"}).status_code == 400
        tensor_line, cut_line = requests(stopped_log(service))[1:]
    assert (tensor_line["model"], tensor_line["pictures"], tensor_line["status"]) == ("signs", 2, 200)
    assert tensor_line["inference_ms"] > 0
    assert (cut_line["request_id"], cut_line["error"]) == ("cut", "invalid_body")


def test_clients_cannot_make_it_log_more_than_a_line_a_request() -> None:
    with start_service() as service:
        for request in (b"nonsense\r\n\r\n", b"GET /models HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"):
            with connect(service) as connection:
                connection.sendall(request)
                receive(connection)
        log = stopped_log(service)
    started = next(number for number, line in enumerate(log) if line["event"] == "request")
    assert [line["event"] for line in log[started:]] == ["request", "request", "stopped"]


def test_a_body_that_never_ends_and_a_client_that_leaves_have_one_line_each() -> None:
    with start_service("--request-timeout-s", 1) as service:
        with connect(service) as connection:
            connection.sendall(post(PICTURE, "X-Request-ID: stalls")[:-100])
            assert receive(connection).headers["x-request-id"] == "stalls"
        with connect(service) as connection:
            connection.sendall(post(PICTURE, "X-Request-ID: leaves")[:-100])
        predict(service)
        lines = {(line["request_id"], line["status"]) for line in requests(stopped_log(service))}
    assert lines > {("stalls", 408), ("leaves", 499)}
    assert sorted(status for _, status in lines) == [200, 408, 499]


def test_no_line_is_lost_and_none_is_broken_when_it_stops() -> None:
    count, workers = 200, 2
    with start_service("--workers", workers) as service, ThreadPoolExecutor(4) as threads:

        def ask(number: int) -> int:
            return service.ask("GET", "/models", headers={"x-request-id": f"number-{number}"}).status_code

        assert set(threads.map(ask, range(count))) == {200}
        log = stopped_log(service)
    assert Counter(line["request_id"] for line in requests(log)) == Counter(f"number-{n}" for n in range(count))


def test_the_line_of_a_request_that_ends_with_the_service_is_not_lost() -> None:
    with start_service("--shutdown-timeout-s", 1) as service, connect(service) as connection:
        connection.sendall(post(PICTURE, "X-Request-ID: last")[:-100])
        time.sleep(0.3)
        log = stopped_log(service)
    assert [(line["request_id"], line["status"]) for line in requests(log)] == [("last", 503)]


def test_no_line_is_lost_when_the_process_ends_itself() -> None:
    with misbehaving("hanging in place", "--inference-timeout-s", 1, "--threads", 1) as service:
        predict(service, encode(np.zeros_like(noise(0))))
        with pytest.raises(httpx.RemoteProtocolError):
            service.client.post("/predict", content=EVIL)
        service.process.wait(STOP_S)
        log = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]  # behind it are stacks
    assert [line["status"] for line in requests(log)] == [200]


@pytest.mark.parametrize(
    ("flags", "statuses"),
    [(("--access-log", "refused"), [415]), (("--access-log", "none"), []), (("--log-level", "warning"), [])],
    ids=str,
)
def test_fewer_lines_can_be_asked_for(flags: tuple[str, ...], statuses: list[int]) -> None:
    with start_service(*flags) as service:
        predict(service)
        service.client.post("/predict", content=b"seven")
        assert [line["status"] for line in requests(stopped_log(service))] == statuses


def test_text_for_people_says_the_same() -> None:
    with start_service("--log-format", "console") as service:
        service.client.get("/models", headers={"x-request-id": "seven"})
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(STOP_S)
        line = next(line for line in service.log().splitlines() if "request_id=seven" in line)
    assert "path=/models" in line
    assert "status=200" in line


def test_what_is_logged_during_a_request_has_its_id(tmp_path: Path) -> None:
    key, entry = make_key("operator")
    artifacts.write(tmp_path / "digits" / "1")
    with start_service("--models", tmp_path, "--admin-keys", entry) as service:
        (tmp_path / "digits" / "2").mkdir()
        headers = {"x-request-id": "evil", "x-api-key": key}
        assert service.client.post("/v2/repository/models/digits/load", headers=headers).status_code == 400
        log = stopped_log(service)
    ids = {line["event"]: line["request_id"] for line in log if "request_id" in line}
    assert ids == dict.fromkeys(("load_failed", "now_served", "request"), "evil")


def test_what_is_logged_of_a_batch_has_the_id_of_none_of_its_requests() -> None:
    with misbehaving("failing") as service:
        assert service.client.post("/predict", content=EVIL, headers={"x-request-id": "evil"}).status_code == 500
        log = stopped_log(service)
    assert {line["event"]: line.get("request_id") for line in log}["inference_failed"] is None
    assert [(line["request_id"], line["error"]) for line in requests(log)] == [("evil", "inference_failed")]


def test_nothing_of_a_picture_a_key_or_a_query_is_logged() -> None:
    key, entry = make_key("camera")
    exif = Image.Exif()
    exif[0x010E] = secret = "SECRET-IN-THE-PICTURE"
    tagged = encode(noise(0), "JPEG", exif=exif.tobytes())
    tiff = encode(noise(0), "TIFF", tiffinfo={270: secret})
    texts = {"filename": "SECRET-NAME.png", "query": "SECRET-QUERY", "header": "SECRET-HEADER"}
    with start_service("--api-keys", entry, "--log-level", "debug") as service:
        client = httpx.Client(base_url=service.url, headers={"x-api-key": key, "x-secret": texts["header"]})
        for picture in (PICTURE, tagged, tiff, PICTURE[:60], tagged[:-200], tiff[:-50], secret.encode()):
            client.post("/predict", content=picture)
            client.post("/predict", files={"image": (texts["filename"], picture)})
            client.post("/predict", files={texts["filename"]: (texts["filename"], picture)})
            client.post("/predict", json={"image": base64.b64encode(picture).decode()})
            client.post("/predict/batch", files=[("images", (texts["filename"], picture))] * 2)
            client.post("/predict", content=picture, params={"model": texts["query"]})
        client.post("/predict", content=PICTURE, headers={"x-api-key": key[:-1] + "!"})
        client.post("/predict", content=PICTURE, headers={"authorization": f"Basic {key}"})
        with connect(service) as connection:
            target = f"/models?{texts['query']}"
            connection.sendall(f"GET {target} HTTP/1.1\r\nX-API-Key: {key}\r\nnonsense {secret}\r\n\r\n".encode())
            receive(connection)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(STOP_S)
        log = service.log()
    assert len(log.splitlines()) > 40
    encoded = [base64.b64encode(picture).decode()[8:40] for picture in (PICTURE, tagged, tiff)]
    for private in (secret, *texts.values(), key[4:-1], entry.partition(":")[2], *encoded, "\\x89PNG", "IHDR"):
        assert private not in log, private


@pytest.mark.parametrize("path", ['/"', "/\\", "/\n", "/\u2028é", "/" + "x" * 100_000, "/\0", '/","status":500,"x":"'])
def test_a_line_is_one_line_of_json_whatever_the_path(path: str) -> None:
    exchange = RequestContext("1")
    exchange.model, exchange.version = 'a"b', 1
    exchange.status = 404
    line = describe("GET", path, CLIENT, exchange)
    assert line.count("\n") == 1
    assert len(line) < 1000
    found = json.loads(line)
    assert (found["path"], found["model"], found["status"]) == (path[:200], 'a"b', 404)


def test_of_several_pictures_the_longest_times_are_said() -> None:
    exchange = RequestContext("1")
    exchange.answered = [
        AnsweredPicture(0.0, Timings(1, 8, 3, 4), 2, 1.0),
        AnsweredPicture(0.0, Timings(5, 6, 3, 0.5), 3, 1.0),
    ]
    found = json.loads(describe("POST", "/predict/batch", None, exchange))
    assert {name: found[name] for name in ("pictures", "batch_size", "decode_ms", "queue_ms", "encode_ms")} == {
        "pictures": 2,
        "batch_size": 3,
        "decode_ms": 5,
        "queue_ms": 8,
        "encode_ms": 4,
    }
    assert "client" not in found


def test_lines_are_written_whole_in_pieces_that_do_not_mix_with_those_of_other_processes() -> None:
    lines = [f"{'x' * length}\n" for length in (10, 3000, 2000, 5000, 1, ATOMIC - 1, 7)]
    written = list(pieces(lines))
    assert b"".join(written).decode() == "".join(lines)
    assert all(piece.endswith(b"\n") for piece in written)
    assert all(len(piece) <= ATOMIC or piece.count(b"\n") == 1 for piece in written)
