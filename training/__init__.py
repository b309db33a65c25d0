"""Train spatial transformer classifiers.

    from pathlib import Path
    from training import evaluate, find_recipe, train

    recipe = find_recipe("mnist-rts", epochs=1, validation_size=160, classifier_width=4)
    run = train(recipe, Path("runs/first"), data_root=Path("data"))
    print(f"{evaluate(run).accuracy:.1%}")

`SpatialTransformer` is the layer alone, for use in other networks; docs/use/training.md has an example.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.api import evaluate, find_recipe, train
    from training.fitting.runs import Run
    from training.networks.network import SpatialTransformerClassifier
    from training.networks.samplers import Sampler
    from training.networks.spatial import SpatialTransformer
    from training.networks.transformers import AffineTransformer, Transformer
    from training.recipes.recipe import Recipe

__all__ = [
    "AffineTransformer",
    "Recipe",
    "Run",
    "Sampler",
    "SpatialTransformer",
    "SpatialTransformerClassifier",
    "Transformer",
    "evaluate",
    "find_recipe",
    "train",
]
PLACES = {
    "AffineTransformer": "networks.transformers",
    "Recipe": "recipes.recipe",
    "Run": "fitting.runs",
    "Sampler": "networks.samplers",
    "SpatialTransformer": "networks.spatial",
    "SpatialTransformerClassifier": "networks.network",
    "Transformer": "networks.transformers",
    "evaluate": "api",
    "find_recipe": "api",
    "train": "api",
}
"""The module of each name above. It is imported at the first access, because importing torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
