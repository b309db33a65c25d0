"""Recipes: everything that decides what a training run does, as data.

A recipe is typed and frozen, and refuses contradictions when it is made. Change one from the command line with
``--set field=value``; the run folder records the result.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from training.errors import RecipeError

Size = tuple[int, int]
DistortionName = Literal["none", "r", "rts", "t", "p", "e", "tc", "tc84", "addition"]
TransformerName = Literal["none", "affine", "similarity", "attention", "rotation", "projective", "tps"]
AFFINE_DISTORTIONS = {"r", "rts", "t", "tc", "tc84"}
CLUTTER = {"tc", "tc84"}
SMALLEST_PICTURE = {"fcn": 4, "cnn": 8, "tutorial": 18, "cifar": 22, "modern": 8}
"""The shortest side of a picture that each localisation network can take."""
CHANNELS = {"mnist": (1,), "cifar10": (3,), "gtsrb": (3,), "folder": (1, 3)}
"""Of the pictures of each data set."""


class Augmentation(BaseModel):
    """How differently a photograph may be seen each time it is trained on; by default not at all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation: float = Field(0.0, ge=0, le=180, description="degrees either way")
    zoom: float = Field(1.0, ge=1, le=4, description="up to so many times as large, or as small")
    stretch: float = Field(1.0, ge=1, le=4, description="up to so many times as wide for its height, or as high")
    shear: float = Field(0.0, ge=0, le=45, description="degrees either way")
    shift: float = Field(0.0, ge=0, le=1, description="share of the picture's sides, either way; cut to whole pixels")
    flip: bool = Field(False, description="mirrored left to right, half of the time")
    light: float = Field(0.0, ge=0, le=2, description="contrast and brightness change by up to this factor's logarithm")


class Recipe(BaseModel):
    """One way to train one classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="what the recipe is called")
    summary: str = Field(description="what it is for, in a line")

    dataset: Literal["mnist", "cifar10", "gtsrb", "folder"] = Field(description="where the pictures come from")
    validation_size: int = Field(5000, gt=0, description="training pictures held out to choose the best epoch by")
    holdout: float = Field(
        0.15, gt=0, lt=0.5, description="of a folder: share of each class held out for validation, and for test"
    )
    scene: str | None = Field(
        None, description="of a folder: pattern whose (first group's) match in a path names its scene"
    )
    unreadable: Literal["refuse", "skip"] = Field(
        "refuse", description="of a folder: what to do about damaged pictures"
    )
    distortion: DistortionName = Field(description="what is done to the pictures; see training/data/distortions.py")
    augmentation: Augmentation = Field(
        Augmentation(), description="in training only; see training/data/augmentation.py"
    )
    canvas: Size = Field(description="height and width of the distorted picture, the network's input")
    mean: tuple[float, ...] = Field(description="of each channel")
    std: tuple[float, ...] = Field(description="of each channel")
    normalise: Literal["after", "before"] = Field(
        "after", description="take mean and std off after the sampler, or (the trap) before, so that outside is grey"
    )

    transformer: TransformerName = Field(description="what the spatial transformers may do; none: a plain classifier")
    control_points: int = Field(4, ge=2, le=8, description="control points per side of the thin-plate spline's grid")
    rectified: Size = Field(description="height and width of the rectified image")
    padding: Literal["zeros", "border", "reflection"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "zeros", description="what lies outside the picture: black, its border, its mirror image, or a grey level"
    )
    samples: int = Field(1, ge=1, le=4, description="a pixel of the rectified image is the mean of samples x samples")
    steps: int = Field(1, ge=1, le=8, description="transforms in a row, each of what the one before it made")
    shared_steps: bool = Field(False, description="one localisation network for all steps")
    parallel: int = Field(1, ge=1, le=9, description="transformers side by side, whose images are read together")
    tile: float = Field(0.5, gt=0, le=1, description="share of the picture's sides where parallel transformers start")
    feature_stage: int = Field(0, ge=0, le=2, description="one more transformer behind this stage of the classifier")
    localisation: Literal["fcn", "cnn", "tutorial", "cifar", "modern"] = Field("cnn", description="what predicts theta")
    shared_stage: bool = Field(False, description="localisation sees the classifier's first stage, not the picture")
    coordinates: bool = Field(False, description="show localisation each pixel's x and y (CoordConv)")
    slope: float = Field(0.0, ge=0, lt=1, description="of localisation's activation below zero; 0 is ReLU")
    classifier: Literal["conv", "residual", "tutorial", "cifar"] = Field(
        "conv", description="what reads the rectified image"
    )
    classifier_width: int = Field(24, gt=0, description="filters in the conv or residual classifier's first stage")
    classifier_stages: int = Field(3, ge=1, le=6, description="of the conv classifier, each at half the size")
    classifier_blocks: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(
        (2, 2, 2), min_length=1, max_length=6, description="in each stage of the residual classifier"
    )

    epochs: int = Field(gt=0, description="passes over the training set")
    batch_size: int = Field(128, gt=1, description="pictures in a step")
    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="sgd: stochastic gradient descent")
    momentum: float = Field(0.0, ge=0, lt=1, description="of optimiser=sgd")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the rate, after the warm-up")
    learning_rate: float = Field(gt=0, description="highest learning rate")
    localisation_rate: float = Field(0.3, gt=0, description="the localisation networks' learning rate, relative")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(0.02, ge=0, description="on weight matrices only")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over the other classes")
    identity_penalty: float = Field(0.0, ge=0, description="weight of delta's mean square in the loss")
    upright: float = Field(0.0, ge=0, description="weight of: two distortions of a picture are rectified alike")
    area: float = Field(0.0, ge=0, description="weight of: the area that is looked at stays the same")
    area_of: Literal["picture", "ink"] = Field(
        "picture", description="which area that is: the undistorted picture's, or that of the box about its ink"
    )
    average: float = Field(0.0, ge=0, lt=1, description="decay of a running mean of the weights (EMA); 0 is none")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of the classifier in training; localisation and geometry stay float32"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient")
    on_collapse: Literal["warn", "restore", "stop"] = Field(
        "restore", description="when the transformer collapses: only say so, go back to the last good weights, or stop"
    )

    @property
    def branches(self) -> int:
        """How many spatial transformers look at the picture side by side."""
        return 0 if self.transformer == "none" else self.parallel

    @property
    def read_size(self) -> Size:
        """Height and width of what the classifier reads."""
        return self.canvas if self.transformer == "none" else self.rectified

    @property
    def augmented(self) -> bool:
        """Whether pictures look different each time they are trained on."""
        return self.augmentation != Augmentation()

    @property
    def can_stand_upright(self) -> bool:
        """Whether angles of what the transformers do to the distorted pictures can be measured."""
        square = self.canvas[0] == self.canvas[1] and self.rectified[0] == self.rectified[1]
        return bool(self.branches) and square and self.distortion in AFFINE_DISTORTIONS

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if problems := list(contradictions(self)):
            raise ValueError("; ".join(problems))
        return self


NEEDS: dict[str, tuple[str, Callable[[Recipe], bool]]] = {
    "momentum": ("optimiser=sgd", lambda recipe: recipe.optimiser == "sgd"),
    "control_points": ("transformer=tps", lambda recipe: recipe.transformer == "tps"),
    "tile": ("parallel=2 or more", lambda recipe: recipe.parallel > 1),
    "shared_steps": ("steps=2 or more", lambda recipe: recipe.steps > 1),
    "area": ("upright", lambda recipe: recipe.upright > 0),
    "area_of": ("area", lambda recipe: recipe.area > 0),
} | dict.fromkeys(
    ("parallel", "steps", "feature_stage", "shared_stage", "upright", "identity_penalty", "coordinates", "slope"),
    ("a transformer", lambda recipe: recipe.transformer != "none"),
)
"""Fields that have an effect only together with another: what each of them needs."""


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what is inconsistent in ``recipe``, each with what to change."""
    for name, (need, is_met) in NEEDS.items():
        if getattr(recipe, name) != Recipe.model_fields[name].default and not is_met(recipe):
            yield f"{name} has no effect without {need}; set {need}, or leave {name} out"
    channels = (2,) if recipe.distortion == "addition" else CHANNELS[recipe.dataset]
    if not len(recipe.mean) == len(recipe.std) in channels:
        known = " or ".join(map(str, channels))
        yield f"mean and std need one number per channel; these pictures have channels: {known}"
    if any(std <= 0 for std in recipe.std):
        yield "std must be above 0"
    if recipe.dataset != "mnist" and recipe.distortion != "none":
        yield f"distortion={recipe.distortion} is for digits only; set distortion=none and use augmentation"
    if recipe.distortion in CLUTTER and min(recipe.canvas) < 6:
        yield "fragments of clutter are 6x6 pixels; raise canvas"
    if recipe.augmented and recipe.distortion != "none":
        yield f"distortion={recipe.distortion} is random already; leave augmentation out, or set distortion=none"
    if recipe.normalise == "before" and isinstance(recipe.padding, float):
        yield "padding can be a grey level only with normalise=after; set zeros, border or reflection"
    if recipe.scene is not None:
        try:
            re.compile(recipe.scene)
        except re.error as error:
            yield f"scene={recipe.scene} is not a regular expression ({error})"
    if min(recipe.read_size) >> (recipe.classifier_stages - 1) < 1 or min(recipe.read_size) < 4:
        yield "the rectified image is too small for the classifier; raise rectified or lower classifier_stages"
    if recipe.classifier == "tutorial" and min(recipe.read_size) < 16:
        yield "classifier=tutorial needs at least 16x16 pixels; raise rectified or set classifier=conv"
    if recipe.transformer != "none":
        yield from transformer_contradictions(recipe)


def transformer_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what is inconsistent in a ``recipe`` with a transformer."""
    smallest = SMALLEST_PICTURE[recipe.localisation]
    if min(recipe.canvas) < smallest:
        yield f"localisation={recipe.localisation} needs a canvas of at least {smallest}x{smallest} pixels"
    for name in ("feature_stage", "shared_stage", "upright"):
        if getattr(recipe, name) and recipe.parallel > 1:
            yield f"{name} works with a single transformer only; set parallel=1, or leave {name} out"
    for name in ("feature_stage", "shared_stage"):
        if getattr(recipe, name) and recipe.classifier != "conv":
            yield f"{name} needs classifier=conv"
    if recipe.feature_stage > recipe.classifier_stages and recipe.classifier == "conv":
        yield f"there is no stage {recipe.feature_stage}; lower feature_stage or raise classifier_stages"
    if recipe.feature_stage and min(recipe.rectified) >> (recipe.feature_stage - 1) < smallest:
        yield f"the features of stage {recipe.feature_stage} are too small for localisation={recipe.localisation}"
    if recipe.upright and not recipe.augmented and recipe.distortion not in AFFINE_DISTORTIONS:
        known = ", ".join(sorted(AFFINE_DISTORTIONS))
        yield f"upright needs augmentation, or a distortion that is an affine map: {known}"


def change_recipe(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """A copy of ``recipe`` with ``changes``, checked as a whole; ``augmentation.flip`` names a field within a field.

    Raises:
        RecipeError: an unknown field, a wrong value or a contradiction; the message names the field.
    """
    unknown = {key.partition(".")[0] for key in changes} - Recipe.model_fields.keys()
    if unknown:
        known = ", ".join(Recipe.model_fields)
        raise RecipeError(f"a recipe has no field {', '.join(sorted(unknown))}; it has: {known}")
    try:
        return Recipe.model_validate(merged(recipe.model_dump(), changes))
    except ValidationError as error:
        problems = dict.fromkeys(told(problem, recipe) for problem in error.errors())
        raise RecipeError(f"recipe {recipe.name}: {'; '.join(problems)}") from None


def told(problem: ErrorDetails, recipe: Recipe) -> str:
    """A problem that pydantic found, with the field that it is in; fields of several numbers with their form."""
    name = next(map(str, problem["loc"]), "")
    said = ": ".join(filter(None, (name, problem["msg"].removeprefix("Value error, "))))
    value = getattr(recipe, name, None)
    if not isinstance(value, tuple):
        return said
    form = json.dumps(value, separators=(",", ":"))
    return f"{said}; write it as in {name}={form} ({Recipe.model_fields[name].description})"


def merged(fields: dict[str, Any], changes: dict[str, object]) -> dict[str, Any]:
    """``fields`` with ``changes``, whose keys may lead into them by dots."""
    for key, value in changes.items():
        name, dot, within = key.partition(".")
        fields[name] = merged(fields[name], {within: value}) if dot and isinstance(fields[name], dict) else value
    return fields
