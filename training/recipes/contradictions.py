"""What is inconsistent in a recipe."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.recipes.recipe import Recipe

AFFINE_DISTORTIONS = {"r", "rot", "rts", "t", "tc", "tc84"}
CLUTTER = {"tc", "tc84"}
DIGIT = 28
"""Side of a digit of MNIST, in pixels."""
SHIFTED = ("affine", "similarity", "attention", "translation", "projective")
"""Transformers among whose parameters is a shift."""
SMALLEST_PICTURE = {"fcn": 4, "cnn": 8, "tutorial": 18, "cifar": 22, "modern": 8, "fine": 8, "attention": 24}
"""The smallest side that each localisation network accepts, in pixels."""
CHANNELS = {"mnist": (1,), "mnist-12k": (1,), "cifar10": (3,), "gtsrb": (3,), "cub": (3,), "folder": (1, 3)}
"""Possible numbers of channels of each data set."""

DIGITS = {"mnist", "mnist-12k"}
"""Data sets of digits, which are distorted."""
BOXED = {"gtsrb", "cub"}
"""Data sets whose objects have known bounding boxes."""

NEEDS: dict[str, tuple[str, Callable[["Recipe"], bool]]] = {
    "momentum": ("optimiser=sgd", lambda recipe: recipe.optimiser == "sgd"),
    "control_points": ("transformer=tps", lambda recipe: recipe.transformer == "tps"),
    "tile": ("parallel=2 or more, or recurrent", lambda recipe: recipe.parallel > 1 or recipe.recurrent),
    "sequence": ("distortion=sequence", lambda recipe: recipe.distortion == "sequence"),
    "backgrounds": ("placement.chance", lambda recipe: recipe.placement.chance > 0),
    "classifier_widths": ("classifier=conv", lambda recipe: recipe.classifier == "conv"),
    "pretrained": ("classifier=timm:NAME or torchvision:NAME", lambda recipe: recipe.is_backbone),
    "frozen_stages": ("pretrained", lambda recipe: bool(recipe.pretrained)),
    "box": ("pose", lambda recipe: recipe.pose > 0),
    "area": ("upright", lambda recipe: recipe.upright > 0),
    "area_of": ("area", lambda recipe: recipe.area > 0),
    "area_share": ("area", lambda recipe: recipe.area > 0),
}
NEEDS |= dict.fromkeys(("adapt", "cache", "stream"), ("dataset=folder", lambda recipe: recipe.dataset == "folder"))
NEEDS |= dict.fromkeys(
    ("shared_steps", "view", "margin", "refinement"), ("steps=2 or more", lambda recipe: recipe.steps > 1)
)
NEEDS |= dict.fromkeys(
    (
        *("parallel", "steps", "crop", "localisation_size", "feature_stage", "shared_stage", "coordinates", "slope"),
        *("pyramid", "identity_penalty", "upright", "pose", "canonical", "corners", "joint", "recurrent"),
    ),
    ("a transformer", lambda recipe: recipe.transformer != "none"),
)
"""Fields that have an effect only together with another: what each of them needs."""


def contradictions(recipe: "Recipe") -> Iterator[str]:
    """Yield what is inconsistent in ``recipe``, each with what to change."""
    for name, (need, is_met) in NEEDS.items():
        if getattr(recipe, name) != type(recipe).model_fields[name].default and not is_met(recipe):
            yield f"{name} has no effect without {need}; set {need}, or leave {name} out"
    channels = (2,) if recipe.distortion == "addition" else CHANNELS[recipe.dataset]
    if not len(recipe.mean) == len(recipe.std) in channels:
        known = " or ".join(map(str, channels))
        yield f"mean and std need one number per channel; these pictures have channels: {known}"
    if any(std <= 0 for std in recipe.std):
        yield "std must be above 0"
    if recipe.dataset not in DIGITS and recipe.distortion != "none":
        yield f"distortion={recipe.distortion} is for digits only; set distortion=none and use augmentation"
    if recipe.distortion in CLUTTER and min(recipe.canvas) < 6:
        yield "fragments of clutter are 6x6 pixels; raise canvas"
    affine = recipe.distortion in {"none", *AFFINE_DISTORTIONS}
    if (recipe.augmented and not affine) or (recipe.placement.chance and recipe.distortion != "none"):
        yield (
            f"distortion={recipe.distortion} is random already; leave augmentation and placement out, or set "
            "distortion=none"
        )
    if recipe.augmentation.light and recipe.distortion != "none":
        yield f"augmentation.light has no effect with distortion={recipe.distortion}; leave it out"
    if recipe.placement.smallest > recipe.placement.largest:
        yield "placement.smallest is above placement.largest; lower the one or raise the other"
    if recipe.normalise == "before" and isinstance(recipe.padding, float):
        yield "padding can be a grey level only with normalise=after; set zeros, border or reflection"
    if recipe.scene is not None:
        try:
            re.compile(recipe.scene)
        except re.error as error:
            yield f"scene={recipe.scene} is not a regular expression ({error})"
    if min(recipe.read_size) >> (len(recipe.stage_widths) - 1) < 1 or min(recipe.read_size) < 4:
        fewer = "shorten classifier_widths" if recipe.classifier_widths else "lower classifier_stages"
        yield f"the rectified image is too small for the classifier; raise rectified or {fewer}"
    if recipe.classifier == "tutorial" and min(recipe.read_size) < 16:
        yield "classifier=tutorial needs at least 16x16 pixels; raise rectified or set classifier=conv"
    if recipe.distortion == "sequence":
        yield from sequence_contradictions(recipe)
    elif recipe.recurrent:
        yield "recurrent reads a sequence of objects; set distortion=sequence and sequence=3, or leave recurrent out"
    if recipe.transformer != "none":
        yield from transformer_contradictions(recipe)


def sequence_contradictions(recipe: "Recipe") -> Iterator[str]:
    """Yield what is inconsistent in a ``recipe`` for sequences of digits."""
    if recipe.sequence < 2:
        yield "distortion=sequence needs the number of digits in a picture; set sequence=3"
    if recipe.parallel > 1:
        yield "parallel transformers show one object; set recurrent=true for one crop of each, and leave parallel out"
    if recipe.canvas[0] < DIGIT or recipe.canvas[1] < DIGIT * recipe.sequence:
        yield f"{recipe.sequence} digits of {DIGIT}x{DIGIT} pixels stand side by side; raise canvas or lower sequence"
    if recipe.classifier != "conv" and not recipe.recurrent:
        yield f"classifier={recipe.classifier} reads one object; set recurrent=true, or classifier=conv"
    if recipe.recurrent:
        for name in ("steps", "crop", "feature_stage", "shared_stage"):
            if getattr(recipe, name) != type(recipe).model_fields[name].default:
                yield f"{name} is not for a recurrent transformer, which has one crop for each object; leave {name} out"
        if recipe.localisation == "attention":
            yield "localisation=attention finds one object; set localisation=modern"


def transformer_contradictions(recipe: "Recipe") -> Iterator[str]:
    """Yield what is inconsistent in a ``recipe`` with a transformer."""
    smallest = SMALLEST_PICTURE[recipe.localisation]
    if min(recipe.seen_size) < smallest:
        field = "localisation_size" if recipe.localisation_size else "canvas"
        yield f"localisation={recipe.localisation} needs a {field} of at least {smallest}x{smallest} pixels"
    if any(seen > side for seen, side in zip(recipe.seen_size, recipe.canvas, strict=True)):
        yield "localisation_size is larger than canvas; lower the one, raise the other, or leave localisation_size out"
    for name in ("feature_stage", "shared_stage", "upright", "pose", "canonical", "corners", "crop"):
        if getattr(recipe, name) != type(recipe).model_fields[name].default and recipe.parallel > 1:
            yield f"{name} works with a single transformer only; set parallel=1, or leave {name} out"
    for name in ("feature_stage", "shared_stage"):
        if getattr(recipe, name) and recipe.classifier != "conv":
            yield f"{name} needs classifier=conv"
    if recipe.feature_stage > len(recipe.stage_widths) and recipe.classifier == "conv":
        more = "lengthen classifier_widths" if recipe.classifier_widths else "raise classifier_stages"
        yield f"there is no stage {recipe.feature_stage}; lower feature_stage or {more}"
    if recipe.feature_stage and min(recipe.rectified) >> (recipe.feature_stage - 1) < smallest:
        yield f"the features of stage {recipe.feature_stage} are too small for localisation={recipe.localisation}"
    for name in ("upright", "pose", "canonical"):
        if getattr(recipe, name) and not recipe.frames_known:
            known = ", ".join(sorted(AFFINE_DISTORTIONS))
            yield f"{name} needs augmentation, placement, or a distortion that is an affine map: {known}"
    if recipe.corners and recipe.dataset != "folder":
        yield "corners works with dataset=folder only; leave it out"
    boxes = recipe.dataset in BOXED
    if recipe.pose and not boxes and not recipe.placement.chance:
        yield "pose has no effect on pictures without boxes; set placement.chance, or use canonical"
    if recipe.pose and recipe.canonical and (boxes or recipe.placement.chance == 1):
        yield "canonical has no effect where pose tells every frame; leave one of them out"
    if not (recipe.joint or recipe.pose or recipe.canonical or recipe.corners or recipe.upright):
        yield "joint=false leaves localisation without a loss; set pose, canonical, corners or upright, or leave it out"
    if recipe.shared_steps and (recipe.view or recipe.refinement):
        yield "shared_steps uses one network for all steps; leave view and refinement out"
    if "attention" in (recipe.localisation, recipe.refinement) and recipe.transformer not in SHIFTED:
        yield f"localisation=attention needs a transformer that shifts: {', '.join(SHIFTED)}"
    if "attention" in (recipe.localisation, recipe.refinement) and recipe.parallel > 1:
        yield "localisation=attention works with a single transformer only; set parallel=1, or localisation=modern"
    later = SMALLEST_PICTURE[recipe.refinement or recipe.localisation]
    if recipe.view and min(recipe.view) < later:
        yield f"the network of later steps needs a view of at least {later}x{later} pixels"
