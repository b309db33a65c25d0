"""Answers exceptions of routes with error responses."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.errors import InternalError, InvalidParameterError, RequestError
from service.request_context import path_within, record_error
from service.responses import OPEN_INFERENCE, describe_error, describe_problem

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

log = structlog.get_logger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception with a `service.schemas.answers.ErrorBody`, or under /v2 in the form of the protocol."""
    app.add_exception_handler(RequestError, answer_request_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(Exception, answer_unhandled_exception)


def answer_request_error(request: Request, error: Exception) -> Response:
    """Answer an error of the service with its status and code."""
    if not isinstance(error, RequestError):
        raise error
    return to_response(error, path_within(request.scope))


def to_response(error: RequestError, path: str) -> Response:
    """The response to a request for ``path`` that failed with ``error``."""
    record_error(error.code)
    return JSONResponse(describe_error(error, path), error.status, dict(error.headers))


def answer_errors(handle: Handler, path: str) -> Handler:
    """``handle``, whose errors are answered as those of ``path`` in an application without a handler for them."""

    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except RequestError as error:
            if RequestError in request.app.exception_handlers:
                raise
            return to_response(error, path)

    return answer


class ErrorRoute(APIRoute):
    """A route that answers errors of the service by itself where another application includes it."""

    documented = "/"
    """A path as the service has it: the prefix of the other application says nothing of the form of errors."""

    def get_route_handler(self) -> Handler:
        return answer_errors(super().get_route_handler(), self.documented)


class OpenInferenceRoute(ErrorRoute):
    """Such a route under /v2."""

    documented = OPEN_INFERENCE


def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 of the router."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    record_error(code)
    content = describe_problem(code, f"{error.detail}; /docs lists the routes", path_within(request.scope))
    return JSONResponse(content, error.status_code, error.headers)


def answer_validation_error(request: Request, error: Exception) -> Response:
    """Answer parameters that FastAPI rejects with 422."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    return answer_request_error(request, InvalidParameterError(f"{problems}; /docs describes the request"))


def answer_unhandled_exception(request: Request, error: Exception) -> Response:
    """Answer a defect of the service without its details, which go to the log."""
    if isinstance(error, RequestError):  # the body of the request broke after the response had begun
        return answer_request_error(request, error)
    log.error("unhandled_exception", error=repr(error))
    return answer_request_error(request, InternalError())
