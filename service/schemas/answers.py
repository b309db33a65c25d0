"""Schemas of predictions and errors."""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, Field

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
        description="corners of the sampled region, [x, y] in pixels of the uploaded picture (upright, as its EXIF "
        "orientation says), pixel centres at half-integers, clockwise from the rectified image's top left",
        examples=[[[4.2, 3.1], [30.6, 8.8], [25.0, 35.2], [-1.4, 29.5]]],
    ),
]
SampledPoints = Annotated[
    list[Point] | None,
    Field(
        exclude_if=lambda value: value is None,
        description="only if points were requested: the position in the uploaded picture of each grid point, row by "
        "row, [x, y] in pixels as in corners; it shows the bending of a thin-plate spline",
    ),
]


class ModelReference(BaseModel):
    """The model that answered."""

    name: str
    version: int


class ClassPrediction(BaseModel):
    """A class and its probability."""

    label: str
    index: int
    probability: float


class ObjectPrediction(BaseModel):
    """The answer for one object of a sequence."""

    predictions: list[ClassPrediction] = Field(description="the most probable classes by falling probability")


class RectifiedImage(BaseModel):
    """The rectified image as a file."""

    format: Literal["png", "jpeg", "webp"]
    width: int
    height: int
    data: str = Field(description="the file, as base64")

    def content(self) -> bytes:
        """The file."""
        return base64.b64decode(self.data)


class TransformResult(BaseModel):
    """The result of one spatial transformer of the model."""

    name: str
    kind: str = Field(examples=["affine"])
    theta: Theta
    parameters: list[float] = Field(
        description="all parameters of the transformer, flat; with a region or an angle_hint they refer to what the"
        " model was shown"
    )
    corners: Corners
    rectified: RectifiedImage | None
    points: SampledPoints = None


class Reliability(BaseModel):
    """How far class and corners of a picture follow known changes of it, as they must."""

    views: int = Field(description="number of changed views of the picture")
    label_agreement: float = Field(description="share of the views in which the answered class is the most probable")
    corner_deviation_px: float = Field(
        description="mean distance of the corners from those found in the views, in pixels of the uploaded picture"
    )
    angle_deviation_deg: float = Field(description="mean difference of the angle from those found in the views")
    angle: Literal["follows", "cannot tell"] = Field(description="cannot tell: it does not follow turns; it has no up")
    score: float | None = Field(
        description="probability that the corners are right: on average within within_px of where they belong; null if "
        "the angle cannot be told, or the model was not calibrated"
    )
    within_px: float | None = Field(description="that distance in pixels of the uploaded picture")
    second_look: bool = Field(False, description="whether corners are those of a second look; the score is the first's")


class Timings(BaseModel):
    """Durations in milliseconds."""

    decode: float = Field(
        description="decoding and preprocessing the picture; an equal share of it for each of several regions"
    )
    queue: float = Field(description="waiting for the inference")
    inference: float = Field(description="the inference, which this picture shared with batch_size - 1 others")
    encode: float = Field(description="sampling and encoding the rectified images")
    total: float = Field(description="from the arrival of the complete body to the response")


class Prediction(BaseModel):
    """The answer for one picture."""

    model: ModelReference
    predictions: list[ClassPrediction] = Field(
        description="the most probable classes by falling probability; of a model that reads sequences, the most "
        "probable sequences: label has the classes of all objects, separated by spaces, index is their number with the "
        "classes as digits, and probability that all are right"
    )
    sequence: list[ObjectPrediction] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="each object from left to right, only if the model reads sequences; if it has a crop for each, "
        "transforms are in the same order",
    )
    theta: Theta
    corners: Corners
    rectified: RectifiedImage | None = Field(description="null with rectified=none")
    points: SampledPoints = None
    transforms: list[TransformResult] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="every transformer, only if the model has several; the fields above belong to the one whose image "
        "the classifier reads, the last transform of the first branch, which is that of a sequence's first object",
    )
    region: Annotated[list[int], Field(min_length=4, max_length=4)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="only if regions were requested: the pixels that the model was shown, as x1, y1, x2, y2; theta,"
        " corners and points refer to the whole picture, the other parameters to what the model was shown",
    )
    reliability: Reliability | None = Field(
        None, exclude_if=lambda value: value is None, description="only if it was requested"
    )
    batch_size: int = Field(description="number of pictures and views in the inference")
    timings_ms: Timings


class RegionPredictions(BaseModel):
    """The answers for the regions of one picture, in the order in which they were requested."""

    regions: list[Prediction]


class ErrorDetail(BaseModel):
    """The problem and its cure."""

    code: str = Field(examples=["invalid_image"])
    message: str = Field(examples=["the PNG picture is damaged or truncated (...); send the complete file"])


class ErrorBody(BaseModel):
    """Every error response."""

    error: ErrorDetail


class BatchPrediction(BaseModel):
    """An answer or an error for each picture, in the order in which they were sent."""

    results: list[Prediction | ErrorBody]


class BatchRegionPredictions(BaseModel):
    """The answers for the same regions of each picture, or an error, in the order in which they were sent."""

    results: list[RegionPredictions | ErrorBody]
