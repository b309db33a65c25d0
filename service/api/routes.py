"""The routes of models and health, and the descriptions of predictions in the OpenAPI document."""

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
    NotAcceptableError,
    NotReadyError,
    QueueFullError,
    RequestError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from service.inference.registry import Model
from service.middleware.auth import Access
from service.schemas.answers import BatchPrediction, BatchRegionPredictions, ErrorBody, Prediction, RegionPredictions
from service.schemas.models import (
    AccuracyInfo,
    InputInfo,
    ModelInfo,
    ModelList,
    ModelState,
    Status,
    TransformInfo,
    WorthInfo,
)
from service.schemas.options import PredictOptions, RectifyOptions
from service.state import ServiceState

TimeoutHeader = Annotated[
    int | None,
    Header(ge=1, description="milliseconds from the arrival of the picture to the response, else 504"),
]
BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC of any size, in one of three forms.",
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
        "description": "Several pictures, each in a part called `images`. Options may also be fields of the form.",
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


CACHE_STATUS: dict[str, Any] = {
    "Cache-Status": {
        "description": "only with a response cache: whether the answer came from memory (RFC 9211)",
        "schema": {"type": "string"},
    }
}
PREDICTED: dict[str, Any] = {"description": "The answer.", "headers": CACHE_STATUS}
RECTIFIED_PICTURE: dict[str, Any] = {
    "description": "The picture; with Accept: application/json the answer of /predict.",
    "content": {kind: {"schema": BINARY} for kind in ("image/png", "image/jpeg", "image/webp")},
    "headers": CACHE_STATUS
    | {
        name: {"description": text, "schema": {"type": kind}}
        for name, kind, text in (
            ("X-Model", "string", "name and version of the model: NAME/VERSION"),
            ("X-Class", "string", "the most probable class; other than visible ASCII characters are percent-encoded"),
            ("X-Class-Index", "integer", "its index"),
            ("X-Probability", "number", "its probability"),
            ("X-Angle", "number", "degrees by which the region is turned clockwise in the uploaded picture"),
            ("X-Corners", "string", "the corners of the region in pixels of the uploaded picture, as JSON"),
            ("X-Reliability", "string", "the Reliability of the answer as JSON, if it was requested"),
        )
    },
}


def errors(*kinds: type[RequestError], model: type[BaseModel] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route, with the schema ``model``, for the OpenAPI document."""
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
    """Create the routes, and the descriptions of those in `service.api.predict`."""
    open_router = APIRouter(tags=["health"], route_class=ErrorRoute)
    router = APIRouter(route_class=ErrorRoute, **state.policy.requirement(Access.USER))

    @router.post(
        "/predict",
        tags=["predict"],
        summary="Classify and rectify one picture",
        response_model=Prediction | RegionPredictions,
        responses={200: PREDICTED, **errors(*PICTURE_ERRORS)},
        openapi_extra=PICTURE_BODY,
    )
    def predict(options: Annotated[PredictOptions, Query()], x_timeout_ms: TimeoutHeader = None) -> None:
        """Returns the classes of the picture, the sampled region (theta, corners) and the rectified image."""

    @router.post(
        "/predict/batch",
        tags=["predict"],
        summary="Classify and rectify several pictures independently",
        response_model=BatchPrediction | BatchRegionPredictions,
        responses={200: PREDICTED, **errors(*BODY_ERRORS)},
        openapi_extra=PICTURES_BODY,
    )
    def predict_batch(options: Annotated[PredictOptions, Query()], x_timeout_ms: TimeoutHeader = None) -> None:
        """Returns a prediction or an error for each picture, in their order."""

    @router.post(
        "/rectify",
        tags=["predict"],
        summary="Rectify one picture, and answer with the picture itself",
        response_model=Prediction | RegionPredictions,
        responses={200: RECTIFIED_PICTURE, **errors(*PICTURE_ERRORS, NotAcceptableError)},
        openapi_extra=PICTURE_BODY,
    )
    def rectify(options: Annotated[RectifyOptions, Query()], x_timeout_ms: TimeoutHeader = None) -> None:
        """Returns the region that the classifier reads, sampled from the uploaded picture itself.

        The header Accept chooses image/png, image/jpeg, image/webp, or application/json for the answer of /predict.
        """

    @router.get("/models", tags=["models"], summary="The models that are served, and those that are not")
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

    @open_router.head("/health/live", include_in_schema=False)
    @open_router.get(
        "/health/live",
        summary="Whether the process answers and no model hangs",
        responses=errors(NotReadyError),
    )
    async def live() -> Status:
        check_live(state)
        return Status(status="live")

    @open_router.head("/health/ready", include_in_schema=False)
    @open_router.get(
        "/health/ready",
        summary="Whether all models can answer",
        responses=errors(NotReadyError),
    )
    async def ready() -> Status:
        check_ready(state)
        return Status(status="ready")

    routes = APIRouter()
    routes.include_router(router)
    routes.include_router(open_router)
    return routes


def check_live(state: ServiceState) -> None:
    """Raise `NotReadyError` if only another process can answer again."""
    if state.engine.hangs:
        raise NotReadyError("a model hangs; restart the service")


def check_ready(state: ServiceState) -> None:
    """Raise `NotReadyError` unless every model of every worker can answer."""
    if not state.workers_ready():
        raise NotReadyError("a worker has died and is being replaced")
    if not state.engine.ready:
        raise NotReadyError("the service is shutting down, or a model hangs")


def describe(model: Model, *, default: bool) -> ModelInfo:
    """Describe a model; ``default`` is whether it is the default version of its name."""
    manifest = model.manifest
    return ModelInfo(
        name=model.name,
        version=model.version,
        default=default,
        runtime=manifest.runtime,
        device=model.device,
        task=manifest.task,
        classes=list(manifest.classes),
        sequence=manifest.sequence,
        input=InputInfo(**manifest.input.model_dump(include=set(InputInfo.model_fields))),
        transforms=[
            TransformInfo(**t.model_dump(include=set(TransformInfo.model_fields))) for t in manifest.transforms
        ],
        temperature=manifest.temperature,
        accuracy=None if manifest.accuracy is None else AccuracyInfo(**manifest.accuracy.model_dump()),
        worth=None if manifest.worth is None else WorthInfo(**manifest.worth.model_dump()),
        digest=model.digest,
        signed_by=model.signer or None,
    )
