"""The service's own routes: predictions, models, health."""

import asyncio
import base64
import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from service.engine import Answer, Encoded, Engine, Straightened
from service.errors import (
    BadBodyError,
    BadOptionError,
    BadPictureError,
    ModelFailedError,
    NotAPictureError,
    NotReadyError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnknownModelError,
)
from service.images import Upload
from service.models import Model
from service.schemas import (
    AccuracyInfo,
    BatchPrediction,
    ClassPrediction,
    ErrorBody,
    ErrorDetail,
    InputInfo,
    ModelInfo,
    ModelList,
    ModelReference,
    Prediction,
    PredictOptions,
    RectifiedImage,
    Status,
    Timings,
    TransformInfo,
    TransformResult,
)
from service.settings import Settings
from service.uploads import read_one, read_several

PICTURES_A_TURN = 16
"""Of one batch request, before other requests have their turn."""
BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF of any size, in one of three ways.",
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
        "description": "Several pictures, each a part called `images`.",
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


def errors(*kinds: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        text = f"`{kind.code}`: {kind.__doc__}"
        known = answers.setdefault(kind.status, {"model": ErrorBody, "description": text})
        if text not in known["description"]:
            known["description"] += f"\n\n{text}"
    return answers


BODY_ERRORS = (BadBodyError, UnknownModelError, TooLargeError, NotAPictureError, BadOptionError, NotReadyError)
PICTURE_ERRORS = (BadPictureError, *BODY_ERRORS, QueueFullError, ModelFailedError)


def create_routes(engine: Engine, settings: Settings) -> APIRouter:
    """The routes over ``engine``."""
    router = APIRouter()

    @router.post(
        "/predict",
        tags=["predict"],
        summary="Classify one picture and straighten it",
        response_model=Prediction,
        responses=errors(*PICTURE_ERRORS),
        openapi_extra=PICTURE_BODY,
    )
    async def predict(request: Request, options: Annotated[PredictOptions, Query()]) -> Response:
        model = engine.models.find(options.model, options.version)
        upload = await read_one(request, settings.max_bytes)
        prediction = await answer(engine, model, upload, options)
        return Response(prediction.model_dump_json(), media_type="application/json")

    @router.post(
        "/predict/batch",
        tags=["predict"],
        summary="Classify and straighten several pictures; each answers for itself",
        response_model=BatchPrediction,
        responses=errors(*BODY_ERRORS),
        openapi_extra=PICTURES_BODY,
    )
    async def predict_batch(request: Request, options: Annotated[PredictOptions, Query()]) -> Response:
        model = engine.models.find(options.model, options.version)
        uploads = await read_several(request, settings.max_batch_bytes, settings.max_pictures)

        async def answer_or_error(upload: Upload) -> Prediction | ErrorBody:
            try:
                if len(upload.data) > settings.max_bytes:
                    raise TooLargeError(f"the picture has more than {settings.max_bytes} bytes; scale it down")
                return await answer(engine, model, upload, options)
            except RequestError as error:
                return error_body(error)

        answers: list[asyncio.Task[Prediction | ErrorBody]] = []
        for position, upload in enumerate(uploads, start=1):
            answers.append(asyncio.create_task(answer_or_error(upload)))
            if position % PICTURES_A_TURN == 0:
                await asyncio.sleep(0)  # others have their turn before more pictures are decoded in place
        results = await asyncio.gather(*answers)
        return Response(BatchPrediction(results=results).model_dump_json(), media_type="application/json")

    @router.get("/models", tags=["models"], summary="What is served")
    async def models() -> ModelList:
        return ModelList(models=[describe(model) for model in engine.models])

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live", tags=["health"], summary="Is the process answering?")
    async def live() -> Status:
        return Status(status="live")

    @router.head("/health/ready", include_in_schema=False)
    @router.get(
        "/health/ready",
        tags=["health"],
        summary="Have all models answered their warm-up as they should?",
        responses=errors(NotReadyError),
    )
    async def ready() -> Status:
        if not engine.ready:
            raise NotReadyError("the service is shutting down")
        return Status(status="ready")

    return router


async def answer(engine: Engine, model: Model, upload: Upload, options: PredictOptions) -> Prediction:
    """One picture's answer in the form of the API."""
    started = time.perf_counter()
    found = await engine.predict(model, upload, None if options.rectified == "none" else options.rectified)
    first, *others = transforms = [describe_transform(transform) for transform in found.transforms]
    return Prediction(
        model=ModelReference(name=model.name, version=model.version),
        predictions=most_probable(found, options.top_k),
        theta=first.theta,
        corners=first.corners,
        rectified=first.rectified,
        transforms=transforms if others else None,
        batch_size=found.batch_size,
        timings_ms=Timings(
            **{name: round(value, 3) for name, value in found.timings._asdict().items()},
            total=round((time.perf_counter() - started) * 1000, 3),
        ),
    )


def most_probable(found: Answer, top_k: int) -> list[ClassPrediction]:
    """The ``top_k`` most probable classes, the first of equals first."""
    order = np.argsort(-found.probabilities, kind="stable")[:top_k]
    classes = found.model.manifest.classes
    return [
        ClassPrediction(label=classes[index], index=index, probability=found.probabilities[index].item())
        for index in order.tolist()
    ]


def describe_transform(transform: Straightened) -> TransformResult:
    """One transformer's result in the form of the API."""
    return TransformResult(
        name=transform.name,
        kind=transform.kind,
        theta=transform.theta.tolist(),
        parameters=transform.parameters.ravel().tolist(),
        corners=transform.corners.tolist(),
        rectified=describe_file(transform.rectified) if transform.rectified else None,
    )


def describe_file(encoded: Encoded) -> RectifiedImage:
    """A rectified image in the form of the API."""
    return RectifiedImage(
        format=encoded.format,
        width=encoded.width,
        height=encoded.height,
        data=base64.b64encode(encoded.data).decode(),
    )


def describe(model: Model) -> ModelInfo:
    """A model in the form of the API."""
    manifest = model.manifest
    return ModelInfo(
        name=model.name,
        version=model.version,
        runtime=manifest.runtime,
        device=model.device,
        classes=list(manifest.classes),
        input=InputInfo(**manifest.input.model_dump(include=set(InputInfo.model_fields))),
        transforms=[
            TransformInfo(**t.model_dump(include=set(TransformInfo.model_fields))) for t in manifest.transforms
        ],
        accuracy=AccuracyInfo(**manifest.accuracy.model_dump()),
    )


def error_body(error: RequestError) -> ErrorBody:
    """An error in the form of the API."""
    return ErrorBody(error=ErrorDetail(code=error.code, message=str(error)))
