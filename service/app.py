"""The web application: routes, and the one place where errors become HTTP."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service import __version__
from service.api.metrics import Metrics, create_metrics_route
from service.api.model_repository import create_administration
from service.api.open_inference.infer import PATH as INFER
from service.api.open_inference.infer import Infer
from service.api.open_inference.routes import create_open_inference_routes
from service.api.predict import ONE, SEVERAL, Predict
from service.api.routes import create_routes
from service.api.ui import create_ui
from service.errors import InternalError, InvalidParameterError, RequestError
from service.inference.engine import Engine
from service.repository.repository import Repository
from service.request_context import record_error, record_route
from service.responses import describe_error, describe_problem
from service.settings import Settings

Route = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

SWAGGER = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
"""What its page is made of, and of which types."""

log = structlog.get_logger(__name__)


class Application(FastAPI):
    """FastAPI, with POST routes that its middlewares and router have no part in."""

    def __init__(self, direct: Mapping[str, Route], patterns: Mapping[re.Pattern[str], Route], **options: Any):
        """``direct`` routes are found by their path, others by the pattern that all of their path has."""
        super().__init__(**options)
        self._direct = direct
        self._patterns = patterns

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"].removesuffix("\n")  # FastAPI's router ignores it, and reads without limits
            if route := self._direct.get(path):
                record_route(path)
                return route(scope, receive, send)
            for pattern, route in self._patterns.items():
                if found := pattern.fullmatch(path):
                    return route({**scope, "path_params": found.groupdict()}, receive, send)
        return super().__call__(scope, receive, send)


def create_app(
    engine: Engine,
    repository: Repository,
    settings: Settings,
    metrics: Metrics,
    workers_ready: Callable[[], bool],
) -> FastAPI:
    """The application over a loaded ``engine`` and the ``repository`` of its models, which it closes when it ends.

    ``workers_ready`` says whether all processes that serve on this address are ready.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        repository.start()
        yield
        repository.close()
        await engine.close()
        log.info("stopped")

    predict = Predict(engine, settings)
    app = Application(
        {ONE: predict.one, SEVERAL: predict.several},
        {INFER: Infer(engine, settings)},
        title="stn-serve",
        version=__version__,
        summary="Classifiers that first straighten what they look at",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever host the client names
        swagger_ui_oauth2_redirect_url=None,
    )
    app.include_router(create_routes(engine, repository, workers_ready))
    app.include_router(create_open_inference_routes(engine, settings, metrics, workers_ready))
    if settings.admin:
        app.include_router(create_administration(repository))
    app.include_router(create_metrics_route(metrics))
    if settings.ui:
        app.include_router(create_ui(engine.models, settings.models))
    add_documentation(app)
    app.add_exception_handler(RequestError, answer_request_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_wrong_parameters)
    app.add_exception_handler(Exception, answer_bug)
    return app


def add_documentation(app: FastAPI) -> None:
    """Swagger's page at ``/docs``, from this service alone. Its links are relative: a proxy may be in front."""

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


def answer_request_error(request: Request, error: Exception) -> Response:
    """Errors of ours, which carry status and code."""
    if not isinstance(error, RequestError):
        raise error
    record_error(error.code)
    return JSONResponse(describe_error(error, request.url.path), error.status, dict(error.headers))


def answer_http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    record_error(code)
    content = describe_problem(code, f"{error.detail}; /docs lists what there is", request.url.path)
    return JSONResponse(content, error.status_code, error.headers)


def answer_wrong_parameters(request: Request, error: Exception) -> Response:
    """422 of FastAPI."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    return answer_request_error(request, InvalidParameterError(f"{problems}; /docs describes the request"))


def answer_bug(request: Request, error: Exception) -> Response:
    """Anything else is a defect of the service: the log has the details, the client does not."""
    log.error("unhandled_exception", error=repr(error))
    return answer_request_error(request, InternalError("the service has a defect; its log says which"))
