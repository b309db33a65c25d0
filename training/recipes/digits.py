"""Recipes for distorted MNIST: the problems of Jaderberg et al. 2015 with each kind of transformer.

docs/results/ has their accuracy and training time.
"""

from training.recipes.contradictions import AFFINE_DISTORTIONS
from training.recipes.recipe import DistortionName, Recipe, Size, TransformerName, change_recipe

KINDS: dict[str, TransformerName] = {
    "affine": "affine",
    "similarity": "similarity",
    "projective": "projective",
    "tps": "tps",
    "cnn": "none",
}
"""Columns of the paper's table: the kind in a recipe's name, and the value of its field ``transformer``."""
CNN_WIDTHS = {"r": 29, "rot": 29, "rts": 30, "t": 29, "p": 30, "e": 29, "tc": 32, "addition": 36}
"""Widths of the plain classifiers, chosen so that they have as many parameters as the networks with localisation."""


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
    """Return the recipe for one problem and one ``kind`` of transformer.

    Where the distortion is an affine map, transformers are also trained to rectify digits upright. For this they see
    every picture under two distortions per step, so the plain classifier gets twice as many ``epochs``. ``options``
    are fields that apply only to recipes with a transformer.
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
        "samples": 1,
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
        "tc", "digits anywhere on 60x60 among fragments", (60, 60), 0.0395, 0.1801, epochs=16, area=0.5, area_of="ink"
    ),
    *of_every_kind("p", "digits under a projective distortion", (42, 42), 0.0398, 0.1705),
    *of_every_kind("e", "digits bent by a thin-plate spline", (28, 28), 0.1004, 0.2595),
    *of_every_kind(
        "addition", "the sum of two digits in two channels", (42, 42), 0.0536, 0.1962, channels=2, parallel=2, tile=1.0
    ),
]
"""The problems of Jaderberg et al. 2015, table 1 and sections 4.1 and A.4, by each kind of transformer."""

SHORT_CNN_WIDTHS = {
    "r": (16, 32, 64, 64),
    "rot": (20, 40, 80, 84),
    "rts": (16, 32, 64, 80),
    "t": (16, 32, 64, 76),
    "p": (16, 32, 64, 80),
    "e": (16, 32, 64, 64),
    "tc": (16, 32, 64, 96),
    "addition": (16, 32, 64, 128),
}
"""Widths of the plain classifiers of the short schedule: a fourth stage instead of width, which costs time."""


def shortened(recipe: Recipe) -> Recipe:
    """Return a recipe of `mnist` with one step, a smaller network, and fewer epochs.

    Its name ends in ``-short``. Where transformers see every picture twice per step, they have half of the epochs.
    """
    changes: dict[str, object] = {
        "name": f"{recipe.name}-short",
        "summary": f"{recipe.summary}; short schedule",
        "rectified": (20, 20),
        "classifier_width": 16,
        "epochs": 8 if recipe.upright else 16,
        "average": 0.998,
        "precision": "bf16-all",
    }
    if recipe.transformer == "none":
        changes |= {"rectified": recipe.rectified, "classifier_widths": SHORT_CNN_WIDTHS[recipe.distortion]}
    else:
        changes["steps"] = 1
    if recipe.upright:
        changes |= {"area": 0.5, "area_of": "ink", "area_share": 1.3}
    return change_recipe(recipe, changes)


SHORT_DISTORTED_MNIST = [shortened(recipe) for recipe in DISTORTED_MNIST]
"""All problems by each kind of transformer, in fewer epochs and with smaller networks."""

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

MNIST_ROT = [
    change_recipe(
        shortened(mnist("rot", "12,000 digits at any angle", (28, 28), 0.1308, 0.29, kind)),
        {
            "name": name,
            "summary": f"12,000 digits at any angle (MNIST-rot); {summary}",
            "dataset": "mnist-12k",
            "validation_size": 2000,
            "augmentation": {"rotation": 180.0, "zoom": 1.1, "stretch": 1.1, "shear": 8.0},
            **changes,
        },
    )
    for name, kind, summary, changes in (
        ("mnist-rot", "similarity", "similarity transformer", {"classifier_width": 24, "epochs": 80}),
        ("mnist-rot-cnn", "cnn", "no transformer", {"epochs": 160}),
    )
]
"""MNIST-rot (Larochelle et al. 2007), rebuilt from MNIST, and a plain twin.

Validation and test digits have one angle, drawn once. Training digits get new ones in each epoch. `upright` compares
two angles of a digit, and is the same from wherever it starts. Stretch and shear, which the benchmark lacks, act
along random axes.
"""

AFFNIST = [
    change_recipe(
        shortened(mnist("t", "digits on 40x40 for affNIST's question", (40, 40), 0.0641, 0.2128, kind)),
        {"name": name},
    )
    for name, kind in (("affnist", "affine"), ("affnist-cnn", "cnn"))
]
"""What a network learns of affine distortions from shifts alone (Sabour et al. 2017, section 5.2), and a plain twin."""

MNIST_RTS = Recipe(
    name="mnist-rts",
    summary="digits turned, scaled and anywhere on 42x42; trained for the class alone",
    dataset="mnist",
    distortion="rts",
    canvas=(42, 42),
    samples=1,
    mean=(0.0536,),
    std=(0.196,),
    transformer="affine",
    rectified=(28, 28),
    epochs=40,
    learning_rate=2e-3,
)
"""The paper's RTS problem; its best is 99.5 % (Jaderberg et al. 2015, table 1)."""

MNIST_SEQUENCE = Recipe(
    name="mnist-sequence",
    summary="three digits in a row on 100x100 among fragments; a GRU moves a crop from digit to digit",
    dataset="mnist",
    distortion="sequence",
    sequence=3,
    recurrent=True,
    canvas=(100, 100),
    samples=1,
    mean=(0.047,),
    std=(0.196,),
    transformer="affine",
    rectified=(28, 28),
    tile=0.4,
    localisation="modern",
    localisation_size=(50, 50),
    localisation_rate=1.0,
    classifier_width=16,
    precision="bf16-all",
    epochs=20,
    learning_rate=2e-3,
)
"""The recurrent transformer of Sønderby et al. 2015 on their task; error of single digits (the paper: 1.5 %)."""
SEQUENCES = [
    MNIST_SEQUENCE,
    change_recipe(
        MNIST_SEQUENCE,
        {
            "name": "mnist-sequence-crop",
            "summary": "three digits in a row on 100x100 among fragments; one crop for all",
            "recurrent": False,
            "tile": 0.5,
            "rectified": (34, 100),
            "classifier_widths": (12, 24, 48, 64, 56),
            "epochs": 18,
        },
    ),
    change_recipe(
        MNIST_SEQUENCE,
        {
            "name": "mnist-sequence-cnn",
            "summary": "three digits in a row on 100x100 among fragments; no transformer",
            "recurrent": False,
            "tile": 0.5,
            "transformer": "none",
            "localisation_size": None,
            "classifier_widths": (8, 16, 32, 48, 48),
            "epochs": 11,
        },
    ),
]
"""The same task with a feed-forward transformer (the paper: 2.0 %) and without one (the paper: 2.9 %)."""
