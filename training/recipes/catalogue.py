"""The committed recipes by their names; their families are in modules of their own."""

from training.errors import RecipeError
from training.recipes.digits import DISTORTED_MNIST, MNIST_RTS, MNIST_TC84
from training.recipes.photographs import CIFAR10, CIFAR10_145K, CIFAR10_CNN, GTSRB, GTSRB_CNN, GTSRB_SMALL, MY_IMAGES
from training.recipes.recipe import Recipe
from training.recipes.studies import CONVOLUTIONS, MOVED_DIGITS, NORMALISATION, TRAP

RECIPES = {
    recipe.name: recipe
    for recipe in (
        MY_IMAGES,
        MNIST_RTS,
        *DISTORTED_MNIST,
        MNIST_TC84,
        *MOVED_DIGITS,
        TRAP,
        *CONVOLUTIONS,
        *NORMALISATION,
        GTSRB_SMALL,
        GTSRB,
        GTSRB_CNN,
        CIFAR10_145K,
        CIFAR10,
        CIFAR10_CNN,
    )
}


def find_recipe(name: str) -> Recipe:
    """The committed recipe of that name.

    Raises:
        RecipeError: there is none; the message lists those that are.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise RecipeError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}") from None
