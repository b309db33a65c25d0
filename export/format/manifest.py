"""The manifest: the description of an artifact. docs/extend/ has the JSON Schema of each format version.

`export.format.reading` reads the current format and all older ones.
"""

import math
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION: Final = 3
MODEL_FILES: Final = {"onnx": "model.onnx", "torchscript": "model.pt", "program": "model.pt2"}
Convention = Literal["theta maps output to input coordinates; normalised to [-1, 1], (x, y), align_corners=False"]
CONVENTION: Final[Convention] = get_args(Convention)[0]
RuntimeName = Literal["onnx", "torchscript", "program"]
Precision = Literal["float32", "float16", "int8"]
Task = Literal["classification", "features"]
NO_TRANSFORMER: Final = "none"
SMALLEST_DEVIATION, LARGEST_DEVIATION = 1e-4, 100.0
"""The range of deviations of reliability. Beyond it, all are equal."""
INDICES = 2**63
"""Numbers that an index of 64 bits can tell apart."""
Quantity = Literal["rotation", "scale", "shift_x", "shift_y", "outside", "confidence", "classes"]
Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=4096)]
"""A side of a picture in pixels. A manifest with a larger one is damaged or malicious."""
Gap = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(max_length=1000)]


class Document(BaseModel):
    """Base class of the manifest's parts: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ImageInput(Document):
    """The model's input, and how pictures are converted to it."""

    name: Text
    """Name of the model's input, uint8 (N, height, width, channels)."""
    height: Side
    width: Side
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma). 3: RGB."""
    resize: Literal["bilinear"]
    """Resized to height x width by an anti-aliased bilinear filter; the aspect ratio is not kept."""
    background: tuple[Annotated[int, Field(ge=0, le=255)], ...]
    """Background colour behind transparent pixels, one number per channel."""


class Sampling(Document):
    """How an adopted network builds its grid and samples; theta is converted from there to the convention."""

    grid: Literal["affine_grid", "by hand"]
    """How the network builds its grid. Theta is fitted to a grid built by hand, which it explains exactly."""
    grid_align_corners: bool
    """Whether the network's own theta refers to the centres of the border pixels; false for a grid built by hand."""
    align_corners: bool
    """Whether the network's own grid does."""
    mode: Literal["bilinear", "nearest", "bicubic"]
    padding: Literal["zeros", "border", "reflection"]


class Transform(Document):
    """One spatial transformer of the model, and the names of its outputs."""

    name: Text
    kind: Text
    """`none` in a model without a transformer: its theta is the identity, and its rectified image the whole picture."""
    branch: Positive
    """Number of the parallel branch, from 1."""
    step: Positive
    """Number of the step within its branch, from 1; each step transforms the output of the previous one."""
    reads: Literal["picture", "features"]
    """Whether it transforms the picture or the classifier's features; its outputs always refer to the picture."""
    theta: Text
    """float32 (N, 2, 3): the affine map from the rectified image to the picture, or its best affine fit."""
    parameters: Text
    """float32 (N, rows, columns): all parameters of the transformer; the same output as theta if theta is complete."""
    parameters_shape: tuple[Annotated[int, Field(gt=0, le=1024)], Annotated[int, Field(gt=0, le=1024)]]
    """Rows and columns."""
    rectified: Text
    """uint8 (N, height, width, channels): the rectified image."""
    height: Side
    """Height of the rectified image in pixels."""
    width: Side
    sampling: Sampling | None = None
    """None for networks that were trained by this project."""


class Feature(Document):
    """A raw output of a network that is not a classifier: float32 (N, *shape)."""

    name: Text
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(max_length=8)]


class Accuracy(Document):
    """Test accuracy of the model; of sequences, that of their objects."""

    dataset: Text
    pictures: Positive
    accuracy: Annotated[float, Field(ge=0, le=1)]


class Change(Document):
    """A known change of the same test pictures, as deviations within a picture."""

    given: Annotated[float, Field(ge=0)]
    left: Annotated[float, Field(ge=0)]
    """What is left of it in the rectified images; equal to ``given`` if theta is the same for all pictures."""


class Worth(Document):
    """What the transformers are worth, measured on the test pictures with the trained network in float32."""

    pictures: Positive
    accuracy: Annotated[float, Field(ge=0, le=1)]
    mean_theta: Annotated[float, Field(ge=0, le=1)]
    """Accuracy with theta replaced by its mean over the pictures."""
    identity: Annotated[float, Field(ge=0, le=1)]
    """Accuracy with theta replaced by the identity."""
    decoration: bool
    """Whether the classifier is as accurate without the transformers."""
    turn_deg: Change | None = None
    """Deviation of the angle in degrees."""
    shift: Change | None = None
    """Deviation of the position as a share of the picture's sides."""
    size: Change | None = None
    """Deviation of the size as a factor; 1 is none."""


class Parity(Document):
    """Largest differences from the PyTorch model in float32, measured at export."""

    probabilities: Gap
    parameters: Gap
    """Largest difference of theta and of the transformers' parameters."""
    rectified: Annotated[int, Field(ge=0)]
    """Largest difference of the rectified images in grey levels."""
    within_one_level: Annotated[float, Field(ge=0, le=1)]
    """Share of the rectified images' pixels that differ by at most one grey level."""
    rounding_probabilities: Gap | None = None
    """Largest difference between the PyTorch model in float32 and in float64; None if it was not measured."""
    rounding_parameters: Gap | None = None


class Tolerance(Document):
    """Largest allowed differences from the recorded outputs for the golden pictures, on any device."""

    probabilities: Gap
    parameters: Gap
    rectified: Annotated[int, Field(ge=0)]
    """Largest allowed difference of the rectified images in grey levels."""


class Price(Document):
    """Cost and benefit of a lower precision, compared with the same model in float32."""

    accuracy_before: Annotated[float, Field(ge=0, le=1)]
    """Accuracy of the float32 model on the same test pictures; `Accuracy` has that of this model."""
    probabilities: Gap
    """Largest difference of a probability on the test pictures."""
    corners_px: Gap
    """Largest displacement of a corner of the rectified region, in pixels of the input."""
    corners_mean_px: Gap
    bytes_before: Positive
    """Size of the float32 model file."""
    speed: Annotated[float, Field(gt=0)]
    """Speed relative to the float32 model, on the CPU that exported it."""
    speed_batch: Positive
    """Batch size at which the speed was measured."""


class Reliability(Document):
    """The probability that the corners of a picture are right, by how far they follow known changes of the picture."""

    dataset: Text
    """The validation pictures on which it was fitted."""
    pictures: Positive
    views: Positive
    """Number of changed views of each picture."""
    within: Annotated[float, Field(gt=0)]
    """Largest mean distance of right corners from the true ones, as a share of the side of the true region."""
    intercept: Annotated[float, Field(ge=-100, le=100)]
    slope: Annotated[float, Field(ge=-50, le=0)]
    """The probability is the logistic function of intercept + slope * ln(deviation). The deviation is the mean distance
    of the corners from those in the views, as a share of the side of a square as large as the region."""

    def score(self, deviation: float) -> float:
        """Return the probability that the corners are right."""
        logit = self.intercept + self.slope * math.log(min(max(deviation, SMALLEST_DEVIATION), LARGEST_DEVIATION))
        return 1 / (1 + math.exp(-logit))


class Distribution(Document):
    """The distribution of one quantity over pictures: the share of the pictures in each bin."""

    transform: Text
    """Name of the transformer; empty for `confidence` and `classes`."""
    quantity: Quantity
    edges: Annotated[tuple[float, ...], Field(min_length=1, max_length=100)]
    """Upper edges of all bins but the last, in rising order; a value on an edge belongs to the lower bin."""
    shares: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2, max_length=101)]
    mean: float

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("there must be one more share than edges")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must rise")
        return self


class Reference(Document):
    """Distributions over the validation pictures, with which the service compares its traffic to detect drift."""

    dataset: Text
    pictures: Positive
    distributions: Annotated[tuple[Distribution, ...], Field(max_length=1000)]


class FileRecord(Document):
    """A file of the artifact."""

    bytes: Positive
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Tensor(NamedTuple):
    """An input or output of the model, without the batch axis."""

    name: str
    type: Literal["uint8", "float32"]
    shape: tuple[int, ...]


class Manifest(Document):
    """The content of ``manifest.json``, which the model file contains too."""

    format_version: Literal[3] = FORMAT_VERSION
    convention: Convention = CONVENTION
    created: datetime
    runtime: RuntimeName
    opset: Positive | None
    """ONNX opset; None for other runtimes."""
    precision: Precision
    """Precision of localisation and classifier; sampler and grid always compute in float32."""
    task: Task = "classification"
    """Whether the model returns class probabilities, or raw outputs (`features`) instead."""
    classes: Annotated[tuple[Text, ...], Field(max_length=100_000)]
    """One or more, or none if the task is not classification. A straightener has a single one."""
    input: ImageInput
    outputs: tuple[Text, ...]
    """Names in the order in which the model returns them."""
    sequence: Annotated[int, Field(gt=1, le=100)] | None = None
    """Number of objects that a picture shows from left to right, in whose order the answers are; None for one object.
    If there are as many branches, each of them shows one object."""
    probabilities: Text
    """Name of the output with the class probabilities, float32 (N, classes), or (N, sequence, classes); empty without
    classes."""
    features: Annotated[tuple[Feature, ...], Field(max_length=100)] = ()
    """The raw outputs of a network that is not a classifier."""
    transforms: Annotated[tuple[Transform, ...], Field(min_length=1, max_length=100)]
    recipe: dict[str, Any]
    accuracy: Accuracy | None
    """None if it was not measured, as for adopted networks."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the logits that calibrates the probabilities; fitted on validation pictures."""
    worth: Worth | None = None
    """None if it was not measured."""
    reliability: Reliability | None = None
    """None if it was not measured."""
    parity: Parity
    tolerance: Tolerance
    price: Price | None = None
    """None for float32 models."""
    reference: Reference | None = None
    """Reference for drift detection, from validation pictures; None if it was not computed."""
    versions: dict[str, Text]
    files: dict[str, FileRecord]
    """The artifact's files; the copy inside the model file does not list the model file itself."""

    @property
    def model_file(self) -> str:
        """Name of the model file."""
        return MODEL_FILES[self.runtime]

    @cached_property
    def main(self) -> int:
        """Position in `transforms` of the last step of the first branch, whose image the classifier reads."""
        steps = [t.step if (t.branch, t.reads) == (1, "picture") else 0 for t in self.transforms]
        return steps.index(max(steps))

    @property
    def inside(self) -> Self:
        """The copy of the manifest inside the model file, which cannot contain its own checksum."""
        return self.model_copy(update={"files": {n: f for n, f in self.files.items() if n != self.model_file}})

    @cached_property
    def shows_each(self) -> bool:
        """Whether each object of a sequence has a transform of its own, in the same order."""
        return self.sequence is not None and len({t.branch for t in self.transforms}) == self.sequence

    def names(self, index: int) -> tuple[str, ...]:
        """The class with this index; of a sequence those of all objects, which are its digits in base classes."""
        if self.sequence is None:
            return (self.classes[index],)
        digits = []
        for _ in range(self.sequence):
            index, digit = divmod(index, len(self.classes))
            digits.append(digit)
        return tuple(self.classes[digit] for digit in reversed(digits))

    def label(self, index: int) -> str:
        """The class with this index, or those of a sequence in one line; see `names`."""
        return " ".join(self.names(index))

    def image(self) -> Tensor:
        """The model's input."""
        return Tensor(self.input.name, "uint8", (self.input.height, self.input.width, self.input.channels))

    def answers(self) -> dict[str, Tensor]:
        """The model's outputs by name, in order."""
        described = [Tensor(feature.name, "float32", feature.shape) for feature in self.features]
        if self.probabilities:
            objects = () if self.sequence is None else (self.sequence,)
            described.append(Tensor(self.probabilities, "float32", (*objects, len(self.classes))))
        for t in self.transforms:
            described.append(Tensor(t.theta, "float32", (2, 3)))
            described.append(Tensor(t.parameters, "float32", t.parameters_shape))
            described.append(Tensor(t.rectified, "uint8", (t.height, t.width, self.input.channels)))
        by_name = {tensor.name: tensor for tensor in described}
        return {name: by_name[name] for name in self.outputs}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        classifies = self.task == "classification"
        if classifies != bool(self.probabilities) or classifies == bool(self.features):
            raise ValueError("a classifier has probabilities, and any other model has features instead")
        if classifies != bool(self.classes):
            raise ValueError("a classifier has classes, and any other model has none")
        if self.sequence is not None and not 1 < len(self.classes) ** self.sequence < INDICES:
            raise ValueError("a sequence needs classes, and fewer possible answers than a 64-bit number can tell apart")
        named = {feature.name for feature in self.features} or {self.probabilities}
        named = named.union(*({t.theta, t.parameters, t.rectified} for t in self.transforms))
        if named != set(self.outputs):
            raise ValueError(f"outputs {sorted(self.outputs)} differ from the described ones: {sorted(named)}")
        if len(self.input.background) != self.input.channels:
            raise ValueError("input.background must have one number per channel")
        if any(t.parameters == t.theta and t.parameters_shape != (2, 3) for t in self.transforms):
            raise ValueError("parameters_shape must be [2, 3] if parameters and theta are the same output")
        return self


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the current format."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Manifest.model_json_schema()
