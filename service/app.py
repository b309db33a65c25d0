"""The web application: routes, and the one place where errors become HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service import __version__
from service.engine import Engine
from service.errors import BadOptionError, QueueFullError, RequestError
from service.routes import create_routes, error_body
from service.schemas import ErrorBody, ErrorDetail
from service.settings import Settings

log = structlog.get_logger(__name__)


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The application over a loaded ``engine``, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.close()
        log.info("stopped")

    app = FastAPI(
        title="stn-serve",
        version=__version__,
        summary="Classifiers that first straighten what they look at",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.include_router(create_routes(engine, settings))
    patch_fastapi(app, docs_url="/docs", redirect_from_root_to_docs=False)
    app.add_exception_handler(RequestError, answer_request_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientDisconnect, answer_nobody)
    app.add_exception_handler(Exception, answer_bug)
    return app


def answer_request_error(_: Request, error: Exception) -> Response:
    """Errors of ours, which carry status and code."""
    if not isinstance(error, RequestError):
        raise error
    headers = {"Retry-After": "1"} if isinstance(error, QueueFullError) else None
    return JSONResponse(error_body(error).model_dump(), error.status, headers)


def answer_validation_error(request: Request, error: Exception) -> Response:
    """Options that FastAPI refused."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return answer_request_error(request, BadOptionError(f"{'; '.join(problems)}; /docs lists the options"))


def answer_http_error(_: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{error.detail}; /docs lists what there is"
    body = ErrorBody(error=ErrorDetail(code=phrase.lower().replace(" ", "_"), message=message))
    return JSONResponse(body.model_dump(), error.status_code, error.headers)


def answer_nobody(_: Request, __: Exception) -> Response:
    """The client left before its body had arrived; the answer reaches nobody."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


def answer_bug(_: Request, error: Exception) -> Response:
    """Anything else is a defect of the service: the log has the details, the client does not."""
    log.error("bug", error=repr(error))
    body = ErrorBody(error=ErrorDetail(code="internal", message="the service has a defect; its log says which"))
    return JSONResponse(body.model_dump(), HTTPStatus.INTERNAL_SERVER_ERROR)
