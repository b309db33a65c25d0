"""Small untrained networks of every sort, and a way to make them look far from the identity."""

import torch
from torch import nn

from training.networks.network import SpatialTransformerClassifier
from training.recipes.digits import MNIST_RTS
from training.recipes.recipe import Recipe, change_recipe

CANVAS = (20, 28)
RECTIFIED = (12, 16)


def small(**changes: object) -> Recipe:
    """A recipe for oblong pictures whose network is built and run in no time."""
    basis: dict[str, object] = {
        "canvas": CANVAS,
        "rectified": RECTIFIED,
        "localisation": "fcn",
        "classifier_width": 4,
        "mean": (0.2,),
        "std": (0.4,),
    }
    return change_recipe(MNIST_RTS, basis | changes)


def in_colour(recipe: Recipe) -> Recipe:
    """The same for pictures of three channels; digits have one, so this is not checked."""
    return recipe.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})


def build(recipe: Recipe, seed: int = 0) -> SpatialTransformerClassifier:
    """The recipe's network as it is before training."""
    torch.manual_seed(seed)
    return SpatialTransformerClassifier(recipe, classes=10, channels=len(recipe.mean))


def heads(network: SpatialTransformerClassifier) -> list[nn.Linear]:
    """The regression layers in the order of the warps; a network that stands there for several steps gives one."""
    found = [localisation[-1] for localisation in network.localisation_networks()]  # type: ignore[index]
    return [head for head in found if isinstance(head, nn.Linear)]


def randomised(network: SpatialTransformerClassifier, reach: float = 0.25) -> SpatialTransformerClassifier:
    """Let every head answer with deltas of about ``reach`` that differ from picture to picture; evaluation mode."""
    for head in heads(network):
        nn.init.uniform_(head.weight, -reach, reach)
        head.weight.data /= head.in_features**0.5
        nn.init.uniform_(head.bias, -reach, reach)
    recipe = network.recipe
    noise = torch.rand(16, len(recipe.mean), *recipe.canvas, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            network.train()(noise)  # running means and variances like those of pictures
    return network.eval()
