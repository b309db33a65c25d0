"""The service's own routes: models and health; and what the OpenAPI document says of predictions."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel

from service.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InvalidBodyError,
    InvalidImageError,
    InvalidParameterError,
    ModelNotFoundError,
    NotReadyError,
    QueueFullError,
    RequestError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from service.inference.engine import Engine
from service.inference.registry import Model
from service.repository.repository import Repository
from service.schemas import (
    AccuracyInfo,
    BatchPrediction,
    ErrorBody,
    InputInfo,
    ModelInfo,
    ModelList,
    ModelState,
    Prediction,
    PredictOptions,
    Status,
    TransformInfo,
)

TimeoutHeader = Annotated[
    int | None,
    Header(ge=1, description="milliseconds that the answer may take from the arrival of the picture; else 504"),
]
BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF of any size, in one of three ways. "
        "Options may be fields of the form too.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["image"], "properties": {"image": BINARY}}
            },
            "image/*": {"schema": BINARY},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {"image": {"type": "string", "description": "base64, or a data URL"}},
                }
            },
        },
    }
}
PICTURES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Several pictures, each a part called `images`. Options may be fields of the form too.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": BINARY}},
                }
            }
        },
    }
}


def errors(*kinds: type[RequestError], model: type[BaseModel] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, of the form of ``model``, for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        text = f"`{kind.code}`: {kind.__doc__}"
        known = answers.setdefault(kind.status, {"model": model, "description": text})
        if text not in known["description"]:
            known["description"] += f"\n\n{text}"
    return answers


BODY_ERRORS = (
    InvalidBodyError,
    ModelNotFoundError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
    InvalidParameterError,
    QueueFullError,
    NotReadyError,
)
PICTURE_ERRORS = (InvalidImageError, *BODY_ERRORS, InferenceFailedError, DeadlineExceededError)


def create_routes(engine: Engine, repository: Repository, workers_ready: Callable[[], bool]) -> APIRouter:
    """The routes over ``engine``, and the descriptions of those that `service.api.predict` answers."""
    router = APIRouter()

    @router.post(
        "/predict",
        tags=["predict"],
        summary="Classify one picture and straighten it",
        response_model=Prediction,
        responses=errors(*PICTURE_ERRORS),
        openapi_extra=PICTURE_BODY,
    )
    def predict(options: Annotated[PredictOptions, Query()], x_timeout_ms: TimeoutHeader = None) -> None:
        """The picture's classes, where in it the model looked (theta, corners), and the rectified image."""

    @router.post(
        "/predict/batch",
        tags=["predict"],
        summary="Classify and straighten several pictures; each answers for itself",
        response_model=BatchPrediction,
        responses=errors(*BODY_ERRORS),
        openapi_extra=PICTURES_BODY,
    )
    def predict_batch(options: Annotated[PredictOptions, Query()], x_timeout_ms: TimeoutHeader = None) -> None:
        """An answer or an error for each picture, in the order in which they were sent."""

    @router.get("/models", tags=["models"], summary="What is served, and what is not at present")
    async def models() -> ModelList:
        served = [describe(model, default=engine.models.is_default(model)) for model in engine.models]
        known = {(model.name, model.version) for model in served}
        others = [
            ModelState(name=entry.name, version=entry.version, state=entry.state.value)
            for entry in repository.index()
            if (entry.name, entry.version) not in known
        ]
        return ModelList(models=served, not_served=others)

    @router.head("/health/live", include_in_schema=False)
    @router.get(
        "/health/live",
        tags=["health"],
        summary="Is the process answering, and no model given up?",
        responses=errors(NotReadyError),
    )
    async def live() -> Status:
        check_live(engine)
        return Status(status="live")

    @router.head("/health/ready", include_in_schema=False)
    @router.get(
        "/health/ready",
        tags=["health"],
        summary="Have all models answered their warm-up as they should?",
        responses=errors(NotReadyError),
    )
    async def ready() -> Status:
        check_ready(engine, workers_ready)
        return Status(status="ready")

    return router


def check_live(engine: Engine) -> None:
    """Raise `NotReadyError` if only another process can answer again."""
    if engine.hangs:
        raise NotReadyError("a model does not answer any more; start the service again")


def check_ready(engine: Engine, workers_ready: Callable[[], bool]) -> None:
    """Raise `NotReadyError` unless every model of every worker can answer."""
    if not workers_ready():
        raise NotReadyError("a worker has died and is being replaced")
    if not engine.ready:
        raise NotReadyError("the service is shutting down, or a model does not answer any more")


def describe(model: Model, *, default: bool) -> ModelInfo:
    """A model in the form of the API; ``default`` is whether its version answers where none is named."""
    manifest = model.manifest
    return ModelInfo(
        name=model.name,
        version=model.version,
        default=default,
        runtime=manifest.runtime,
        device=model.device,
        classes=list(manifest.classes),
        input=InputInfo(**manifest.input.model_dump(include=set(InputInfo.model_fields))),
        transforms=[
            TransformInfo(**t.model_dump(include=set(TransformInfo.model_fields))) for t in manifest.transforms
        ],
        temperature=manifest.temperature,
        accuracy=AccuracyInfo(**manifest.accuracy.model_dump()),
    )
