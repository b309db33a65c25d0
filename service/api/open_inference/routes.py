"""The routes under /v2: health, metadata, configuration and statistics, and the description of inference."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from export.format.artifact import Tensor
from service import __version__
from service.api.errors import OpenInferenceRoute
from service.api.open_inference.infer import find_model
from service.api.open_inference.responses import DATATYPES
from service.api.open_inference.schemas import (
    BatchStatistics,
    ConfigTensor,
    Duration,
    DynamicBatching,
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    InferenceStatistics,
    InstanceGroup,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    QueuePolicy,
    Ready,
    ServerMetadata,
    Statistics,
    TensorMetadata,
)
from service.api.routes import BINARY, PICTURE_ERRORS, TimeoutHeader, check_live, check_ready, errors
from service.errors import ModelNotFoundError, NotReadyError, RequestError, UnsupportedEncodingError
from service.inference.registry import Model
from service.metrics.multiprocess import Figures
from service.metrics.recorder import labels
from service.middleware.auth import Access
from service.settings import Settings
from service.state import ServiceState

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
RUNTIMES = {"onnx": ("onnxruntime_onnx", "onnxruntime"), "torchscript": ("pytorch_libtorch", "pytorch")}
"""Triton's names of platform and backend."""
MODEL = "/v2/models/{name}"
MODEL_VERSION = "/v2/models/{name}/versions/{version}"
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "of the model"}
VERSION = NAME | {"name": "version", "description": "of the model; the default version if the path has none"}
JSON_LENGTH: dict[str, Any] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "bytes of JSON at the start of the body, before tensors; 0: the body is the tensor of one picture",
}
ENCODING: dict[str, Any] = {
    "name": "Content-Encoding",
    "in": "header",
    "schema": {"type": "string", "enum": ["gzip", "deflate"]},
    "description": "compression of the body",
}
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": BINARY}},
        "headers": {"Inference-Header-Content-Length": {k: JSON_LENGTH[k] for k in ("schema", "description")}},
    }
}


def create_open_inference_routes(state: ServiceState) -> APIRouter:
    """Create the routes, and the description of the one in `service.api.open_inference.infer`."""
    settings = state.settings
    tag = "Open Inference Protocol"
    open_router = APIRouter(tags=[tag], route_class=OpenInferenceRoute)
    router = APIRouter(tags=[tag], route_class=OpenInferenceRoute, **state.policy.requirement(Access.USER))

    async def requested(request: Request) -> Model:
        return find_model(state.engine.find, **request.path_params)

    RequestedModel = Annotated[Model, Depends(requested)]  # noqa: N806 - a type

    @router.get("/v2/", include_in_schema=False)
    @router.get("/v2", summary="The service and its protocol extensions")
    async def server_metadata() -> ServerMetadata:
        extensions = [*EXTENSIONS, *(["model_repository"] if settings.admin else [])]
        return ServerMetadata(name="stn-serve", version=__version__, extensions=extensions)

    @open_router.get(
        "/v2/health/live", summary="Whether the process answers and no model hangs", responses=failures(NotReadyError)
    )
    async def live() -> Live:
        check_live(state)
        return Live(live=True)

    @open_router.get(
        "/v2/health/ready",
        summary="Whether all models can answer",
        responses=failures(NotReadyError),
    )
    async def ready() -> Ready:
        check_ready(state)
        return Ready(ready=True)

    @router.get("/v2/models/stats", summary="Statistics of all models")
    async def all_statistics() -> Statistics:
        figures = state.metrics.figures()
        return Statistics(model_stats=[describe_statistics(model, figures) for model in state.engine.models])

    for path, parameters in (MODEL, [NAME]), (MODEL_VERSION, [NAME, VERSION]):
        about: dict[str, Any] = {"openapi_extra": {"parameters": parameters}}

        @router.get(path, summary="Inputs and outputs of a model", responses=failures(ModelNotFoundError), **about)
        async def model_metadata(model: RequestedModel) -> ModelMetadata:
            versions = sorted(other.version for other in state.engine.models if other.name == model.name)
            return describe_model(model, versions)

        @router.get(
            f"{path}/ready",
            summary="Whether a model can answer",
            responses=failures(ModelNotFoundError, NotReadyError),
            **about,
        )
        async def model_ready(model: RequestedModel) -> ModelReady:
            if not state.engine.serves(model):
                raise NotReadyError("the service is shutting down, or the model hangs")
            return ModelReady(name=model.name, ready=True)

        @router.get(f"{path}/config", summary="How a model runs", responses=failures(ModelNotFoundError), **about)
        async def model_config(model: RequestedModel) -> ModelConfig:
            return describe_config(model, settings)

        @router.get(f"{path}/stats", summary="Statistics of a model", responses=failures(ModelNotFoundError), **about)
        async def model_statistics(model: RequestedModel) -> Statistics:
            return Statistics(model_stats=[describe_statistics(model, state.metrics.figures())])

        @router.post(
            f"{path}/infer",
            summary="Inference of tensors or picture files",
            response_model=InferenceResponse,
            responses=BINARY_ANSWER | failures(*PICTURE_ERRORS, UnsupportedEncodingError),
            openapi_extra={
                "parameters": [*parameters, JSON_LENGTH, ENCODING],
                "requestBody": {"content": {"application/octet-stream": {"schema": BINARY}}},
            },
        )
        def infer(request: InferenceRequest, x_timeout_ms: TimeoutHeader = None) -> None:
            """One unusable picture fails the request. No Content-Type is required."""

    routes = APIRouter()
    routes.include_router(open_router)
    routes.include_router(router)
    return routes


def failures(*kinds: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route for the OpenAPI document."""
    return errors(*kinds, model=InferenceError)


def describe_model(model: Model, versions: list[int]) -> ModelMetadata:
    """Describe a model whose ``versions`` are served."""
    manifest = model.manifest
    return ModelMetadata(
        name=model.name,
        versions=list(map(str, versions)),
        platform=RUNTIMES[manifest.runtime][0],
        inputs=[describe_tensor(manifest.image())],
        outputs=[describe_tensor(tensor) for tensor in manifest.answers().values()],
    )


def describe_tensor(tensor: Tensor) -> TensorMetadata:
    """Describe an input or output for any number of pictures."""
    return TensorMetadata.model_validate(
        {"name": tensor.name, "datatype": DATATYPES[tensor.type], "shape": [-1, *tensor.shape]}
    )


def describe_config(model: Model, settings: Settings) -> ModelConfig:
    """Describe the configuration of a model in Triton's terms."""
    manifest = model.manifest
    platform, backend = RUNTIMES[manifest.runtime]
    policy = QueuePolicy(
        default_timeout_microseconds=settings.timeout_ms * 1000,
        max_queue_size=settings.max_queue,
    )
    return ModelConfig(
        name=model.name,
        platform=platform,
        backend=backend,
        max_batch_size=settings.max_batch,
        input=[describe_for_config(manifest.image())],
        output=[describe_for_config(tensor) for tensor in manifest.answers().values()],
        instance_group=[InstanceGroup(kind="KIND_CPU" if model.device == "cpu" else "KIND_GPU")],
        dynamic_batching=DynamicBatching(default_queue_policy=policy),
    )


def describe_for_config(tensor: Tensor) -> ConfigTensor:
    """Describe an input or output in Triton's terms."""
    return ConfigTensor(name=tensor.name, data_type=f"TYPE_{DATATYPES[tensor.type]}", dims=list(tensor.shape))


def describe_statistics(model: Model, figures: Figures) -> ModelStatistics:
    """Describe the statistics of a model in Triton's terms."""
    key = labels((model.name, model.version))
    queue_s, failures = figures.counts["inferred", *key]
    counted = [(int(found[-1]), vector) for found, vector in figures.counts.items() if found[:-1] == ("batch", *key)]
    ends_s = [vector[0] for found, vector in figures.gauges.items() if found[:-1] == ("last", *key)]
    pictures = int(sum(size * inferences for size, (inferences, _) in counted))
    inference_s = sum(size * seconds for size, (_, seconds) in counted)
    return ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=int(max(ends_s, default=0) * 1000),
        inference_count=pictures,
        execution_count=int(sum(inferences for _, (inferences, _) in counted)),
        inference_stats=InferenceStatistics(
            success=duration(pictures, queue_s + inference_s),
            fail=Duration(count=int(failures)),
            queue=duration(pictures, queue_s),
            compute_infer=duration(pictures, inference_s),
        ),
        batch_stats=[
            BatchStatistics(batch_size=size, compute_infer=duration(int(inferences), seconds))
            for size, (inferences, seconds) in sorted(counted)
        ],
    )


def duration(count: int, seconds: float) -> Duration:
    """Make a `Duration` from seconds."""
    return Duration(count=count, ns=round(seconds * 1e9))
