"""Exceptions of routes as responses."""

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.errors import InternalError, InvalidParameterError, RequestError
from service.request_context import path_within, record_error
from service.responses import describe_error, describe_problem

log = structlog.get_logger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Have every exception answered in the form of `service.schemas.ErrorBody`, or of the protocol under /v2."""
    app.add_exception_handler(RequestError, answer_request_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(Exception, answer_unhandled_exception)


def answer_request_error(request: Request, error: Exception) -> Response:
    """Answer an error of the service, which has a status and a code."""
    if not isinstance(error, RequestError):
        raise error
    record_error(error.code)
    return JSONResponse(describe_error(error, path_within(request.scope)), error.status, dict(error.headers))


def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 of the router."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    record_error(code)
    content = describe_problem(code, f"{error.detail}; /docs lists what there is", path_within(request.scope))
    return JSONResponse(content, error.status_code, error.headers)


def answer_validation_error(request: Request, error: Exception) -> Response:
    """Answer parameters that FastAPI finds wrong with 422."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    return answer_request_error(request, InvalidParameterError(f"{problems}; /docs describes the request"))


def answer_unhandled_exception(request: Request, error: Exception) -> Response:
    """Answer a defect of the service: the log has the details, the client does not."""
    log.error("unhandled_exception", error=repr(error))
    return answer_request_error(request, InternalError("the service has a defect; its log says which"))
