"""Triton's model repository extension, which loads and unloads models: /v2/repository."""

from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError
from starlette.requests import ClientDisconnect

from service.api.errors import OpenInferenceRoute, answer_errors
from service.api.open_inference.routes import failures
from service.errors import (
    InvalidBodyError,
    LoadFailedError,
    ModelNotFoundError,
    NotReadyError,
    RequestTimeoutError,
    TooLargeError,
    shorten,
)
from service.middleware.auth import ADMIN, Access, Requirement
from service.repository.repository import State
from service.repository.version_policy import Policy
from service.state import ServiceState

Form = TypeVar("Form", bound="Options")
MAX_BYTES = 16 * 2**10
"""Largest body in bytes. It has only options; models come from the models folder."""
MAX_PROBLEMS = 3
"""Maximum number of wrong fields in an error."""
PREFIX = ADMIN
INDEX = "/index"
LOAD = "/models/{name}/load"
UNLOAD = "/models/{name}/unload"
BODY_ERRORS = (InvalidBodyError, RequestTimeoutError, TooLargeError, NotReadyError)
NOTHING: dict[int | str, dict[str, Any]] = {200: {"description": "Done; the body is empty.", "content": {}}}
NAME: dict[str, Any] = {
    "parameters": [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "of the model"}
    ]
}


class Options(BaseModel):
    """Base class that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid")


class IndexOptions(Options):
    """The body of a request for the index."""

    ready: bool = Field(False, description="list only versions that are READY")


class Latest(Options):
    """The latest versions, up to a number."""

    num_versions: int = Field(1, ge=1)


class Specific(Options):
    """Particular versions."""

    versions: list[int] = Field(min_length=1)


class VersionPolicy(Options):
    """The versions to serve: one of the three choices, as in Triton's model configuration."""

    latest: Latest | None = None
    specific: Specific | None = None
    all: Options | None = None


class LoadConfig(Options):
    """The part of Triton's model configuration that a load may set."""

    version_policy: VersionPolicy


class LoadParameters(Options):
    """The parameters of a load; Triton's clients send the configuration as JSON within JSON."""

    config: Json[LoadConfig] | None = None


class LoadOptions(Options):
    """The body of a load."""

    parameters: LoadParameters = LoadParameters()

    def policy(self) -> Policy | None:
        """Return the requested policy, if any."""
        if self.parameters.config is None:
            return None
        policy = self.parameters.config.version_policy
        return Policy(
            versions=tuple(policy.specific.versions) if policy.specific else (),
            latest=policy.latest.num_versions if policy.latest else 0,
        )


class IndexEntry(BaseModel):
    """A version of a model in the index."""

    name: str
    version: str
    state: State
    reason: str = Field(description="why the version is not served; empty if there is nothing to report")


def create_model_repository_routes(state: ServiceState) -> APIRouter:
    """Create the routes, each followed by its description.

    They are plain Starlette routes, which ignore the Content-Type, since Triton's clients do not send it.
    """
    requirement = Requirement(state.policy, Access.ADMIN)
    described = APIRouter(
        prefix=PREFIX, tags=["repository"], route_class=OpenInferenceRoute, **state.policy.requirement(Access.ADMIN)
    )
    router = APIRouter()

    async def index(request: Request) -> Response:
        requirement.check(request.scope)
        options = await read(request, IndexOptions)
        await state.repository.rescan()
        entries = [entry._asdict() | {"version": str(entry.version)} for entry in state.repository.index(options.ready)]
        return Response(orjson.dumps(entries), media_type="application/json")

    async def load(request: Request) -> Response:
        requirement.check(request.scope)
        await state.repository.load(request.path_params["name"], (await read(request, LoadOptions)).policy())
        return Response()

    async def unload(request: Request) -> Response:
        requirement.check(request.scope)
        await state.repository.unload(request.path_params["name"])
        return Response()

    for path, endpoint in ((INDEX, index), (LOAD, load), (UNLOAD, unload)):
        router.add_route(PREFIX + path, answer_errors(endpoint, PREFIX), methods=["POST"], include_in_schema=False)

    @described.post(
        INDEX,
        summary="All versions of all models, their states and the reasons",
        response_model=list[IndexEntry],
        responses=failures(*BODY_ERRORS),
        openapi_extra=body_of(IndexOptions),
    )
    def describe_index() -> None:
        """No Content-Type is required. An empty body stands for the defaults."""

    @described.post(
        LOAD,
        summary="Serve a model as it is in the folder now",
        response_class=Response,
        responses=NOTHING | failures(LoadFailedError, ModelNotFoundError, *BODY_ERRORS),
        openapi_extra=NAME | body_of(LoadOptions),
    )
    def describe_load() -> None:
        """Versions are loaded beside the present ones, which stay if a load fails. No Content-Type is required."""

    @described.post(
        UNLOAD,
        summary="Stop serving a model",
        response_class=Response,
        responses=NOTHING | failures(ModelNotFoundError, NotReadyError),
        openapi_extra=NAME,
    )
    def describe_unload() -> None:
        """Requests in flight are answered. The body is ignored."""

    router.include_router(described)
    return router


def body_of(form: type[Options]) -> dict[str, Any]:
    """Describe an optional body with a ``form`` for the OpenAPI document.

    FastAPI would describe a parameter by itself, but would add a 422 response.
    """
    schema = form.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            part = parts[value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
            return {key: inlined(each) for key, each in (part | value).items() if key != "$ref"}
        return [inlined(each) for each in value] if isinstance(value, list) else value

    return {"requestBody": {"content": {"application/json": {"schema": inlined(schema)}}}}


async def read(request: Request, form: type[Form], cure: str = "models come from the models folder") -> Form:
    """Read the options in the body. An empty body stands for the defaults. Errors end with ``cure``.

    Raises:
        InvalidBodyError: the body does not hold such options.
        TooLargeError: the body has more than `MAX_BYTES`.
    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise TooLargeError(f"the body has more than {MAX_BYTES} bytes; {cure}")
    except ClientDisconnect:
        raise InvalidBodyError("the body did not arrive completely") from None
    try:
        return form.model_validate_json(body or b"{}")
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        problems = [
            f"{shorten('.'.join(map(str, problem['loc'])), 100) or 'body'}: {problem['msg']}" for problem in found
        ]
        raise InvalidBodyError(f"{'; '.join(problems)}; {cure}") from None
