"""The committed recipes: distorted MNIST, the paper's problems with each kind of transformer, and a known trap.

What each of them reaches, and how long it takes: docs/results/.
"""

from training.errors import RecipeError
from training.recipes.recipe import (
    AFFINE_DISTORTIONS,
    Augmentation,
    DistortionName,
    Recipe,
    Size,
    TransformerName,
    change_recipe,
)

KINDS: dict[str, TransformerName] = {
    "affine": "affine",
    "similarity": "similarity",
    "projective": "projective",
    "tps": "tps",
    "cnn": "none",
}
"""Columns of the paper's table: the transformer in each recipe's name, and what the recipe calls it."""
CNN_WIDTHS = {"r": 29, "rts": 30, "p": 30, "e": 29, "tc": 32, "addition": 36}
"""Of the plain classifiers, which get the parameters that the others spend on localisation."""


def mnist(
    distortion: DistortionName,
    summary: str,
    canvas: Size,
    mean: float,
    std: float,
    kind: str,
    *,
    channels: int = 1,
    epochs: int = 24,
    **options: object,
) -> Recipe:
    """One cell of the table of distorted MNIST: a problem, and the ``kind`` of transformer that is to solve it.

    Where the distortion is an affine map, transformers are also trained to stand the digit upright. They see every
    picture under two distortions a step for it, so the plain classifier gets twice the ``epochs``. ``options`` are
    fields of the recipe that only those with a transformer have.
    """
    transformer = KINDS[kind]
    upright = transformer != "none" and distortion in AFFINE_DISTORTIONS
    fields: dict[str, object] = {
        "name": f"mnist-{distortion}-{kind}",
        "summary": f"{summary}; {'no' if transformer == 'none' else transformer} transformer",
        "dataset": "mnist",
        "distortion": distortion,
        "canvas": canvas,
        "mean": (mean,) * channels,
        "std": (std,) * channels,
        "transformer": transformer,
        "rectified": (28, 28),
        "localisation": "modern",
        "localisation_rate": 1.0,
        "classifier_width": CNN_WIDTHS[distortion] if transformer == "none" else 24,
        "upright": 1.0 if upright else 0.0,
        "area": 0.05 if upright else 0.0,
        "epochs": epochs if upright or distortion not in AFFINE_DISTORTIONS else 2 * epochs,
        "precision": "bf16",
        "learning_rate": 2e-3,
    }
    return Recipe.model_validate(fields if transformer == "none" else fields | options)


def of_every_kind(
    distortion: DistortionName,
    summary: str,
    canvas: Size,
    mean: float,
    std: float,
    *,
    channels: int = 1,
    epochs: int = 24,
    **options: object,
) -> list[Recipe]:
    """One row of the table."""
    return [
        mnist(distortion, summary, canvas, mean, std, kind, channels=channels, epochs=epochs, **options)
        for kind in KINDS
    ]


DISTORTED_MNIST = [
    *of_every_kind("r", "digits turned by up to 90 degrees", (28, 28), 0.1311, 0.2905, epochs=28, steps=2),
    *of_every_kind("rts", "digits turned, scaled and anywhere on 42x42", (42, 42), 0.0537, 0.1963, epochs=28, steps=2),
    *of_every_kind(
        "tc",
        "digits anywhere on 60x60 among fragments",
        (60, 60),
        0.0395,
        0.1801,
        epochs=16,
        area=0.5,
        area_of="ink",
    ),
    *of_every_kind("p", "digits under a projective distortion", (42, 42), 0.0398, 0.1705),
    *of_every_kind("e", "digits bent by a thin-plate spline", (28, 28), 0.1004, 0.2595),
    *of_every_kind(
        "addition", "the sum of two digits in two channels", (42, 42), 0.0536, 0.1962, channels=2, parallel=2, tile=1.0
    ),
]
"""The problems of Jaderberg et al. 2015, table 1 and sections 4.1 and A.4, by each kind of transformer."""

MNIST_TC84 = mnist(
    "tc84",
    "digits anywhere on 84x84 among many fragments",
    (84, 84),
    0.0297,
    0.157,
    "affine",
    epochs=16,
    area=0.5,
    area_of="ink",
)
"""The paper's co-localisation problem (section 4.4)."""

TRAP = Recipe(
    name="trap",
    summary="a transformer that collapses unless guarded: normalised before the sampler, large steps of plain SGD",
    dataset="mnist",
    distortion="tc",
    canvas=(60, 60),
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
"""PyTorch's tutorial network on cluttered digits, as people train it. ``--set on_collapse=warn`` lets it collapse."""

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
"""Where does it collapse? Normalised after the sampler, zeros are the normalised black that padding must be before."""

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
"""Does it help to show coordinates, or to let negative values through?"""

MOVED_DIGITS = [
    mnist("t", "digits anywhere on 60x60", (60, 60), 0.0362, 0.1747, "affine", epochs=16),
    change_recipe(
        mnist("t", "digits anywhere on 60x60", (60, 60), 0.0362, 0.1747, "affine", epochs=16, area=0.5, area_of="ink"),
        {"name": "mnist-t-tight", "summary": "digits anywhere on 60x60, with the box close on the digit"},
    ),
    next(recipe for recipe in DISTORTED_MNIST if recipe.name == "mnist-r-affine"),
]
"""What shifting and turning do to a classifier, and what straightening undoes."""

MNIST_RTS = Recipe(
    name="mnist-rts",
    summary="the bundled model digits/1: digits turned, scaled and anywhere on 42x42; trained for the class alone",
    dataset="mnist",
    distortion="rts",
    canvas=(42, 42),
    mean=(0.0536,),
    std=(0.196,),
    transformer="affine",
    rectified=(28, 28),
    epochs=40,
    learning_rate=2e-3,
)
"""The paper's RTS problem; its best is 99.5 % (Jaderberg et al. 2015, table 1)."""

GTSRB_SMALL = Recipe(
    name="gtsrb-small",
    summary="the bundled model signs/1: traffic signs, with at most 1.5 million parameters",
    dataset="gtsrb",
    validation_size=4000,
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.15, stretch=1.15, shear=8, shift=0.08, light=0.7),
    canvas=(48, 48),
    mean=(0.3384, 0.3103, 0.3191),
    std=(0.2729, 0.2621, 0.2682),
    transformer="affine",
    padding="border",
    rectified=(32, 32),
    localisation="modern",
    localisation_rate=1.0,
    classifier_width=32,
    classifier_stages=4,
    upright=0.5,
    area=0.05,
    epochs=12,
    label_smoothing=0.05,
    precision="bf16",
    learning_rate=2e-3,
    weight_decay=0.05,
)
"""The German Traffic Sign Recognition Benchmark; each picture is seen twice a step, for `upright`."""

MY_IMAGES = Recipe(
    name="my-images",
    summary="your own: a folder with a directory of pictures for each class",
    dataset="folder",
    distortion="none",
    augmentation=Augmentation(rotation=15, zoom=1.15, stretch=1.15, shear=8, shift=0.08, light=0.5),
    canvas=(64, 64),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    transformer="affine",
    padding="border",
    rectified=(40, 40),
    localisation="modern",
    classifier_width=32,
    classifier_stages=4,
    upright=0.5,
    area=0.05,
    epochs=30,
    label_smoothing=0.05,
    learning_rate=2e-3,
    weight_decay=0.05,
)
"""Sizes, channels, mean, spread, epochs and batch are chosen when a run is begun (see training/recipes/sizing.py)."""

GTSRB = change_recipe(
    GTSRB_SMALL,
    {
        "name": "gtsrb",
        "summary": "traffic signs, as well as a single network can; two steps",
        "steps": 2,
        "rectified": (48, 48),
        "classifier_width": 64,
        "epochs": 30,
    },
)
GTSRB_CNN = change_recipe(
    GTSRB,
    {
        "name": "gtsrb-cnn",
        "summary": "its plain twin, for twice the epochs, since it sees a picture once a step",
        "transformer": "none",
        "steps": 1,
        "upright": 0.0,
        "area": 0.0,
        "epochs": 60,
    },
)

CIFAR10_145K = Recipe(
    name="cifar10-145k",
    summary="a CIFAR-10 study's network of 145,104 parameters, without augmentation",
    dataset="cifar10",
    distortion="none",
    canvas=(32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
    transformer="affine",
    rectified=(32, 32),
    localisation="cifar",
    classifier="cifar",
    epochs=30,
    batch_size=128,
    optimiser="sgd",
    momentum=0.9,
    precision="bf16",
    learning_rate=0.05,
    localisation_rate=0.1,
    warmup=0.3,
    weight_decay=5e-4,
)
"""The study published 78.91 % after 50 epochs in batches of 512; here 5,000 training pictures are held out."""

CIFAR10 = Recipe(
    name="cifar10",
    summary="CIFAR-10 with at most 150,000 parameters and a transformer",
    dataset="cifar10",
    distortion="none",
    augmentation=Augmentation(flip=True, shift=0.125),
    canvas=(32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
    transformer="affine",
    padding="border",
    rectified=(32, 32),
    localisation="cifar",
    localisation_rate=0.1,
    classifier="residual",
    classifier_width=16,
    classifier_blocks=(2, 4, 1),
    epochs=100,
    optimiser="sgd",
    momentum=0.9,
    precision="bf16",
    learning_rate=0.1,
    weight_decay=5e-4,
    label_smoothing=0.05,
    identity_penalty=10.0,
)
"""Left to itself, the transformer zooms all pictures out alike, which costs them their sharpness: hence the penalty."""
CIFAR10_CNN = change_recipe(
    CIFAR10,
    {
        "name": "cifar10-cnn",
        "summary": "its plain twin: a block more for the parameters of the localisation network",
        "transformer": "none",
        "identity_penalty": 0.0,
        "classifier_blocks": (3, 4, 1),
    },
)

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
