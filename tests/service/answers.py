"""What is expected of answers, and requests below the level of an HTTP client."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from service.schemas.answers import ErrorBody, Prediction
from tests.conftest import Service
from tests.service.pictures import DIGITS, Answer, encode

PICTURE = encode(DIGITS[0])
PATIENCE_S = 30
read_logs: dict[int, int] = {}
"""How much of a process's log `well` has judged, so that it complains of each trouble once."""


class Response(Protocol):
    """An answer as httpx describes it, and Starlette's TestClient too, whichever version of httpx it uses."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...

    @property
    def text(self) -> str: ...


def as_schema(schema: type[BaseModel], content: bytes) -> Answer:
    """``content`` as JSON; it must be exactly what ``schema`` describes."""
    answer: Answer = json.loads(content)
    assert schema.model_validate_json(content, strict=True).model_dump(mode="json") == answer
    return answer


def prediction(response: Response) -> Answer:
    """A success."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return as_schema(Prediction, response.content)


def predict(service: Service, picture: bytes = PICTURE, **options: object) -> Answer:
    """The answer to ``picture``, which must be a good one."""
    return prediction(service.client.post("/predict", params=options, files={"image": picture}))  # type: ignore[arg-type]


def error(content: bytes, code: str, says: str = "") -> None:
    """The form of an error and nothing else, with words that are to help, and without the service's innards."""
    found = as_schema(ErrorBody, content)["error"]
    assert found["code"] == code, found
    assert says in found["message"], found
    assert not any(innards in found["message"] for innards in ("Traceback", ".py", "0x", "\n")), found


def refused(response: Response, status: int, code: str, says: str = "") -> None:
    """An error of ``status``."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error(response.content, code, says)


def well(service: Service) -> None:
    """It answers a good picture, and its log has no trace of trouble since it was last asked."""
    prediction(service.client.post("/predict", content=PICTURE))
    whole = service.log()
    log = whole[read_logs.get(service.process.pid, 0) :]
    read_logs[service.process.pid] = len(whole)
    assert "Traceback" not in log
    lines = [line for line in log.splitlines() if not line.startswith("{")]
    assert not any("Warning" in line for line in lines), "warnings are JSON lines too; only libtiff prints itself"
    events = [json.loads(line) for line in log.splitlines() if line not in lines]
    assert [event for event in events if event["level"] not in {"info", "warning"}] == []


def without_time(answer: Answer) -> Answer:
    return {key: value for key, value in answer.items() if key != "timings_ms"}


class Raw(NamedTuple):
    """An answer as it came over a socket."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


def connect(service: Service) -> socket.socket:
    return socket.create_connection(service.address, timeout=PATIENCE_S)


def post(content: bytes, *headers: str, target: str = "/predict", length: object = None) -> bytes:
    """The bytes of a POST request, which claims to be of ``length``."""
    size = len(content) if length is None else length
    lines = [f"POST {target} HTTP/1.1", "Host: test", "Connection: close", f"Content-Length: {size}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def receive(connection: socket.socket) -> Raw:
    """The answer on ``connection``, to the end."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return Raw(response.status, response.headers, response.read())
