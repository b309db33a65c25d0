"""Answers without ASGI are the same as with it, and stand in the same log and the same metrics."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from service.middleware.api_keys import make_key
from tests.conftest import Service, start_service, wait_until
from tests.service.answers import PICTURE, without_time
from tests.service.broken import DAMAGED
from tests.service.exposed import scrape

KEY, ENTRY = make_key("me")
PROXY = {
    "X-Request-Id": "from-the-proxy",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "a picture": {"content": PICTURE, "headers": {"Content-Type": "image/png"}},
    "a picture of unknown type": {"content": PICTURE},
    "a form": {"files": {"image": PICTURE}},
    "JSON": {"content": b'{"image": "no base64!"}', "headers": {"Content-Type": "application/json"}},
    "options": {"content": PICTURE, "params": {"top_k": 2, "rectified": "jpeg", "points": 3, "model": "digits"}},
    "a rectified picture": {"content": PICTURE, "params": {"rectified_size": "source", "padding": "edge"}},
    "several": {"url": "/predict/batch", "files": [("images", PICTURE), ("images", DAMAGED["PNG without pixels"])]},
    "nothing": {"content": b""},
    "text": {"content": b"text", "headers": {"Content-Type": "text/plain"}},
    "a damaged picture": {"content": DAMAGED["PNG without pixels"]},
    "too much": {"content": bytes(2000)},
    "no such model": {"content": PICTURE, "params": {"model": "nobody"}},
    "no such option": {"content": PICTURE, "params": {"top": 1}},
    "another part": {"files": {"picture": PICTURE}},
    "a form without its type": {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
    "a form cut short": {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    "several in the wrong way": {"url": "/predict/batch", "content": PICTURE},
}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--api-keys", ENTRY),
        ("--cors-origins", "https://a.example"),
        ("--cors-origins", "*"),
        ("--forwarded-allow-ips", "127.0.0.1", "--rate-limit", "1000/second"),
    ],
    ids=["open", "with keys", "for one origin", "for all origins", "behind a proxy"],
)
@pytest.mark.parametrize(
    "headers",
    [{}, PROXY, {"X-Timeout-Ms": "9000"}, {"Origin": "https://a.example"}, {"X-API-Key": "wrong"}],
    ids=["plain", "of a proxy", "with a deadline", "from a page", "with a wrong key"],
)
def test_each_request_is_answered_logged_and_counted_as_by_the_application(
    flags: tuple[str, ...], headers: dict[str, str], services: "Services"
) -> None:
    counts, answers, lines = [], [], []
    for service in services.both(flags):
        before, done = counted(service), len(ends(service))
        answers.append([ask(service, request, {"X-API-Key": KEY} | headers) for request in REQUESTS.values()])
        after = counted(service)
        counts.append({labels: value - before.get(labels, 0) for labels, value in after.items()})
        wait_until(lambda service=service, done=done: len(ends(service)) == done + len(REQUESTS))  # type: ignore[misc]
        lines.append(ends(service)[done:])
    for name, fast, other in zip(REQUESTS, *answers, strict=True):
        assert fast.status_code == other.status_code, name
        assert content(fast) == content(other), name
        assert shape(fast) == shape(other), name
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > len(REQUESTS)
    for name, fast_end, other_end in zip(REQUESTS, *lines, strict=True):
        assert lasting(fast_end) == lasting(other_end), name
        assert fast_end.keys() == other_end.keys(), name
        with_key = "--api-keys" in flags and headers.get("X-API-Key") != "wrong"
        assert fast_end.get("key") == ("me" if with_key else None), name
        assert fast_end["client"] == ("198.51.100.7" if "127.0.0.1" in flags and headers is PROXY else "127.0.0.1")
        assert fast_end["request_id"] == "from-the-proxy" or headers is not PROXY


class Services:
    """Services with the same flags, one with the fast path and one without."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, ...], list[Service]] = {}

    def both(self, flags: tuple[str, ...]) -> list[Service]:
        """Those with ``flags``."""
        if flags not in self._started:
            self._started[flags] = [
                self._stack.enter_context(start_service("--max-bytes", 1500, "--fast-path", fast_path, *flags))
                for fast_path in ("true", "false")
            ]
        return self._started[flags]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(stack)


def ask(service: Service, request: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    rest = {name: value for name, value in request.items() if name not in {"url", "headers"}}
    return service.client.post(request.get("url", "/predict"), headers=request.get("headers", {}) | headers, **rest)


def content(answer: httpx.Response) -> Any:
    found = answer.json()
    return [without_time(one) for one in found["results"]] if "results" in found else without_time(found)


def shape(answer: httpx.Response) -> dict[str, str]:
    """All headers, but for values that differ from answer to answer."""
    varying = {"x-request-id", "content-length", "date"}
    return {name: "some" if name in varying else value for name, value in answer.headers.items()}


def ends(service: Service) -> list[dict[str, Any]]:
    """What its log says of POST requests."""
    assert all(line.startswith("{") for line in service.log().splitlines()), service.log()
    lines = [json.loads(line) for line in service.log().splitlines()]
    return [line for line in lines if line["event"] == "request" and line["method"] == "POST"]


def lasting(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log, but for what differs from request to request."""
    varying = {"timestamp", "request_id", "trace_id"}
    return {name: value for name, value in line.items() if name not in varying and not name.endswith("_ms")}


def counted(service: Service) -> dict[tuple[str, Any], float]:
    """How many requests, predictions and refusals there were, of each kind."""
    samples = scrape(service).samples.items()
    return {
        (name, labels): value
        for (name, labels), value in samples
        if name.endswith(("_total", "_count")) and "cpu" not in name and ("route", "/metrics") not in labels
    }
