"""The API that loads and unloads models, as Triton's clients know it: /v2/repository."""

from typing import TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError
from starlette.requests import ClientDisconnect

from service.errors import InvalidBodyError, TooLargeError, shorten
from service.repository.repository import Repository
from service.repository.version_policy import Policy

Form = TypeVar("Form", bound="Options")
MAX_BYTES = 16 * 2**10
"""Of a body: options, and no models, which are put into the folder."""
MAX_PROBLEMS = 3
"""Wrong fields that an error lists."""


class Options(BaseModel):
    """Base class: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class IndexOptions(Options):
    """Body of a request for the index."""

    ready: bool = Field(False, description="only what is READY")


class Latest(Options):
    """The latest versions, so many."""

    num_versions: int = Field(1, ge=1)


class Specific(Options):
    """Versions by number."""

    versions: list[int] = Field(min_length=1)


class VersionPolicy(Options):
    """Which versions to serve: one of the three, as in Triton's model configuration."""

    latest: Latest | None = None
    specific: Specific | None = None
    all: Options | None = None


class LoadConfig(Options):
    """What of Triton's model configuration a load may say."""

    version_policy: VersionPolicy


class LoadParameters(Options):
    """Parameters of a load; Triton's clients send the configuration as JSON within JSON."""

    config: Json[LoadConfig] | None = None


class LoadOptions(Options):
    """Body of a load."""

    parameters: LoadParameters = LoadParameters()

    def policy(self) -> Policy | None:
        """The policy that it asks for, if any."""
        if self.parameters.config is None:
            return None
        target_versions = self.parameters.config.version_policy
        return Policy(
            versions=tuple(target_versions.specific.versions) if target_versions.specific else (),
            latest=target_versions.latest.num_versions if target_versions.latest else 0,
        )


def create_administration(repository: Repository) -> APIRouter:
    """The routes over ``repository``. Who may use them is decided before a request gets here."""
    router = APIRouter(prefix="/v2/repository", tags=["repository"])

    @router.post("/index", summary="All versions of all models, their states, and why")
    async def index(request: Request) -> Response:
        options = await read(request, IndexOptions)
        await repository.rescan()
        entries = [entry._asdict() | {"version": str(entry.version)} for entry in repository.index(options.ready)]
        return Response(orjson.dumps(entries), media_type="application/json")

    @router.post("/models/{name}/load", summary="Serve a model as it is in the folder now")
    async def load(name: str, request: Request) -> Response:
        await repository.load(name, (await read(request, LoadOptions)).policy())
        return Response()

    @router.post("/models/{name}/unload", summary="Serve a model no more")
    async def unload(name: str) -> Response:
        await repository.unload(name)
        return Response()

    return router


async def read(request: Request, form: type[Form]) -> Form:
    """The body, whatever its Content-Type says: Triton's clients send none; left out, all is as by default.

    Raises:
        InvalidBodyError: it is something else.
        TooLargeError: it has more than `MAX_BYTES`.
    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise TooLargeError(f"the body has more than {MAX_BYTES} bytes; put models into the models folder")
    except ClientDisconnect:
        raise InvalidBodyError("the body did not arrive whole") from None
    try:
        return form.model_validate_json(body or b"{}")
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        problems = [
            f"{shorten('.'.join(map(str, problem['loc'])), 100) or 'body'}: {problem['msg']}" for problem in found
        ]
        raise InvalidBodyError(f"{'; '.join(problems)}; models come from the models folder") from None
