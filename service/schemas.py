"""Schemas of the responses, for the OpenAPI document and the client."""

import base64
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

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


LEAST_VIEWS, MOST_VIEWS = 4, 16


def check_views(count: int) -> int:
    """Return a number of views.

    Raises:
        ValueError: there are too few or too many.
    """
    if count and not LEAST_VIEWS <= count <= MOST_VIEWS:
        raise ValueError(f"it must be 0, or from {LEAST_VIEWS} to {MOST_VIEWS}")
    return count


ViewCount = Annotated[int, AfterValidator(check_views), Field(ge=0, le=MOST_VIEWS)]
Padding = Literal["black", "white", "edge", "transparent"]
MODEL_SIZE = "model"
SIZE = r"^(model|source|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
SIZE_TEXT = (
    "size of the rectified image: model (as the classifier reads it), source (sampled from the uploaded picture, with"
    " as many pixels as the region has there), or height x width like 600x800 (sampled from it too)"
)


MAX_REGIONS = 256
"""Regions of one request."""
FARTHEST = 1e6
"""The largest coordinate of a region, in pixels."""
SIDES = 4
NUMBER = r"-?[0-9]{1,7}([.][0-9]{1,20})?(e[+-]?[0-9]{1,2})?"


def read_region(text: object) -> tuple[float, ...]:
    """Read ``x1,y1,x2,y2``.

    Raises:
        ValueError: these are no numbers, or there are no pixels between them.
    """
    parts = text.split(",", SIDES) if isinstance(text, str) else []
    sides = tuple(float(part) for part in parts if re.fullmatch(NUMBER, part))
    if not len(sides) == len(parts) == SIDES or any(abs(side) > FARTHEST for side in sides):
        raise ValueError("a region is left, top, right and bottom in pixels of the picture, like 40,30,200,180")
    left, top, right, bottom = sides
    if left >= right or top >= bottom:
        raise ValueError("a region is x1,y1,x2,y2 with x1 < x2 and y1 < y2; this one is empty or inverted")
    return sides


Region = Annotated[
    tuple[float, float, float, float],
    BeforeValidator(read_region),
    WithJsonSchema({"type": "string", "pattern": f"^{NUMBER}(,{NUMBER}){{3}}$", "examples": ["40,30,200,180"]}),
]


class AnswerOptions(BaseModel):
    """Options of every prediction, as query parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_k: int = Field(5, ge=1, le=1000, description="number of classes in the response; all if there are fewer")
    rectified_size: str = Field(
        MODEL_SIZE,
        pattern=SIZE,
        description=SIZE_TEXT,
    )
    padding: Padding = Field(
        "black",
        description="what the rectified image shows outside of the picture, if it is sampled from it; edge repeats the"
        " pixels at the border; transparent is for png and webp",
    )
    margin: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="surroundings of the region to show on each side, in shares of its width and height, if the image"
        " is sampled from the picture",
    )
    reliability: ViewCount = Field(
        0,
        description=f"{LEAST_VIEWS} to {MOST_VIEWS} to say how far to trust the answer: as many views of the picture,"
        " turned, scaled and shifted by known amounts, are inferred with it; 0 says nothing",
    )
    views: ViewCount = Field(
        0,
        description=f"{LEAST_VIEWS} to {MOST_VIEWS} to average the probabilities over the picture and as many such"
        " views of it; 0 averages nothing",
    )
    points: int = Field(
        0,
        ge=0,
        le=64,
        description="side of a grid of points, edge to edge, whose sampled positions are returned; 0 returns none",
    )
    region: tuple[Region, ...] = Field(
        (),
        max_length=MAX_REGIONS,
        description="x1,y1,x2,y2 in pixels of the uploaded picture, upright; the model is shown only what lies in"
        " between, and the answer is one for each region; repeat it for several regions",
    )
    angle_hint: float = Field(
        0.0,
        ge=-180,
        le=180,
        allow_inf_nan=False,
        description="degrees, clockwise as seen, by which the thing is known to be turned, roughly; the model is shown"
        " the picture or region turned back by them, and the answer refers to the uploaded picture all the same",
    )
    model: str | None = Field(None, description="name of the model; the default model if omitted")
    version: int | None = Field(None, ge=1, description="version of the model; its default version if omitted")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.rectified_size == MODEL_SIZE and (self.padding != "black" or self.margin):
            raise ValueError("padding and margin need rectified_size=source or HEIGHTxWIDTH")
        if getattr(self, "rectified", None) == "jpeg" and self.padding == "transparent":
            raise ValueError("JPEG files cannot be transparent; choose rectified=png or webp")
        return self


class PredictOptions(AnswerOptions):
    """Options of a prediction, as query parameters."""

    rectified: Literal["png", "jpeg", "webp", "none"] = Field("png", description="encoding of the rectified image")


class RectifyOptions(AnswerOptions):
    """Options of a rectified picture, as query parameters."""

    rectified: Literal["png", "jpeg", "webp"] | None = Field(
        None,
        description="encoding of the picture, if the header Accept allows several; that of the uploaded picture if"
        " omitted, where it is one of these",
    )
    rectified_size: str = Field(
        "source",
        pattern=SIZE,
        description=SIZE_TEXT,
    )


class ModelReference(BaseModel):
    """The model that answered."""

    name: str
    version: int


class ClassPrediction(BaseModel):
    """A class and its probability."""

    label: str
    index: int
    probability: float


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
    predictions: list[ClassPrediction] = Field(description="the most probable classes by falling probability")
    theta: Theta
    corners: Corners
    rectified: RectifiedImage | None = Field(description="null with rectified=none")
    points: SampledPoints = None
    transforms: list[TransformResult] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="every transformer, only if the model has several; the fields above belong to the one whose image "
        "the classifier reads, the last transform of the first branch",
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


class Status(BaseModel):
    """State of the service."""

    status: Literal["live", "ready"]


class InputInfo(BaseModel):
    """The input of the model, to which pictures of any size are resized."""

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
    """Accuracy of the model on test pictures."""

    dataset: str
    pictures: int
    accuracy: float


class ChangeInfo(BaseModel):
    """A known change of the same pictures, as deviations within a picture."""

    given: float
    left: float = Field(description="what is left of it in the rectified images")


class WorthInfo(BaseModel):
    """What the transformers of a model are worth on its test pictures."""

    pictures: int
    accuracy: float
    mean_theta: float = Field(description="accuracy with theta replaced by its mean over the pictures")
    identity: float = Field(description="accuracy with theta replaced by the identity")
    decoration: bool = Field(description="whether the classifier is as accurate without the transformers")
    turn_deg: ChangeInfo | None = Field(description="deviation of the angle in degrees")
    shift: ChangeInfo | None = Field(description="deviation of the position as a share of the picture's sides")
    size: ChangeInfo | None = Field(description="deviation of the size as a factor; 1 is none")


class ModelInfo(BaseModel):
    """A version of a model."""

    name: str
    version: int
    default: bool = Field(description="whether it is the default version of its name")
    runtime: str = Field(examples=["onnx"])
    device: str = Field(examples=["cpu"])
    task: Literal["classification", "features"] = Field(
        description="features: not a classifier; POST /v2/models/NAME/infer returns its raw outputs"
    )
    classes: list[str] = Field(description="empty if the model is not a classifier")
    input: InputInfo
    transforms: list[TransformInfo]
    temperature: float = Field(description="divisor of the logits, for calibration; 1 without calibration")
    accuracy: AccuracyInfo | None = Field(description="null if it was not measured, as for adopted networks")
    worth: WorthInfo | None = Field(None, description="null if it was not measured when the model was exported")
    digest: str = Field("", description="SHA-256 of the manifest, which holds the checksums of all files")
    signed_by: str | None = Field(None, description="SHA-256 of the key that verified it; null without STN_VERIFY_KEY")


class ModelState(BaseModel):
    """A version of a model that is not served."""

    name: str
    version: int
    state: Literal["LOADING", "UNLOADING", "UNAVAILABLE"]


class ModelList(BaseModel):
    """Every version of every model."""

    models: list[ModelInfo] = Field(description="the served versions")
    not_served: list[ModelState] = Field(description="versions that are loading, unloading or could not be loaded")
