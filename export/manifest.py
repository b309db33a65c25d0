"""The manifest: what an artifact says about itself. Its JSON Schema is committed in docs/, one for each version.

`read_manifest` reads the current format and all older ones; a newer one is refused with the cure.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.errors import ArtifactError

FORMAT_VERSION: Final = 2
MODEL_FILES: Final = {"onnx": "model.onnx", "torchscript": "model.pt", "program": "model.pt2"}
Convention = Literal["theta maps output to input coordinates; normalised to [-1, 1], (x, y), align_corners=False"]
CONVENTION: Final[Convention] = get_args(Convention)[0]
RuntimeName = Literal["onnx", "torchscript", "program"]
Precision = Literal["float32", "float16", "int8"]
Quantity = Literal["rotation", "scale", "shift_x", "shift_y", "outside", "confidence", "classes"]
Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=4096)]
"""Of a picture, in pixels. A manifest that asks for more is damaged or means harm."""
Gap = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(max_length=1000)]


class Document(BaseModel):
    """Part of the manifest: frozen, nothing in it is unknown, and nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ImageInput(Document):
    """The picture the model takes, and how any picture is brought to it."""

    name: Text
    """Of the model's input, uint8 (N, height, width, channels)."""
    height: Side
    width: Side
    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma). 3: RGB."""
    resize: Literal["bilinear"]
    """Stretched to height x width by an anti-aliased (area-aware) bilinear filter; the aspect ratio is not kept."""
    background: tuple[Annotated[int, Field(ge=0, le=255)], ...]
    """What shows through transparent pixels, a number a channel."""


class Transform(Document):
    """One spatial transformer of the model, and the names of its outputs."""

    name: Text
    kind: Text
    branch: Positive
    """Which of the transformers that look at the picture side by side, from 1."""
    step: Positive
    """Which step of its branch, from 1; each transforms what the one before it made."""
    reads: Literal["picture", "features"]
    """What it transforms: the picture, or the classifier's features; its outputs are of the picture all the same."""
    theta: Text
    """float32 (N, 2, 3): the affine map from the rectified image to the picture, or the one that fits best."""
    parameters: Text
    """float32 (N, rows, columns): the transformer's own parameters in full; theta itself where that says all."""
    parameters_shape: tuple[Annotated[int, Field(gt=0, le=1024)], Annotated[int, Field(gt=0, le=1024)]]
    """Rows and columns."""
    rectified: Text
    """uint8 (N, height, width, channels): what it cut out of the picture, made upright."""
    height: Side
    """Of the rectified image, in pixels."""
    width: Side


class Accuracy(Document):
    """How good the model is, on pictures it was not trained on."""

    dataset: Text
    pictures: Positive
    accuracy: Annotated[float, Field(ge=0, le=1)]


class Parity(Document):
    """Largest difference from the PyTorch model in float32, seen when the artifact was made."""

    probabilities: Gap
    parameters: Gap
    """Of theta and of the transformers' parameters."""
    rectified: Annotated[int, Field(ge=0)]
    """In grey levels."""
    within_one_level: Annotated[float, Field(ge=0, le=1)]
    """Share of the rectified images' pixels that differ by one grey level at most."""
    rounding_probabilities: Gap | None = None
    """How far float32 takes the PyTorch model itself from its answers in float64; None where it was not measured."""
    rounding_parameters: Gap | None = None


class Tolerance(Document):
    """How far the answers to the golden pictures may be from those recorded, on any device."""

    probabilities: Gap
    parameters: Gap
    rectified: Annotated[int, Field(ge=0)]
    """In grey levels."""


class Price(Document):
    """What a smaller precision costs and brings, beside the same model in float32."""

    accuracy_before: Annotated[float, Field(ge=0, le=1)]
    """Of the float32 model on the same test pictures; `Accuracy` has the other."""
    probabilities: Gap
    """Largest difference of a probability on them."""
    corners_px: Gap
    """Largest distance of a corner of the rectified image from where float32 sees it, in pixels of the input."""
    corners_mean_px: Gap
    bytes_before: Positive
    """Of the float32 model's file."""
    speed: Annotated[float, Field(gt=0)]
    """How many times as fast, on the CPU that exported it."""
    speed_batch: Positive
    """Pictures in each inference that was timed."""


class Distribution(Document):
    """How one quantity is spread over pictures: what share of them lies in each bin."""

    transform: Text
    """Name of the transformer whose theta shows it; empty for `confidence` and `classes`."""
    quantity: Quantity
    edges: Annotated[tuple[float, ...], Field(min_length=1, max_length=100)]
    """Upper ends of all bins but the last, rising; a value on an edge belongs to the bin below."""
    shares: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2, max_length=101)]
    mean: float

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("shares must be one more than edges")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must rise")
        return self


class Reference(Document):
    """What the model says of pictures as it knows them, for the service to compare with what it is shown."""

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
    """What ``manifest.json`` holds, and the model file too."""

    format_version: Literal[2] = FORMAT_VERSION
    convention: Convention = CONVENTION
    created: datetime
    runtime: RuntimeName
    opset: Positive | None
    """Of ONNX."""
    precision: Precision
    """Of localisation and classifier; sampler and grid compute in float32 always."""
    classes: Annotated[tuple[Text, ...], Field(min_length=2, max_length=100_000)]
    input: ImageInput
    outputs: tuple[Text, ...]
    """Names in the order in which the model gives them."""
    probabilities: Text
    """float32 (N, classes)."""
    transforms: Annotated[tuple[Transform, ...], Field(min_length=1, max_length=100)]
    recipe: dict[str, Any]
    accuracy: Accuracy
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """By what the model divides logits, so that its probabilities are calibrated; fitted on validation pictures."""
    parity: Parity
    tolerance: Tolerance
    price: Price | None = None
    """Where precision is not float32."""
    reference: Reference | None = None
    """Of validation pictures; None where it was not computed."""
    versions: dict[str, Text]
    files: dict[str, FileRecord]
    """The artifact's files; inside the model file, those but itself."""

    @property
    def model_file(self) -> str:
        """Name of the file that holds the model."""
        return MODEL_FILES[self.runtime]

    @cached_property
    def main(self) -> int:
        """Position in `transforms` of the one whose image the classifier reads: the last step of the first branch."""
        steps = [t.step if (t.branch, t.reads) == (1, "picture") else 0 for t in self.transforms]
        return steps.index(max(steps))

    @property
    def inside(self) -> Self:
        """The manifest as it stands inside the model file, which cannot hold its own checksum."""
        return self.model_copy(update={"files": {n: f for n, f in self.files.items() if n != self.model_file}})

    def image(self) -> Tensor:
        """What the model takes."""
        return Tensor(self.input.name, "uint8", (self.input.height, self.input.width, self.input.channels))

    def answers(self) -> dict[str, Tensor]:
        """What the model gives, by name, in its order."""
        described = [Tensor(self.probabilities, "float32", (len(self.classes),))]
        for t in self.transforms:
            described.append(Tensor(t.theta, "float32", (2, 3)))
            described.append(Tensor(t.parameters, "float32", t.parameters_shape))
            described.append(Tensor(t.rectified, "uint8", (t.height, t.width, self.input.channels)))
        by_name = {tensor.name: tensor for tensor in described}
        return {name: by_name[name] for name in self.outputs}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        named = {self.probabilities}.union(*({t.theta, t.parameters, t.rectified} for t in self.transforms))
        if named != set(self.outputs):
            raise ValueError(f"outputs {sorted(self.outputs)} are not those that are described: {sorted(named)}")
        if len(self.input.background) != self.input.channels:
            raise ValueError("input.background must have one number a channel")
        if any(t.parameters == t.theta and t.parameters_shape != (2, 3) for t in self.transforms):
            raise ValueError("parameters_shape must be that of theta, [2, 3], where theta is named as the parameters")
        return self


def read_manifest(content: bytes, source: str) -> Manifest:
    """Read a manifest of this format or an older one; ``source`` is what errors call it.

    Raises:
        ArtifactError: it is none, is of a newer format, or contradicts itself.
    """
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{source} is not JSON ({error}); export the model again") from error
    found = fields.get("format_version") if isinstance(fields, dict) else None
    if type(found) is int and found > FORMAT_VERSION:
        raise ArtifactError(
            f"{source} has format version {found}, this version of stn-serve reads up to {FORMAT_VERSION}; "
            "upgrade stn-serve, or export the model again with this version"
        )
    try:
        while type(found) is int and found in UPGRADES:
            fields = UPGRADES[found](fields)
            found = fields["format_version"]
        return Manifest.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise ArtifactError(f"{source}: {where}: {first['msg']}; export the model again") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{source} is damaged ({error!r}); export the model again") from error


def from_1(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The first format, of float32 models alone, said in the second one."""
    shapes = {"projective": [3, 3], "tps": [fields["recipe"].get("control_points", 4) ** 2, 2]}
    transforms = []
    for transform in fields["transforms"]:
        places = {key: re.search(rf"{key}(\d+)", transform["name"]) for key in ("branch", "step")}
        place = {key: int(found[1]) if found else 1 for key, found in places.items()}
        reads = "features" if transform["name"] == "features" else "picture"
        shape = shapes.get(transform["kind"], [2, 3])
        transforms.append(transform | place | {"reads": reads, "parameters_shape": shape})
    parity = fields["parity"]
    return dict(fields) | {
        "format_version": 2,
        "convention": CONVENTION,
        "opset": 18 if fields["runtime"] == "onnx" else None,
        "precision": "float32",
        "transforms": transforms,
        "parity": parity | {"within_one_level": float(parity["rectified"] <= 1)},
        "tolerance": {"probabilities": 1e-3, "parameters": 1e-3, "rectified": 2},
    }


UPGRADES: Final[Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {1: from_1}
"""From each older format to the next one."""


def schema() -> dict[str, Any]:
    """The JSON Schema of the current format."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Manifest.model_json_schema()
