"""Recipes: all settings of a training run.

A recipe is typed and immutable; inconsistent fields are rejected when it is created. The command line changes fields
with ``--set field=value``, and the run folder records the result.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from training.errors import RecipeError
from training.recipes.contradictions import AFFINE_DISTORTIONS, contradictions

Size = tuple[int, int]
DistortionName = Literal["none", "r", "rot", "rts", "t", "p", "e", "tc", "tc84", "addition", "sequence"]
TransformerName = Literal["none", "affine", "similarity", "attention", "translation", "rotation", "projective", "tps"]
CELL = 8
"""Side of a cell of localisation=attention, in pixels."""
LocalisationName = Literal["fcn", "cnn", "tutorial", "cifar", "modern", "fine", "attention"]


class Augmentation(BaseModel):
    """Limits of the random changes to each training picture; the defaults change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees, in either direction")
    zoom: float = Field(1.0, ge=1, le=4, description="largest factor by which the picture grows or shrinks")
    stretch: float = Field(1.0, ge=1, le=4, description="largest factor by which the aspect ratio changes")
    shear: float = Field(0.0, ge=0, le=45, description="largest shear in degrees, in either direction")
    shift: float = Field(0.0, ge=0, le=1, description="largest shift, as a share of the sides, in whole pixels")
    flip: bool = Field(False, description="mirror half of the pictures horizontally")
    light: float = Field(0.0, ge=0, le=2, description="largest logarithm of the contrast and brightness factors")


class Placement(BaseModel):
    """How training pictures are put on other pictures; by default none is.

    The map of each is known, so that the pose loss can tell the transformer where the object lies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    chance: float = Field(0.0, ge=0, le=1, description="share of the training pictures that are placed")
    smallest: float = Field(0.2, gt=0, le=2, description="smallest side of the object, as a share of the canvas")
    largest: float = Field(1.1, gt=0, le=2, description="largest side of the object, as a share of the canvas")
    rotation: float = Field(25.0, ge=0, le=180, description="largest rotation in degrees, in either direction")
    roll: float = Field(
        0.0, ge=0, le=1, description="share of the backgrounds that are turned as the object is, as by a tilted camera"
    )
    stretch: float = Field(1.15, ge=1, le=4, description="largest factor by which the aspect ratio changes")
    shear: float = Field(6.0, ge=0, le=45, description="largest shear in degrees, in either direction")
    cut: float = Field(0.05, ge=0, lt=0.5, description="largest part of the object beyond the canvas")
    clutter: float = Field(
        0.25, ge=0, le=1, description="chance of each of: a second object, a pole, a shadow, blur, and lost resolution"
    )
    weather: float = Field(
        0.0, ge=0, le=1, description="chance of each of: faded colours of the object, shadows of leaves, coloured light"
    )


class Recipe(BaseModel):
    """All settings of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the recipe")
    summary: str = Field(description="purpose, in one line")

    dataset: Literal["mnist", "mnist-12k", "cifar10", "gtsrb", "cub", "folder"] = Field(
        description="the data set; mnist-12k: 12,000 of MNIST's digits to train and validate, and 50,000 for the test; "
        "cub: CUB-200-2011; folder: own pictures"
    )
    validation_size: int = Field(5000, gt=0, description="training pictures held out for validation")
    holdout: float = Field(
        0.15, gt=0, lt=0.5, description="folder: share of each class for validation, and the same for the test"
    )
    scene: str | None = Field(
        None, description="folder: regular expression whose match (or first group) in a path names the scene"
    )
    stream: bool | None = Field(
        None, description="folder: read decoded pictures from a file instead of memory; by default, above 2 GiB"
    )
    cache: Path | None = Field(
        None, description="folder for the file of streamed pictures; by default .cache in that of the pictures"
    )
    adapt: bool = Field(
        True,
        description="folder: choose sizes, normalisation, batch size and epochs that are not set from the pictures",
    )
    unreadable: Literal["refuse", "skip"] = Field("refuse", description="folder: what to do about damaged pictures")
    distortion: DistortionName = Field(description="distortion of the pictures; see training/data/distortions.py")
    augmentation: Augmentation = Field(
        Augmentation(), description="random changes in training; see training/data/augmentation.py"
    )
    placement: Placement = Field(
        Placement(), description="put training pictures on other pictures; see training/data/placement.py"
    )
    backgrounds: Path | None = Field(
        None, description="folder of pictures for placement; by default, the training pictures themselves"
    )
    balance: float = Field(
        0.0, ge=0, le=1, description="0: classes are shown as often as they occur; 1: all equally often"
    )
    canvas: Size = Field(description="height and width of the network's input")
    mean: tuple[float, ...] = Field(description="mean of each channel")
    std: tuple[float, ...] = Field(description="standard deviation of each channel")
    normalise: Literal["after", "before", "each"] = Field(
        "after",
        description="normalise after the sampler; or before it, which turns zero padding grey; or each picture after "
        "the sampler by its own mean and standard deviation",
    )

    transformer: TransformerName = Field(description="kind of spatial transformer; none: a plain classifier")
    control_points: int = Field(4, ge=2, le=8, description="control points per side of the thin-plate spline's grid")
    rectified: Size = Field(description="height and width of the rectified image")
    padding: Literal["zeros", "border", "reflection"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "zeros", description="outside of the picture: black, the border pixel, the mirrored picture, or a grey level"
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=4,
        description="each rectified pixel is the mean of samples x samples points; by default as many as prevent "
        "aliasing at the start",
    )
    pyramid: bool = Field(
        False, description="blend the rectified image with that of a half-size picture where it is zoomed out"
    )
    steps: int = Field(1, ge=1, le=8, description="successive transforms, each applied to the previous result")
    crop: float = Field(
        1.0, gt=0, le=1, description="canonical crop: share of the sides at the centre, where the transformer starts"
    )
    localisation_size: Size | None = Field(
        None, description="height and width of the copy that the first step's localisation sees; by default, canvas"
    )
    view: Size | None = Field(None, description="height and width of later steps' input; by default that of canvas")
    margin: float = Field(1.0, ge=1, le=4, description="factor by which the views of all steps but the last are wider")
    shared_steps: bool = Field(False, description="use one localisation network for all steps")
    parallel: int = Field(1, ge=1, le=9, description="parallel transformers, whose images are classified together")
    tile: float = Field(
        0.5, gt=0, le=1, description="share of the picture's sides where parallel and recurrent transformers start"
    )
    sequence: int = Field(0, ge=0, le=9, description="objects in each picture, which are read from left to right")
    recurrent: bool = Field(False, description="read each object of a sequence in a crop; a GRU moves it to the next")
    feature_stage: int = Field(0, ge=0, le=2, description="add a transformer after this stage of the classifier")
    localisation: LocalisationName = Field("cnn", description="network for theta")
    refinement: LocalisationName | None = Field(
        None, description="network for theta in later steps; by default that of the first step"
    )
    shared_stage: bool = Field(False, description="feed localisation the features of the classifier's first stage")
    coordinates: bool = Field(False, description="add pixel coordinates to localisation's input (CoordConv)")
    slope: float = Field(0.0, ge=0, lt=1, description="negative slope of localisation's activation; 0 is ReLU")
    classifier: str = Field(
        "conv",
        pattern=r"^(conv|residual|tutorial|cifar|(timm|torchvision):[A-Za-z0-9_.-]+)$",
        description="network that classifies the rectified image; timm:NAME and torchvision:NAME are backbones",
    )
    pretrained: bool | Path = Field(
        False, description="start a backbone with the weights of its library (downloaded), or of FILE.safetensors"
    )
    frozen_stages: int = Field(
        0, ge=0, le=100, description="first stages of a pretrained backbone that keep their weights"
    )
    classifier_width: int = Field(24, gt=0, description="filters in the conv or residual classifier's first stage")
    classifier_stages: int = Field(3, ge=1, le=6, description="stages of the conv classifier; each halves the size")
    classifier_widths: tuple[Annotated[int, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        max_length=6,
        description="filters in each stage of the conv classifier, instead of classifier_width and its multiples",
    )
    classifier_blocks: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(
        (2, 2, 2), min_length=1, max_length=6, description="blocks in each stage of the residual classifier"
    )

    epochs: int = Field(gt=0, description="passes over the training set")
    batch_size: int = Field(128, gt=1, description="pictures per step")
    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="sgd: stochastic gradient descent")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of optimiser=sgd")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate schedule after the warm-up")
    learning_rate: float = Field(gt=0, description="highest learning rate")
    localisation_rate: float = Field(0.3, gt=0, description="learning rate of localisation, relative to learning_rate")
    depth_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of each stage of the classifier, relative to that of the next one"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.02, ge=0, description="weight decay of weight matrices; other parameters have none")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over the other classes")
    identity_penalty: float = Field(0.0, ge=0, description="weight of delta's mean square in the loss")
    upright: float = Field(0.0, ge=0, description="loss weight: two distortions of a picture are rectified alike")
    pose: float = Field(
        0.0, ge=0, description="loss weight: frames lie on known boxes, and on the canonical crop of placed pictures"
    )
    box: float = Field(1.0, gt=0, le=2, description="side of the frame wanted by pose, as a share of a known box's")
    canonical: float = Field(
        0.0, ge=0, description="loss weight: the mean frame of each class lies on the canonical crop"
    )
    corners: float = Field(
        0.0, ge=0, description="folder: loss weight: the region's corners lie on those in corners.csv, if it exists"
    )
    joint: bool = Field(
        True, description="train localisation by the classification loss too; false: by the losses on frames alone"
    )
    area: float = Field(0.0, ge=0, description="loss weight: the sampled region keeps its size and shape")
    area_of: Literal["picture", "ink"] = Field(
        "picture", description="target of area: the undistorted picture, or the bounding box of its ink"
    )
    area_share: float = Field(1.0, gt=0, le=4, description="the target of area is this many times the area of area_of")
    average: float = Field(0.0, ge=0, lt=1, description="decay of a running mean of the weights (EMA); 0: none")
    precision: Literal["float32", "bf16", "bf16-all"] = Field(
        "float32", description="precision in training: bf16 is for the classifier, bf16-all for localisation too"
    )
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; larger gradients are clipped")
    on_collapse: Literal["warn", "restore", "stop"] = Field(
        "restore", description="when the transformer collapses: warn, go back to the last good weights, or stop"
    )

    @property
    def branches(self) -> int:
        """Number of parallel spatial transformers on the picture."""
        return 0 if self.transformer == "none" else self.parallel

    @property
    def read_size(self) -> Size:
        """Height and width of the classifier's input."""
        return self.canvas if self.transformer == "none" else self.rectified

    @property
    def is_backbone(self) -> bool:
        """Whether the classifier is a backbone of timm or torchvision."""
        return ":" in self.classifier

    @property
    def points(self) -> int:
        """Points along each side of a rectified pixel that are sampled: `samples`, or as many as the start asks for."""
        shrunk = max(seen * self.crop / read for seen, read in zip(self.canvas, self.rectified, strict=True))
        return self.samples or (1 if self.pyramid else min(max(math.floor(shrunk + 0.5), 1), 4))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Filters in each stage of the conv classifier: by default, each has twice as many as the one before."""
        return self.classifier_widths or tuple(self.classifier_width << n for n in range(self.classifier_stages))

    @property
    def cells(self) -> Size:
        """Rows and columns of the cells of localisation=attention."""
        height, width = self.seen_size
        return -(-height // CELL), -(-width // CELL)

    @property
    def seen_size(self) -> Size:
        """Height and width of what the first step's localisation network sees."""
        return self.localisation_size or self.canvas

    @property
    def augmented(self) -> bool:
        """Whether training pictures are augmented."""
        return self.augmentation != Augmentation()

    @property
    def frames_known(self) -> bool:
        """Whether the map of each changed training picture is known: it is augmented, placed, or distorted affinely."""
        return self.augmented or self.placement.chance > 0 or self.distortion in AFFINE_DISTORTIONS

    @property
    def can_stand_upright(self) -> bool:
        """Whether rotation angles can be measured: the frames are square and the distortion is an affine map."""
        square = self.canvas[0] == self.canvas[1] and self.rectified[0] == self.rectified[1]
        return bool(self.branches) and square and self.distortion in AFFINE_DISTORTIONS

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if problems := list(contradictions(self)):
            raise ValueError("; ".join(problems))
        return self


def change_recipe(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """Return a copy of ``recipe`` with ``changes``. Dots lead to nested fields, as in ``augmentation.flip``.

    Raises:
        RecipeError: a field is unknown, wrong or inconsistent with others; the message names it.
    """
    unknown = {key.partition(".")[0] for key in changes} - Recipe.model_fields.keys()
    if unknown:
        known = ", ".join(Recipe.model_fields)
        raise RecipeError(f"a recipe has no field {', '.join(sorted(unknown))}; its fields are: {known}")
    try:
        return Recipe.model_validate(merged(recipe.model_dump(), changes))
    except ValidationError as error:
        problems = dict.fromkeys(problem_text(problem, recipe) for problem in error.errors())
        raise RecipeError(f"recipe {recipe.name}: {'; '.join(problems)}") from None


def problem_text(problem: ErrorDetails, recipe: Recipe) -> str:
    """Describe a validation error: the field, the problem and, for a field of several numbers, how to write it."""
    name = next(map(str, problem["loc"]), "")
    text = ": ".join(filter(None, (name, problem["msg"].removeprefix("Value error, "))))
    value = getattr(recipe, name, None)
    if not isinstance(value, tuple):
        return text
    form = json.dumps(value, separators=(",", ":"))
    return f"{text}; write it as in {name}={form} ({Recipe.model_fields[name].description})"


def merged(fields: dict[str, Any], changes: dict[str, object]) -> dict[str, Any]:
    """Apply ``changes`` to ``fields``; dots in their keys lead to nested fields."""
    for key, value in changes.items():
        name, dot, within = key.partition(".")
        fields[name] = merged(fields[name], {within: value}) if dot and isinstance(fields[name], dict) else value
    return fields


def parse_changes(pairs: list[str]) -> dict[str, object]:
    """Parse fields of a recipe such as ``["epochs=3", "canvas=[28, 28]"]``. Values are JSON, or else text.

    Raises:
        RecipeError: a pair has no ``=``.
    """
    changes: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set takes KEY=VALUE, not {pair!r}")
        try:
            changes[key] = json.loads(value)
        except ValueError:
            changes[key] = value
    return changes
