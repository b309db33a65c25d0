"""What the Open Inference Protocol sends and answers, as it stands in the OpenAPI document.

Fields of ours that the protocol leaves open are described; those that it knows and we do not are ignored when sent.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Datatype = Literal["UINT8", "FP32", "BYTES"]
Shape = Annotated[
    list[int], Field(description="-1 where it may vary: the number of pictures", examples=[[-1, 42, 42, 1]])
]
Side = Annotated[int, Field(ge=0)]
Parameters = dict[str, Any]


def absent(value: Any) -> bool:
    """Whether a field is left out of an answer."""
    return value is None


class InferenceError(BaseModel):
    """Every answer under /v2 that is not a success."""

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
    """The service, and what it knows beyond the protocol's core."""

    name: str = Field(examples=["stn-serve"])
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data", "classification"]])


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: Datatype
    shape: Shape


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str] = Field(description="all that are served")
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata] = Field(
        description="the input takes encoded pictures too: datatype BYTES, shape [N], each element a file of any size"
    )
    outputs: list[TensorMetadata]


class ConfigTensor(BaseModel):
    """An input or output in Triton's words."""

    name: str
    data_type: str = Field(examples=["TYPE_UINT8"])
    dims: list[int] = Field(description="without the batch axis")


class QueuePolicy(BaseModel):
    """What becomes of requests that have to wait."""

    timeout_action: Literal["REJECT"] = "REJECT"
    default_timeout_microseconds: int
    allow_timeout_override: Literal[True] = True
    max_queue_size: int


class DynamicBatching(BaseModel):
    """What waits while an inference runs is the next batch; nobody waits for others."""

    max_queue_delay_microseconds: Literal[0] = 0
    default_queue_policy: QueuePolicy


class InstanceGroup(BaseModel):
    """Where a model runs."""

    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: Literal[1] = 1


class ModelConfig(BaseModel):
    """A model's configuration, in the form of Triton's model configuration extension."""

    name: str
    platform: str
    backend: str = Field(examples=["onnxruntime"])
    max_batch_size: int = Field(description="most pictures in one inference; a request may hold more")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    instance_group: list[InstanceGroup]
    dynamic_batching: DynamicBatching


class Duration(BaseModel):
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(BaseModel):
    """A picture counts as one request, with the time of the whole inference that it was part of."""

    success: Duration = Field(description="from the queue to the end of the inference")
    fail: Duration = Field(description="of inferences that raised an error; how long they took is not measured")
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
    """What one version of a model has done since the service began, in all of its workers."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0 before the first")
    inference_count: int = Field(description="pictures")
    execution_count: int = Field(description="inferences; the mean batch is inference_count / execution_count")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    """In the form of Triton's statistics extension."""

    model_stats: list[ModelStatistics]


class RequestInput(BaseModel):
    """The pictures: the tensor UINT8 [N, height, width, channels] that the model takes, or BYTES [N], each a file."""

    name: str = Field(examples=["image"])
    shape: list[Side] = Field(examples=[[1]])
    datatype: str = Field(examples=["BYTES"])
    parameters: Parameters = Field({}, description="`binary_data_size`: bytes behind the JSON, in place of `data`")
    data: Any = Field(None, description="numbers, nested or flat, row-major; of BYTES: base64 or data URLs")


class RequestOutput(BaseModel):
    """An output that is asked for."""

    name: str = Field(examples=["probabilities"])
    parameters: Parameters = Field(
        {},
        description="`binary_data`: as bytes behind the JSON; `classification`: that many of the best classes, "
        "as `value:index:label`",
    )


class InferenceRequest(BaseModel):
    """A request for inference."""

    id: str | None = Field(None, description="returned as it is")
    parameters: Parameters = Field(
        {},
        description="`binary_data_output`: all outputs as bytes unless they say otherwise; `timeout`: microseconds "
        "that the answer may take, else 504",
    )
    inputs: list[RequestInput]
    outputs: list[RequestOutput] = Field([], description="all when left out")


class ResponseOutput(BaseModel):
    """An output."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = Field(
        None, exclude_if=absent, description="`binary_data_size`: bytes behind the JSON, in place of `data`"
    )
    data: list[Any] | None = Field(None, exclude_if=absent, description="flat, row-major")


class InferenceResponse(BaseModel):
    """The answer to a request for inference."""

    model_name: str
    model_version: str
    id: str | None = Field(None, exclude_if=absent, description="as it was sent")
    outputs: list[ResponseOutput]
