"""The application as a user of FastAPI runs, tests, extends and mounts it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from service.app import create_app, get_state, is_unmodified
from service.errors import ModelLoadError, RequestError, SettingsError
from service.server.protocol import HTTPProtocol
from service.server.server import Server
from tests.service.answers import PICTURE, prediction, refused
from tests.service.artifacts import write_labelled
from tests.service.embedding.applications import ADMIN, HEADERS, settings, works_with_keys
from tests.service.exposed import Exposed

Next = Callable[[Request], Awaitable[Response]]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(settings())) as client:
        yield client


@pytest.fixture(scope="module")
def mounted() -> Iterator[TestClient]:
    app = create_app(settings())
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.mount("/ml", app)
    with TestClient(outer) as client:
        yield client


def test_it_works_in_the_test_client_of_starlette(client: TestClient) -> None:
    works_with_keys(client)


def test_it_can_be_started_again_after_it_has_stopped() -> None:
    app = create_app(settings())
    for _ in range(2):
        with TestClient(app) as client:
            prediction(client.post("/predict", content=PICTURE, headers=HEADERS))


def test_its_settings_come_from_the_environment_if_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STN_MAX_BATCH", "7")
    assert get_state(create_app()).settings.max_batch == 7
    monkeypatch.setenv("STN_MAX_BETCH", "7")
    with pytest.raises(SettingsError, match="STN_MAX_BETCH"):
        create_app()


def test_a_model_that_cannot_be_loaded_ends_the_start_with_its_message(tmp_path: Path) -> None:
    app = create_app(settings(models=tmp_path, load=""))
    with pytest.raises(ModelLoadError, match="there is no model in"), TestClient(app):
        pass
    sent: list[str] = []

    async def start() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup"}

        async def send(message: dict[str, str]) -> None:
            sent.append(message["message"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)  # type: ignore[arg-type]

    with pytest.raises(ModelLoadError):
        asyncio.run(start())
    assert len(sent) == 1
    assert sent[0].startswith("error: there is no model in")
    assert "Traceback" not in sent[0]


def test_mounted_it_works_below_its_prefix(mounted: TestClient) -> None:
    works_with_keys(mounted, "/ml")


def test_mounted_all_links_of_the_page_and_the_documentation_lead_into_it(mounted: TestClient) -> None:
    for start in ("/ml/", "/ml/docs"):
        page = mounted.get(start)
        assert page.status_code == 200
        links = set(re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"'#]+)["']""", page.text))
        assert len(links) > 2
        for link in links:
            assert not link.startswith("/"), link
            assert mounted.get(f"/ml/{link}", headers=HEADERS).status_code == 200, link
    assert mounted.get("/ml/samples/digits", headers=HEADERS).json()["samples"]
    document = mounted.get("/ml/openapi.json").json()
    assert document["servers"] == [{"url": "/ml"}]
    assert "/predict" in document["paths"]


@pytest.mark.parametrize("prefix", ["/docs", "/health/live", "/page", "/v2/repository", "/swagger/x", "/a/b/c"])
@pytest.mark.parametrize(
    "path",
    [
        "/models",
        "//models",
        "/models/",
        "/%2fmodels",
        "/Models",
        "/docs/../models",
        "/page/../models",
        "/v2/repository/index",
        "//v2/repository/index",
        "/v2%2frepository%2findex",
        "/v2/repository/index/",
        "/V2/repository/index",
        "",
    ],
)
def test_no_prefix_and_no_spelling_opens_a_path_within_it(prefix: str, path: str, app_with_keys: FastAPI) -> None:
    outer = FastAPI(docs_url=None)
    outer.mount(prefix, app_with_keys)
    answer = TestClient(outer).get(prefix + path, follow_redirects=False)
    assert answer.status_code in (401, 404, 307), answer.text
    assert answer.status_code != 307 or path == ""
    assert "digits" not in answer.text


@pytest.fixture(scope="module")
def app_with_keys() -> Iterator[FastAPI]:
    app = create_app(settings())
    with TestClient(app):
        yield app


def test_mounted_errors_below_v2_have_the_form_of_the_protocol(mounted: TestClient) -> None:
    for path in ("/ml/v2/models/digits", "/ml/v2/models/nobody/infer"):
        assert isinstance(mounted.post(path).json()["error"], str)
    assert mounted.post("/ml/v2/models/nobody/infer", headers=HEADERS).json().keys() == {"error"}


def test_without_its_lifespan_it_says_what_is_missing() -> None:
    outer = FastAPI()
    outer.mount("/ml", create_app(settings()))
    client = TestClient(outer)
    for path in ("/ml/predict", "/ml/predict/batch"):
        refused(client.post(path, content=PICTURE, headers=HEADERS), 503, "not_ready", "docs/use/embedding.md")
    refused(client.get("/ml/health/ready"), 503, "not_ready", "lifespan")
    refused(client.get("/ml/models", headers=HEADERS), 503, "not_ready", "lifespan")
    refused(client.get("/ml/metrics"), 503, "not_ready", "lifespan")
    inferred = client.post("/ml/v2/models/digits/infer", headers=HEADERS)
    assert inferred.status_code == 503
    assert client.post("/ml/predict", content=PICTURE).status_code == 401


def test_a_lifespan_of_its_own_may_run_that_of_the_application() -> None:
    app = create_app(settings())
    events = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with app.router.lifespan_context(app):
            events.append("ready")
            yield
        events.append("stopped")

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/ml", app)
    with TestClient(outer) as client:
        prediction(client.post("/ml/predict", content=PICTURE, headers=HEADERS))
    assert events == ["ready", "stopped"]


def test_the_middleware_of_a_user_sees_every_route() -> None:
    app = create_app(settings())
    seen = []

    @app.middleware("http")
    async def note(request: Request, call_next: Next) -> Response:
        response = await call_next(request)
        seen.append((request.url.path, response.status_code))
        response.headers["X-Mine"] = "yes"
        return response

    app.add_middleware(GZipMiddleware, minimum_size=100)
    with TestClient(app) as client:
        works_with_keys(client)
        seen.clear()
        answer = client.post("/predict", content=PICTURE, headers=HEADERS)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-mine"] == "yes"
        client.post("/predict", content=PICTURE)
        client.get("/docs")
    assert seen == [("/predict", 200), ("/predict", 401), ("/docs", 200)]


def test_the_route_of_a_user_needs_the_same_keys_and_is_counted() -> None:
    app = create_app(settings(ui=False))

    @app.get("/mine/{name}")
    async def mine(name: str) -> dict[str, str]:
        return {"hello": name}

    @app.get("/")
    async def root() -> str:
        return "mine"

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("a defect")

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("/mine/x", "/", "/broken"):
            refused(client.get(path), 401, "unauthorized")
        answer = client.get("/mine/x", headers=HEADERS)
        assert answer.json() == {"hello": "x"}
        assert answer.headers["cache-control"] == "no-store"
        failed = client.get("/broken", headers=HEADERS)
        refused(failed, 500, "internal")
        assert failed.headers.keys() >= {"x-request-id", "x-content-type-options", "x-frame-options"}
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
            pass
        with client.websocket_connect("/socket", headers=HEADERS):
            pass
        exposed = Exposed(client.get("/metrics").text)
        assert exposed("stn_requests_total", route="/mine/{name}", status=200) == 1
        assert exposed("stn_requests_total", route="/broken", status=500) == 1
        assert "/mine/{name}" in client.get("/openapi.json").json()["paths"]
    with TestClient(app) as client, pytest.raises(LookupError):
        client.get("/broken", headers=HEADERS)


def test_the_handler_of_a_user_answers_defects() -> None:
    app = create_app(settings())

    @app.exception_handler(Exception)
    async def teapot(_: Request, error: Exception) -> Response:
        return Response(repr(error), 418)

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("a defect")

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers=HEADERS)
    assert (answer.status_code, answer.text) == (418, "LookupError('a defect')")
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_its_router_included_elsewhere_still_needs_keys(prefix: str) -> None:
    app = create_app(settings())
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.include_router(app.router, prefix=prefix)
    with TestClient(outer) as client:
        prediction(client.post(f"{prefix}/predict", content=PICTURE, headers=HEADERS))
        refused(client.post(f"{prefix}/predict", content=PICTURE), 401, "unauthorized")
        assert client.get(f"{prefix}/models", headers=HEADERS).status_code == 200
        assert client.get(f"{prefix}/models").status_code == 401
        assert client.get(f"{prefix}/health/ready").status_code == 200
        index = f"{prefix}/v2/repository/index"
        assert client.post(index).status_code == 401
        keys = (HEADERS["X-API-Key"], ADMIN)
        assert [client.post(index, headers={"X-API-Key": key}).status_code for key in keys] == [403, 200]
        assert client.post(f"{prefix}/v2/models/digits/infer").status_code == 401
        assert client.get(f"{prefix}/samples/digits").status_code == 401


def test_its_router_included_elsewhere_answers_errors_in_its_own_form() -> None:
    app = create_app(settings())
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.include_router(app.router, prefix="/api")
    with TestClient(outer, headers={"X-API-Key": ADMIN}) as client:
        refused(client.get("/api/samples/nowhere"), 404, "model_not_found")
        refused(client.post("/api/predict", content=b"x"), 415, "unsupported_media_type")
        for method, path, status in (
            ("GET", "models/nowhere", 404),
            ("GET", "models/digits/versions/0", 404),
            ("POST", "models/nowhere/infer", 404),
            ("POST", "repository/models/nowhere/load", 404),
            ("POST", "repository/index", 400),
        ):
            answer = client.request(method, f"/api/v2/{path}", content=b"[" if path.endswith("index") else b"")
            assert answer.status_code == status, path
            assert isinstance(answer.json()["error"], str)


def test_the_handler_of_an_application_that_includes_its_router_answers_errors() -> None:
    app = create_app(settings())
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.include_router(app.router)

    @outer.exception_handler(RequestError)
    async def teapot(_: Request, error: Exception) -> Response:
        return Response(str(error), 418)

    with TestClient(outer, headers=HEADERS) as client:
        assert client.get("/v2/models/nowhere").status_code == 418


def test_two_applications_in_one_process_share_nothing(tmp_path: Path) -> None:
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    write_labelled(first_folder / "left" / "1", "left-")
    write_labelled(second_folder / "right" / "1", "right-")
    plain = {"load": "", "api_keys": "", "rate_limit": "3/minute"}
    first = create_app(settings(models=first_folder, **plain))
    second = create_app(settings(models=second_folder, **plain | {"rate_limit": ""}))
    with TestClient(first) as one, TestClient(second) as two:
        labels = []
        for client, name in ((one, "left"), (two, "right")):
            answer = prediction(client.post("/predict", content=PICTURE))
            assert answer["model"]["name"] == name
            labels.append(answer["predictions"][0]["label"])
            assert [model["name"] for model in client.get("/models").json()["models"]] == [name]
        assert labels[0].startswith("left-")
        assert labels[1].startswith("right-")
        assert [one.get("/models").status_code for _ in range(2)] == [200, 429]
        assert two.get("/models").status_code == 200
        exposed = [Exposed(client.get("/metrics").text) for client in (one, two)]
        assert [counts("stn_requests_total", route="/predict", status=200) for counts in exposed] == [1, 1]
        assert [counts("stn_requests_total", status=429) for counts in exposed] == [1, 0]
        assert [counts("nv_inference_count", model="left") for counts in exposed] == [1, 0]
        assert [counts("nv_inference_count", model="right") for counts in exposed] == [0, 1]
    owned = ("policy", "recorder", "access_log", "log_writer", "redactor", "running")
    for name in owned:
        assert getattr(get_state(first), name) is not getattr(get_state(second), name), name


def test_the_server_takes_its_fast_path_only_for_an_application_without_changes() -> None:
    app = create_app(settings())
    assert is_unmodified(app)
    assert has_fast_path(app)
    app.get("/mine")(lambda: "mine")
    assert not is_unmodified(app)
    assert not has_fast_path(app)
    with_middleware, with_handler = create_app(settings()), create_app(settings())
    with_middleware.add_middleware(GZipMiddleware)
    with_handler.add_exception_handler(LookupError, lambda *_: Response())
    assert not is_unmodified(with_middleware)
    assert not is_unmodified(with_handler)


def has_fast_path(app: FastAPI) -> bool:
    """Whether a server over ``app`` answers predictions without it."""
    protocol = Server(app, lambda: None).config.http
    assert isinstance(protocol, type)
    assert issubclass(protocol, HTTPProtocol)
    return protocol.options.fast_path is not None


def test_cancelling_a_request_cancels_it() -> None:
    app = create_app(settings(api_keys=""))

    async def ask(path: str) -> None:
        begun = asyncio.Event()

        async def receive() -> dict[str, object]:
            begun.set()
            await asyncio.sleep(60)
            return {}

        async def send(message: dict[str, object]) -> None:
            raise AssertionError(f"nothing is answered, but {message} was")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
            "client": None,
            "scheme": "http",
        }
        task = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await app(scope, receive, send)  # type: ignore[arg-type]

    async def all_routes() -> None:
        async with app.router.lifespan_context(app):
            for path in ("/predict", "/predict/batch", "/v2/models/digits/infer"):
                await ask(path)

    asyncio.run(all_routes())
