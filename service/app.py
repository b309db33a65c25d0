"""The application: an ordinary FastAPI application for any ASGI server, which other applications can mount."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api.errors import add_error_handlers
from service.api.metrics import create_metrics_route
from service.api.open_inference.infer import create_infer_routes
from service.api.open_inference.model_repository import create_model_repository_routes
from service.api.open_inference.rollout import create_rollout_routes
from service.api.open_inference.routes import create_open_inference_routes
from service.api.predict import create_predict_routes
from service.api.rectify import create_rectify_route
from service.api.routes import create_routes
from service.api.stream import create_stream_route
from service.api.ui import create_ui
from service.errors import SettingsError
from service.inference.registry import Models
from service.logging import LogWriter
from service.metrics.recorder import Recorder
from service.middleware.access_log import AccessLog, AccessLogMiddleware
from service.middleware.auth import METRICS, Access, AccessPolicy, AuthMiddleware
from service.middleware.errors import ErrorMiddleware
from service.middleware.rate_limit import RateLimiter, RateLimitMiddleware
from service.middleware.request_id import RequestIdMiddleware
from service.middleware.security_headers import SecurityHeadersMiddleware
from service.response_cache import ResponseCache
from service.settings import Settings, load_settings
from service.state import Parts, ServiceState, Worker

if TYPE_CHECKING:
    from service.middleware.tracing import Tracer

DESCRIBED_IN = ("X-Model", "X-Class", "X-Class-Index", "X-Probability", "X-Angle", "X-Corners")
"""Headers of POST /rectify that describe the picture."""
SWAGGER = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
"""The files of Swagger's page, and their types."""


def create_app(
    settings: Settings | None = None,
    *,
    models: Models | None = None,
    worker: Worker | None = None,
    log_writer: LogWriter | None = None,
) -> FastAPI:
    """Create the application with its models, routes, keys, rates, logs, metrics, traces, documentation and page.

    It shares nothing with other applications in the process. Its `ServiceState` is ``app.state.service``.

    Args:
        settings: by default from ``STN_*`` in the environment.
        models: loaded models; by default the lifespan loads the models of the settings.
        worker: for an application that is one of several worker processes.
        log_writer: writes the access log; by default to stderr.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(()) if settings is None else settings
    state = create_state(settings, models, worker, log_writer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await state.start()
        try:
            yield
        finally:
            await state.stop()

    app = FastAPI(
        title="stn-serve",
        version=__version__,
        summary="Image classifiers with spatial transformers",
        lifespan=lifespan,
        routes=[
            *create_predict_routes(state),
            create_rectify_route(state),
            *create_infer_routes(state),
            *([create_stream_route(state)] if settings.stream else []),
        ],
        middleware=create_middleware(state),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to the host that the client names
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.service = state
    add_routes(app, state)
    add_error_handlers(app)
    state.parts = Parts.of(app)
    return app


def get_state(app: FastAPI) -> ServiceState:
    """Return the state of an application of `create_app`."""
    state = app.state.service
    if not isinstance(state, ServiceState):
        raise TypeError(f"app.state.service is no ServiceState but {type(state).__name__}")
    return state


def is_unmodified(app: FastAPI) -> bool:
    """Whether ``app`` has no middleware, routes or exception handlers besides those of `create_app`."""
    return get_state(app).is_unmodified(app)


def create_state(
    settings: Settings,
    models: Models | None = None,
    worker: Worker | None = None,
    log_writer: LogWriter | None = None,
) -> ServiceState:
    """Create the state of an application; see `create_app`."""
    policy = AccessPolicy(settings)
    redactor = policy.redactor()
    recorder = Recorder() if models is None else models.recorder
    log_writer = log_writer or LogWriter(as_json=settings.log_format == "json")
    return ServiceState(
        settings=settings,
        policy=policy,
        redactor=redactor,
        recorder=recorder,
        log_writer=log_writer,
        access_log=AccessLog(settings, recorder, log_writer, redactor),
        rate_limiter=RateLimiter(settings.rate_limit) if settings.rate_limit else None,
        response_cache=create_response_cache(settings, recorder),
        models=models,
        worker=worker,
        tracer=create_tracer() if settings.traces else None,
    )


def create_response_cache(settings: Settings, recorder: Recorder) -> ResponseCache | None:
    """Create the cache that the settings ask for."""
    if not settings.response_cache_bytes:
        return None
    return ResponseCache(settings.response_cache_bytes, recorder, across_keys=settings.response_cache_across_keys)


def create_middleware(state: ServiceState) -> list[Middleware]:
    """Create the middleware from the outside to the inside. A user's middleware wraps all of it."""
    settings = state.settings
    middleware = [
        Middleware(RequestIdMiddleware, state.redactor),
        Middleware(SecurityHeadersMiddleware),
        Middleware(AccessLogMiddleware, state.access_log),
    ]
    if state.tracer is not None:
        from service.middleware.tracing import TracingMiddleware

        middleware.append(Middleware(TracingMiddleware, state.tracer, state.redactor))
    if settings.cors_origins:
        middleware.append(Middleware(CORSMiddleware, **cors_options(settings.cors_origins)))
    middleware += [Middleware(ErrorMiddleware), Middleware(AuthMiddleware, state.policy, state.access_log)]
    if state.rate_limiter is not None:
        middleware.append(Middleware(RateLimitMiddleware, state.rate_limiter))
    return middleware


def cors_options(origins: str) -> dict[str, Any]:
    """Options of Starlette's middleware for ``origins``: ``https://a.example,...`` or ``*``."""
    return {
        "allow_origins": [origin.strip().rstrip("/") for origin in origins.split(",")],
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": ["*"],
        "expose_headers": [
            *("X-Request-ID", "Retry-After", "Inference-Header-Content-Length", "Cache-Status"),
            *DESCRIBED_IN,
        ],
    }


def create_tracer() -> "Tracer":
    """Create the tracer of an application.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    try:
        from service.middleware.tracing import Tracer
    except ImportError as error:
        raise SettingsError("--traces needs OpenTelemetry; install it with: pip install 'stn-serve[otel]'") from error
    return Tracer()


def add_routes(app: FastAPI, state: ServiceState) -> None:
    """Add all routes but those for predictions, which must precede their descriptions in the router."""
    settings, policy = state.settings, state.policy
    app.include_router(create_routes(state))
    app.include_router(create_open_inference_routes(state))
    app.include_router(create_model_repository_routes(state))
    app.include_router(create_rollout_routes(state))
    app.include_router(create_metrics_route(lambda: state.metrics, **policy.requirement(policy.access(METRICS))))
    if settings.ui:
        folder, needs = settings.models_folder, policy.requirement(Access.USER)
        app.include_router(create_ui(lambda: state.engine.models, folder, **needs))
    add_documentation(app)


def add_documentation(app: FastAPI) -> None:
    """Add Swagger's page at ``/docs``. All of its files come from this service, and its links are relative."""

    @app.get("/swagger/{name}", include_in_schema=False)
    async def part(name: str) -> FileResponse:
        if name not in SWAGGER:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return FileResponse(str(files("fastapi_swagger.resources") / name), media_type=SWAGGER[name])

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True, "filter": True},
        )
