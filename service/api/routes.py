"""The service's own routes, models and health, and the descriptions of predictions in the OpenAPI document."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel

from service.api.errors import ErrorRoute
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
from service.inference.registry import Model
from service.middleware.auth import Access
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
from service.state import ServiceState

TimeoutHeader = Annotated[
    int | None,
    Header(ge=1, description="milliseconds that the answer may take from the arrival of the picture; else 504"),
]
BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC of any size, in one of three ways.",
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
    """The error responses of a route, with ``model`` as their schema, for the OpenAPI document."""
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


def create_routes(state: ServiceState) -> APIRouter:
    """The routes, and the descriptions of the routes that `service.api.predict` answers."""
    everybody = APIRouter(tags=["health"], route_class=ErrorRoute)
    router = APIRouter(route_class=ErrorRoute, **state.policy.requirement(Access.USER))

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
        engine, repository = state.engine, state.repository
        served = [describe(model, default=engine.models.is_default(model)) for model in engine.models]
        known = {(model.name, model.version) for model in served}
        others = [
            ModelState(name=entry.name, version=entry.version, state=entry.state.value)
            for entry in repository.index()
            if (entry.name, entry.version) not in known
        ]
        return ModelList(models=served, not_served=others)

    @everybody.head("/health/live", include_in_schema=False)
    @everybody.get(
        "/health/live",
        summary="Is the process answering, and no model given up?",
        responses=errors(NotReadyError),
    )
    async def live() -> Status:
        check_live(state)
        return Status(status="live")

    @everybody.head("/health/ready", include_in_schema=False)
    @everybody.get(
        "/health/ready",
        summary="Have all models answered their warm-up as they should?",
        responses=errors(NotReadyError),
    )
    async def ready() -> Status:
        check_ready(state)
        return Status(status="ready")

    whole = APIRouter()
    whole.include_router(router)
    whole.include_router(everybody)
    return whole


def check_live(state: ServiceState) -> None:
    """Raise `NotReadyError` if only another process can answer again."""
    if state.engine.hangs:
        raise NotReadyError("a model does not answer any more; start the service again")


def check_ready(state: ServiceState) -> None:
    """Raise `NotReadyError` unless every model of every worker can answer."""
    if not state.workers_ready():
        raise NotReadyError("a worker has died and is being replaced")
    if not state.engine.ready:
        raise NotReadyError("the service is shutting down, or a model does not answer any more")


def describe(model: Model, *, default: bool) -> ModelInfo:
    """A model in the form of the API; ``default`` says whether its version answers where a request names none."""
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
