"""Who may do what, by path and key; around a plain application, and around the real one."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from service.app import create_middleware, create_state
from service.errors import HeadTooLargeError, SettingsError, UnauthorizedError
from service.middleware.api_keys import make_key
from service.middleware.auth import MAX_HEADERS, AccessPolicy
from service.settings import load_settings
from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, connect, error, receive, refused

USER, USER_ENTRY = make_key("camera")
OTHER, OTHER_ENTRY = make_key("gate")
ADMIN, ADMIN_ENTRY = make_key("operator")
STRANGER, _ = make_key("stranger")
KEYS = ("--api-keys", f"{USER_ENTRY},{OTHER_ENTRY}", "--admin-keys", ADMIN_ENTRY)
OPEN = ["/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"]
OPEN_FILES = ["/page/1/page.js", "/swagger/swagger-ui.css"]
KEYED = ["/predict", "/predict/batch", "/models", "/v2", "/v2/models/digits/infer", "/nowhere", "/health", "/docs/x"]
ADMINS = [
    "/v2/repository/index",
    *(f"/v2/repository/models/digits/{action}" for action in ("load", "unload", "rollout")),
]


def guarded(*flags: str) -> ASGIApp:
    """The middleware of the application around an application that answers every path."""
    app: ASGIApp = PlainTextResponse("in")
    for kind, arguments, options in reversed(create_middleware(create_state(load_settings(flags)))):
        app = kind(app, *arguments, **options)
    return app


def ask(app: ASGIApp, path: str, method: str = "POST", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return asyncio.run(send())


@pytest.mark.parametrize("path", [*OPEN, *OPEN_FILES, *KEYED, "/metrics"])
def test_without_keys_everything_is_open_but_the_models_cannot_be_changed(path: str) -> None:
    app = guarded()
    assert ask(app, path).status_code == 200
    for admins in ADMINS:
        assert ask(app, admins).status_code == 403
        assert ask(app, admins, x_api_key=ADMIN).status_code == 403


@pytest.mark.parametrize(
    ("paths", "by_key"),
    [
        (OPEN + OPEN_FILES, {None: 200, STRANGER: 200, USER: 200, ADMIN: 200}),
        (KEYED, {None: 401, STRANGER: 401, USER: 200, ADMIN: 200}),
        (ADMINS, {None: 401, STRANGER: 401, USER: 403, ADMIN: 200}),
        (["/metrics"], {None: 200, STRANGER: 200}),
    ],
    ids=["open", "keyed", "admin", "metrics"],
)
def test_with_keys_each_path_is_for_those_it_is_meant_for(paths: list[str], by_key: Mapping[str | None, int]) -> None:
    app = guarded(*KEYS)
    for path in paths:
        for key, status in by_key.items():
            headers = {} if key is None else {"x_api_key": key}
            assert ask(app, path, **headers).status_code == status, (path, status)


def test_metrics_ask_for_a_key_where_that_is_wanted() -> None:
    app = guarded(*KEYS, "--metrics-need-key", "true")
    assert ask(app, "/metrics", "GET").status_code == 401
    assert ask(app, "/metrics", "GET", authorization=f"Bearer {USER}").status_code == 200


def test_admin_keys_alone_leave_predictions_open() -> None:
    app = guarded("--admin-keys", ADMIN_ENTRY)
    assert ask(app, "/predict").status_code == 200
    assert ask(app, ADMINS[0]).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_api_key": USER}, 200),
        ({"x_api_key": f"{USER} "}, 200),
        ({"authorization": f"Bearer {USER}"}, 200),
        ({"authorization": f"bearer {USER} "}, 200),
        ({"authorization": f"Basic {USER}"}, 401),
        ({"authorization": USER}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"x_api_key": ""}, 401),
        ({"x_api_key": USER[:-1]}, 401),
        ({"x_api_key": USER_ENTRY.partition(":")[2]}, 401),
        ({"cookie": f"x-api-key={USER}"}, 401),
    ],
    ids=[
        "header",
        "space behind it",
        "bearer",
        "lower case",
        "basic",
        "bare",
        "empty bearer",
        "empty",
        "cut",
        "hash",
        "cookie",
    ],
)
def test_a_key_is_known_in_two_headers(headers: dict[str, str], status: int) -> None:
    answer = ask(guarded(*KEYS), "/predict", **headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        error(answer.content, "unauthorized")


def test_under_v2_errors_have_the_form_of_the_protocol() -> None:
    for path, headers in (("/v2/models/digits", {}), (ADMINS[0], {"x_api_key": USER})):
        answer = ask(guarded(*KEYS), path, **headers)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().keys() == {"error"}
        assert isinstance(answer.json()["error"], str)


def test_every_key_has_a_rate_of_its_own() -> None:
    app = guarded(*KEYS, "--rate-limit", "3/minute")
    assert [ask(app, "/predict", x_api_key=USER).status_code for _ in range(5)] == [200] * 3 + [429] * 2
    assert ask(app, "/predict", x_api_key=OTHER).status_code == 200
    late = ask(app, "/predict", x_api_key=USER)
    error(late.content, "rate_limited", "3 per 1 minute")
    assert 1 <= int(late.headers["retry-after"]) <= 60
    assert ask(app, "/health/live").status_code == 200
    assert ask(app, "/predict", x_api_key=STRANGER).status_code == 401


def test_without_keys_every_address_has_a_rate_that_recovers() -> None:
    app = guarded("--rate-limit", "2/second;100/hour")
    assert [ask(app, "/predict").status_code for _ in range(3)] == [200, 200, 429]
    assert ask(app, "/docs").status_code == 200
    time.sleep(2.1)
    assert ask(app, "/predict").status_code == 200


@pytest.mark.parametrize("header", [(b"x-api-key", b" %s "), (b"authorization", b"Bearer %s")])
def test_the_headers_alone_say_whose_a_request_is(header: tuple[bytes, bytes]) -> None:
    policy = AccessPolicy(load_settings(KEYS))
    name, value = header
    assert policy.check("/predict", [(name, value % USER.encode())]).key == "camera"
    assert AccessPolicy(load_settings(())).check("/predict", []).key is None
    with pytest.raises(UnauthorizedError):
        policy.check("/predict", [(name, value % b"nonsense")])
    with pytest.raises(HeadTooLargeError):
        policy.check("/predict", [(name, value % USER.encode())] + MAX_HEADERS * [(b"a", b"b")])


def test_a_rate_that_cannot_be_read_is_refused_with_an_example() -> None:
    with pytest.raises(SettingsError, match="100/second"):
        guarded("--rate-limit", "many")


def test_other_origins_are_told_nothing_unless_they_are_listed() -> None:
    page = "https://page.example"
    preflight = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    closed, opened = guarded(*KEYS), guarded(*KEYS, "--cors-origins", f"https://other.example, {page}/")
    assert not any(
        name.startswith("access-control") for name in ask(closed, "/predict", "OPTIONS", **preflight).headers
    )
    asked = ask(opened, "/predict", "OPTIONS", **preflight)
    assert asked.status_code == 200, "a preflight has no key"
    assert asked.headers["access-control-allow-origin"] == page
    answer = ask(opened, "/predict", origin=page)
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == page, "so that the page can read the error"
    stranger = ask(opened, "/predict", origin="https://evil.example", x_api_key=USER)
    assert "access-control-allow-origin" not in stranger.headers
    assert "access-control-allow-credentials" not in answer.headers


@pytest.fixture(scope="module")
def closed() -> Iterator[Service]:
    with start_service(*KEYS) as service:
        yield service


def test_the_real_service_answers_who_has_a_key(closed: Service) -> None:
    assert closed.client.post("/predict", content=PICTURE, headers={"x-api-key": USER}).status_code == 200
    refused(closed.client.post("/predict", content=PICTURE), 401, "unauthorized", "X-API-Key")
    for sample in ("/samples/digits", "/samples/digits/0.png", "/samples/unknown"):
        refused(closed.client.get(sample), 401, "unauthorized", "X-API-Key")
    assert closed.client.get("/samples/digits/0.png", headers={"x-api-key": USER}).status_code == 200
    assert closed.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "//v2/repository/index",
        "/v2//repository/index",
        "/v2/./repository/index",
        "/v2/models/../repository/index",
        "/V2/repository/index",
        "/%76%32/repository/index",
        "/v2%2frepository%2findex",
        "/v2/repository%2findex",
        "/v2/repository;/index",
        "/health/live/../../models",
        "/health/live%2f..%2f..%2fmodels",
        "/docs/../models",
        "//models",
        "/models/",
        "/health/live/",
        "/models?/health/live",
        "/page/../models",
        "/page/%2e%2e/models",
        "/swagger/..%2f..%2fmodels",
        "/swagger/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_no_spelling_of_a_path_goes_around_the_guard(closed: Service, path: str) -> None:
    with connect(closed) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        answer = receive(connection)
    assert answer.status in (401, 403, 404), (answer.status, answer.content[:100])
    assert "location" not in answer.headers
    assert b"digits" not in answer.content
    assert b"root:" not in answer.content


@pytest.mark.parametrize("count", [MAX_HEADERS, MAX_HEADERS + 1, 5000])
def test_a_flood_of_headers_is_refused(closed: Service, count: int) -> None:
    lines = ["GET /models HTTP/1.1", "Host: test", "Connection: close", f"X-API-Key: {USER}"]
    lines += [f"X-{number}: 1" for number in range(count - 3)]
    with connect(closed) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = receive(connection)
    assert answer.status == (200 if count <= MAX_HEADERS else 431)


def test_the_document_says_how_to_send_a_key(closed: Service, server: Service) -> None:
    document: dict[str, Any] = closed.client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"].values()
    assert {(scheme["type"], scheme.get("scheme", scheme.get("name"))) for scheme in schemes} == {
        ("http", "bearer"),
        ("apiKey", "X-API-Key"),
    }
    assert document["paths"]["/predict"]["post"]["responses"].keys() >= {"401", "403"}
    assert "security" not in document["paths"]["/health/live"]["get"]
    unprotected = server.client.get("/openapi.json").json()["paths"]
    protected = {path for path, operations in unprotected.items() for each in operations.values() if "security" in each}
    assert protected == {path for path in unprotected if path.startswith("/v2/repository")}
