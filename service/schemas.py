"""What the service answers, as it stands in the OpenAPI document."""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Theta = Annotated[
    list[Annotated[list[float], Field(min_length=3, max_length=3)]],
    Field(
        min_length=2,
        max_length=2,
        description="maps rectified to uploaded coordinates, both normalised to [-1, 1] in the order (x, y), "
        "-1 and 1 being the outer edges of the border pixels (align_corners=False)",
        examples=[[[0.71, -0.12, 0.05], [0.12, 0.71, -0.2]]],
    ),
]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Corners = Annotated[
    list[Point],
    Field(
        min_length=4,
        max_length=4,
        description="of the region looked at, [x, y] in pixels of the uploaded picture (upright, as its EXIF "
        "orientation says), pixel centres at half-integers, clockwise from the rectified image's top left",
        examples=[[[4.2, 3.1], [30.6, 8.8], [25.0, 35.2], [-1.4, 29.5]]],
    ),
]
SampledPoints = Annotated[
    list[Point] | None,
    Field(
        exclude_if=lambda value: value is None,
        description="only when points were asked for: where that grid over the rectified image, row by row, lies in "
        "the uploaded picture, [x, y] in pixels as in corners; this is what a thin-plate spline bends",
    ),
]


class PredictOptions(BaseModel):
    """Options of a prediction, as query parameters."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(5, ge=1, le=1000, description="how many classes to answer with; all when there are fewer")
    rectified: Literal["png", "jpeg", "none"] = Field("png", description="how to encode the rectified image")
    points: int = Field(
        0,
        ge=0,
        le=64,
        description="answer with where a grid of points x points, edge to edge, was sampled; 0: do not",
    )
    model: str | None = Field(None, description="name of the model; the service's default one when left out")
    version: int | None = Field(None, ge=1, description="version of the model; its default one when left out")


class ModelReference(BaseModel):
    """The model that answered."""

    name: str
    version: int


class ClassPrediction(BaseModel):
    """One class and how probable it is."""

    label: str
    index: int
    probability: float


class RectifiedImage(BaseModel):
    """The rectified image as a file."""

    format: Literal["png", "jpeg"]
    width: int
    height: int
    data: str = Field(description="the file, as base64")

    def content(self) -> bytes:
        """The file."""
        return base64.b64decode(self.data)


class TransformResult(BaseModel):
    """What one spatial transformer of the model did."""

    name: str
    kind: str = Field(examples=["affine"])
    theta: Theta
    parameters: list[float] = Field(description="all parameters of the transformer, flat")
    corners: Corners
    rectified: RectifiedImage | None
    points: SampledPoints = None


class Timings(BaseModel):
    """Where the time went, in milliseconds."""

    decode: float = Field(description="reading the picture and fitting it to the model")
    queue: float = Field(description="waiting for the inference to begin")
    inference: float = Field(description="the inference that this picture shared with batch_size - 1 others")
    encode: float = Field(description="encoding the rectified images")
    total: float = Field(description="from the arrival of the whole body to the answer")


class Prediction(BaseModel):
    """The answer for one picture."""

    model: ModelReference
    predictions: list[ClassPrediction] = Field(description="the most probable classes, most probable first")
    theta: Theta
    corners: Corners
    rectified: RectifiedImage | None = Field(description="null when rectified=none was asked for")
    points: SampledPoints = None
    transforms: list[TransformResult] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="every transformer, only when the model has more than one; the fields above are of the one "
        "whose image the classifier reads, the last look of the first branch",
    )
    batch_size: int = Field(description="how many pictures shared the inference")
    timings_ms: Timings


class ErrorDetail(BaseModel):
    """What is wrong and what to do about it."""

    code: str = Field(examples=["invalid_image"])
    message: str = Field(examples=["the PNG picture is damaged or cut short (...); send it again whole"])


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class BatchPrediction(BaseModel):
    """An answer or an error for each picture, in the order in which they were sent."""

    results: list[Prediction | ErrorBody]


class Status(BaseModel):
    """State of the service."""

    status: Literal["live", "ready"]


class InputInfo(BaseModel):
    """What the model works on; pictures of any size are fitted to it."""

    width: int
    height: int
    channels: int = Field(description="1 grey, 3 RGB")
    resize: str


class TransformInfo(BaseModel):
    """A spatial transformer of a model."""

    name: str
    kind: str
    width: int = Field(description="of its rectified image")
    height: int


class AccuracyInfo(BaseModel):
    """How good the model is, on pictures it was not trained on."""

    dataset: str
    pictures: int
    accuracy: float


class ModelInfo(BaseModel):
    """A version of a model."""

    name: str
    version: int
    default: bool = Field(description="whether it answers requests for the model that name no version")
    runtime: str = Field(examples=["onnx"])
    device: str = Field(examples=["cpu"])
    classes: list[str]
    input: InputInfo
    transforms: list[TransformInfo]
    temperature: float = Field(description="by what it divides logits to be calibrated; 1 where it does not")
    accuracy: AccuracyInfo


class ModelState(BaseModel):
    """A version of a model that is not served at present."""

    name: str
    version: int
    state: Literal["LOADING", "UNLOADING", "UNAVAILABLE"]


class ModelList(BaseModel):
    """Every version of every model."""

    models: list[ModelInfo] = Field(description="those that are served")
    not_served: list[ModelState] = Field(description="those that come, go or could not be loaded")
