"""Schemas of the options of predictions."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

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

    top_k: int = Field(
        5,
        ge=1,
        le=1000,
        description="number of classes in the response; all if there are fewer; at most 100 sequences",
    )
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
