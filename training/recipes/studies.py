"""Recipes for studies: a known failure, normalisation, convolutions, and moved digits."""

from training.recipes.digits import DISTORTED_MNIST, mnist
from training.recipes.recipe import Recipe, change_recipe

TRAP = Recipe(
    name="trap",
    summary="a transformer that collapses without the guard: normalised before the sampler, large steps of plain SGD",
    dataset="mnist",
    distortion="tc",
    canvas=(60, 60),
    samples=1,
    mean=(0.1307,),
    std=(0.3081,),
    normalise="before",
    transformer="affine",
    rectified=(28, 28),
    localisation="tutorial",
    classifier="tutorial",
    epochs=150,
    batch_size=64,
    optimiser="sgd",
    schedule="constant",
    learning_rate=0.01,
    localisation_rate=1.0,
    warmup=0.0,
    weight_decay=0.0,
    clip=None,
)
"""PyTorch's tutorial network on cluttered digits, trained as in the tutorial. ``--set on_collapse=warn`` lets it
collapse."""

NORMALISATION = [
    change_recipe(
        TRAP,
        {
            "name": f"normalised-{when}-{optimiser}",
            "summary": f"the trap's network, normalised {when} the sampler, {how}",
            "normalise": when,
            "optimiser": optimiser,
            "learning_rate": rate,
            "on_collapse": "warn",
        },
    )
    for optimiser, rate, how in (("sgd", 0.01, "SGD at 0.01"), ("adamw", 1e-4, "Adam at 0.0001"))
    for when in ("before", "after")
]
"""Does it collapse? With normalisation before the sampler, zero padding is grey instead of black."""

CONVOLUTIONS = [
    change_recipe(
        TRAP,
        {
            "name": f"plain-{name}",
            "summary": f"PyTorch's tutorial on digits as they are; localisation with {what}",
            "distortion": "none",
            "canvas": (28, 28),
            "epochs": 50,
            "on_collapse": "warn",
            **changes,
        },
    )
    for name, what, changes in (
        ("conv", "convolutions", {}),
        ("coordconv", "each pixel's coordinates (CoordConv)", {"coordinates": True}),
        ("leaky", "LeakyReLU of slope 0.01", {"slope": 0.01}),
    )
]
"""Do pixel coordinates, or an activation with a negative slope, improve localisation?"""

MOVED_DIGITS = [
    mnist("t", "digits anywhere on 60x60", (60, 60), 0.0362, 0.1747, "affine", epochs=16),
    change_recipe(
        mnist("t", "digits anywhere on 60x60", (60, 60), 0.0362, 0.1747, "affine", epochs=16, area=0.5, area_of="ink"),
        {"name": "mnist-t-tight", "summary": "digits anywhere on 60x60, with the box close on the digit"},
    ),
    next(recipe for recipe in DISTORTED_MNIST if recipe.name == "mnist-r-affine"),
]
"""How much do shifts and rotations cost a classifier, and how much does rectification recover?"""
