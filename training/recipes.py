"""Recipes: everything that decides what a training run does, as data.

A recipe is typed and frozen, and refuses contradictions when it is made. Change one from the command line with
``--set field=value``; the run folder records the result.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

Size = tuple[int, int]
CHANNELS = {"mnist": 1}
"""Of the pictures of each data set."""


class Recipe(BaseModel):
    """One way to train one classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="what the recipe is called")
    summary: str = Field(description="what it is for, in a line")

    dataset: Literal["mnist"] = Field(description="where the pictures come from")
    validation_size: int = Field(gt=0, description="pictures split off the training set to choose the best epoch")
    distortion: Literal["rts"] = Field(description="rts: rotation, translation and scale")
    canvas: Size = Field(description="height and width of the distorted picture, the network's input")
    mean: tuple[float, ...] = Field(description="of each channel, taken off after the sampler")
    std: tuple[float, ...] = Field(description="of each channel, divided by after the sampler")

    transformer: Literal["affine"] = Field(description="what the spatial transformer may do")
    rectified: Size = Field(description="height and width of the rectified image")
    classifier_width: int = Field(gt=0, description="filters in the classifier's first stage")

    epochs: int = Field(gt=0, description="passes over the training set")
    batch_size: int = Field(gt=1, description="pictures in a step")
    learning_rate: float = Field(gt=0, description="highest learning rate of AdamW")
    localisation_rate: float = Field(gt=0, description="the localisation network's learning rate, relative")
    warmup: float = Field(gt=0, lt=1, description="share of the steps in which the rate rises; then it falls (cosine)")
    weight_decay: float = Field(ge=0, description="of AdamW, on weight matrices only")
    label_smoothing: float = Field(ge=0, lt=1, description="probability spread over the other classes")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        channels = CHANNELS[self.dataset]
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"mean and std must have a number a channel each; {self.dataset} has channels: {channels}")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        if min(self.canvas) < 8 or min(self.rectified) < 4:
            raise ValueError("canvas must be at least 8x8 and rectified at least 4x4 pixels to survive the pooling")
        return self


MNIST_RTS = Recipe(
    name="mnist-rts",
    summary="digits rotated by up to 45 degrees, scaled 0.7 to 1.2, anywhere on 42x42; affine transformer",
    dataset="mnist",
    validation_size=5000,
    distortion="rts",
    canvas=(42, 42),
    mean=(0.0536,),
    std=(0.196,),
    transformer="affine",
    rectified=(28, 28),
    classifier_width=24,
    epochs=40,
    batch_size=128,
    learning_rate=2e-3,
    localisation_rate=0.3,
    warmup=0.1,
    weight_decay=0.02,
    label_smoothing=0.0,
)
"""The paper's RTS problem; its best is 99.5 % (Jaderberg et al. 2015, table 1).

Command: ``python -m training run mnist-rts``. What it reaches and how long it takes: docs/results/mnist-rts.md.
"""

RECIPES = {recipe.name: recipe for recipe in (MNIST_RTS,)}


def find_recipe(name: str) -> Recipe:
    """The committed recipe of that name.

    Raises:
        RecipeError: there is none; the message lists those that are.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise RecipeError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}") from None


def change_recipe(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """A copy of ``recipe`` with ``changes``, checked as a whole.

    Raises:
        RecipeError: an unknown field, a wrong value or a contradiction; the message names the field.
    """
    unknown = changes.keys() - Recipe.model_fields.keys()
    if unknown:
        known = ", ".join(Recipe.model_fields)
        raise RecipeError(f"a recipe has no field {', '.join(sorted(unknown))}; it has: {known}")
    try:
        return Recipe.model_validate({**recipe.model_dump(), **changes})
    except ValidationError as error:
        problems = [
            ": ".join([*map(str, e["loc"][:1]), e["msg"].removeprefix("Value error, ")]) for e in error.errors()
        ]
        raise RecipeError(f"recipe {recipe.name}: {'; '.join(problems)}") from None
