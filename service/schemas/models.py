"""Schemas of what the service says of itself and its models."""

from typing import Literal

from pydantic import BaseModel, Field


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
    accuracy: float = Field(description="of sequences, that of their objects")


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
    sequence: int | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="number of objects in a picture, only if the model reads sequences",
    )
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
