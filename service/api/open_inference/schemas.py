"""Schemas of the Open Inference Protocol for the OpenAPI document.

Fields that the protocol leaves open are described. Unsupported fields of the protocol are ignored in requests.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Datatype = Literal["UINT8", "FP32", "BYTES"]
Shape = Annotated[
    list[int], Field(description="-1 for a variable size: the number of pictures", examples=[[-1, 42, 42, 1]])
]
Side = Annotated[int, Field(ge=0)]
Parameters = dict[str, Any]


def absent(value: Any) -> bool:
    """Whether a field is omitted from a response."""
    return value is None


class InferenceError(BaseModel):
    """Every error response under /v2."""

    error: str = Field(examples=["no model is called 'digit'; there are: digits, signs"])


class Live(BaseModel):
    """Whether the process answers."""

    live: Literal[True]


class Ready(BaseModel):
    """Whether all models answer."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: Literal[True]


class ServerMetadata(BaseModel):
    """The service and its protocol extensions."""

    name: str = Field(examples=["stn-serve"])
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data", "classification"]])


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: Datatype
    shape: Shape


class ModelMetadata(BaseModel):
    """The inputs and outputs of a model."""

    name: str
    versions: list[str] = Field(description="the served versions")
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata] = Field(
        description="the input also accepts picture files of any size: datatype BYTES, shape [N]"
    )
    outputs: list[TensorMetadata]


class ConfigTensor(BaseModel):
    """An input or output in Triton's terms."""

    name: str
    data_type: str = Field(examples=["TYPE_UINT8"])
    dims: list[int] = Field(description="without the batch axis")


class QueuePolicy(BaseModel):
    """Treatment of requests that wait."""

    timeout_action: Literal["REJECT"] = "REJECT"
    default_timeout_microseconds: int
    allow_timeout_override: Literal[True] = True
    max_queue_size: int


class DynamicBatching(BaseModel):
    """Pictures that wait during an inference are the next batch. There is no delay."""

    max_queue_delay_microseconds: Literal[0] = 0
    default_queue_policy: QueuePolicy


class InstanceGroup(BaseModel):
    """The device of a model."""

    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: Literal[1] = 1


class ModelConfig(BaseModel):
    """A model's configuration, in the form of Triton's model configuration extension."""

    name: str
    platform: str
    backend: str = Field(examples=["onnxruntime"])
    max_batch_size: int = Field(description="maximum pictures in one inference; a request may have more")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    instance_group: list[InstanceGroup]
    dynamic_batching: DynamicBatching


class Duration(BaseModel):
    """A count and a total duration."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(BaseModel):
    """A picture counts as one request, with the duration of its whole inference."""

    success: Duration = Field(description="from the queue to the end of the inference")
    fail: Duration = Field(description="failed inferences; their duration is not measured")
    queue: Duration
    compute_input: Duration = Field(Duration(), description="not measured apart")
    compute_infer: Duration
    compute_output: Duration = Field(Duration(), description="not measured apart")
    cache_hit: Duration = Field(Duration(), description="there is no cache")
    cache_miss: Duration = Field(Duration(), description="there is no cache")


class BatchStatistics(BaseModel):
    """The inferences of one batch size."""

    batch_size: int
    compute_input: Duration = Field(Duration(), description="not measured apart")
    compute_infer: Duration
    compute_output: Duration = Field(Duration(), description="not measured apart")


class ModelStatistics(BaseModel):
    """Statistics of one version of a model since the start of the service, over all workers."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0 before the first")
    inference_count: int = Field(description="pictures")
    execution_count: int = Field(description="inferences; the mean batch is inference_count / execution_count")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    """Statistics in the form of Triton's extension."""

    model_stats: list[ModelStatistics]


class RequestInput(BaseModel):
    """The pictures: UINT8 [N, height, width, channels] of the input of the model, or BYTES [N], each a file."""

    name: str = Field(examples=["image"])
    shape: list[Side] = Field(examples=[[1]])
    datatype: str = Field(examples=["BYTES"])
    parameters: Parameters = Field({}, description="`binary_data_size`: bytes behind the JSON instead of `data`")
    data: Any = Field(None, description="numbers, nested or flat, row-major; for BYTES: base64 or data URLs")


class RequestOutput(BaseModel):
    """A requested output."""

    name: str = Field(examples=["probabilities"])
    parameters: Parameters = Field(
        {},
        description="`binary_data`: return bytes behind the JSON; `classification`: number of best classes to "
        "return as `value:index:label`; of the output `rectified_source`: `rectified`, `rectified_size`, `padding` and "
        "`margin`, as for POST /rectify",
    )


class InferenceRequest(BaseModel):
    """An inference request."""

    id: str | None = Field(None, description="returned unchanged")
    parameters: Parameters = Field(
        {},
        description="`binary_data_output`: return all outputs as bytes by default; `timeout`: microseconds to the "
        "response, else 504; `reliability`, `views` and `angle_hint`, as for POST /predict; `region`: its regions, "
        "separated by semicolons",
    )
    inputs: list[RequestInput]
    outputs: list[RequestOutput] = Field(
        [],
        description="all of the model if omitted; others are `rectified_source`, and `reliability` with that parameter",
    )


class ResponseOutput(BaseModel):
    """An output."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = Field(
        None, exclude_if=absent, description="`binary_data_size`: bytes behind the JSON instead of `data`"
    )
    data: list[Any] | None = Field(None, exclude_if=absent, description="flat, row-major")


class InferenceResponse(BaseModel):
    """An inference response."""

    model_name: str
    model_version: str
    id: str | None = Field(None, exclude_if=absent, description="the id of the request")
    outputs: list[ResponseOutput]
