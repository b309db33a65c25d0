"""All recipes by name. Each family is defined in a module of its own."""

from training.errors import RecipeError
from training.recipes.digits import (
    AFFNIST,
    DISTORTED_MNIST,
    MNIST_ROT,
    MNIST_RTS,
    MNIST_TC84,
    SEQUENCES,
    SHORT_DISTORTED_MNIST,
)
from training.recipes.photographs import (
    BIRDS,
    CIFAR10,
    CIFAR10_145K,
    CIFAR10_CNN,
    CORNERS,
    GTSRB,
    GTSRB_CNN,
    GTSRB_SMALL,
    MY_IMAGES,
    PHOTOGRAPHS_224,
    PHOTOGRAPHS_224_CNN,
    SIGNS,
    SIGNS_CNN,
)
from training.recipes.recipe import Recipe
from training.recipes.studies import CONVOLUTIONS, MOVED_DIGITS, NORMALISATION, TRAP

RECIPES = {
    recipe.name: recipe
    for recipe in (
        MY_IMAGES,
        CORNERS,
        PHOTOGRAPHS_224,
        PHOTOGRAPHS_224_CNN,
        MNIST_RTS,
        *DISTORTED_MNIST,
        *SHORT_DISTORTED_MNIST,
        MNIST_TC84,
        *MNIST_ROT,
        *AFFNIST,
        *SEQUENCES,
        *MOVED_DIGITS,
        TRAP,
        *CONVOLUTIONS,
        *NORMALISATION,
        SIGNS,
        SIGNS_CNN,
        GTSRB_SMALL,
        GTSRB,
        GTSRB_CNN,
        BIRDS,
        CIFAR10_145K,
        CIFAR10,
        CIFAR10_CNN,
    )
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        RecipeError: it does not exist; the message lists all names.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise RecipeError(f"there is no recipe {name!r}; the recipes are: {', '.join(RECIPES)}") from None
