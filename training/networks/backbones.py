"""Backbones of timm and torchvision as classifiers of the rectified image.

A backbone is named ``timm:NAME`` or ``torchvision:NAME``. It is a single stage; the head is new. Parallel transformers
have a backbone each. Building one downloads nothing: `load_pretrained` does, as those libraries do, unless it is given
a file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.networks.classifiers import Classifier
from training.recipes.recipe import Recipe, Size

INSTALL = "install it with: pip install -c constraints.txt -e '.[backbones]'"
UNUSABLE = ("googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1")
"""Classifiers of torchvision that return auxiliary outputs in training, or do not end in a linear layer."""


class Parallel(nn.Module):
    """Backbones side by side: each reads the image of one branch (Jaderberg et al. 2015, section 4.3)."""

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, branches * C, H, W)`` -> the features of all branches, ``(N, branches * F)``."""
        parts = images.chunk(len(self.backbones), dim=1)
        return torch.cat([read(part) for read, part in zip(self.backbones, parts, strict=True)], dim=1)


def backbone_classifier(name: str, channels: int, classes: int, size: Size, branches: int = 1) -> Classifier:
    """Build a classifier around a backbone without trained weights, or around one for each of several branches.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        channels: channels of the image of a branch.
        classes: number of classes.
        size: height and width of the image.
        branches: number of images, whose channels follow one another.

    Raises:
        RecipeError: there is no such backbone, its library is not installed, or it does not take such images.
    """
    library, _, model = name.partition(":")
    build = timm_features if library == "timm" else torchvision_features
    features = build(model, channels)
    try:
        with torch.inference_mode():
            found = features.eval()(torch.zeros(1, channels, *size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"{name} does not take images of {size[1]}x{size[0]} pixels ({reason}); change rectified, or choose a "
            "convolutional backbone"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise RecipeError(f"{name} does not give one vector of features per image; choose another backbone")
    width = branches * found.shape[1]
    stage = features if branches == 1 else Parallel([features, *(build(model, channels) for _ in range(branches - 1))])
    return Classifier([stage.train()], [width], nn.Sequential(nn.Linear(width, classes)))


def timm_features(model: str, channels: int, *, pretrained: bool = False) -> nn.Module:
    """Return a model of timm without its head: ``(N, C, H, W)`` -> ``(N, F)``.

    Raises:
        RecipeError: timm is not installed, or has no such model.
    """
    try:
        import timm
    except ImportError as error:
        raise RecipeError(f"classifier=timm:{model} needs timm; {INSTALL}") from error
    known = timm.list_models(pretrained=True) if "." in model else timm.list_models()
    if model not in known:
        raise RecipeError(f"timm has no model {model!r}{alike(model, known)}")
    features: nn.Module = timm.create_model(model, pretrained=pretrained, in_chans=channels, num_classes=0)
    return features


def torchvision_features(model: str, channels: int, *, pretrained: bool = False) -> nn.Module:
    """Return a classifier of torchvision without its last layer: ``(N, 3, H, W)`` -> ``(N, F)``.

    Raises:
        RecipeError: torchvision has no such classifier, or it cannot be used.
    """
    from torchvision import models

    known = [each for each in models.list_models(models) if each not in UNUSABLE]
    if model not in known:
        raise RecipeError(f"torchvision has no usable classifier {model!r}{alike(model, known)}")
    if channels != 3:
        raise RecipeError(
            f"classifier=torchvision:{model} reads 3 channels, but gets {channels}; choose a backbone of timm, which "
            "reads any number"
        )
    features: nn.Module = models.get_model(model, weights="DEFAULT" if pretrained else None)
    last = next(name for name, each in reversed([*features.named_modules()]) if isinstance(each, nn.Linear))
    features.set_submodule(last, nn.Identity())
    return features


def load_pretrained(classifier: Classifier, recipe: Recipe, channels: int) -> None:
    """Load trained weights into all backbones: those of their library, which downloads them, or those in a file.

    Args:
        classifier: from `backbone_classifier`.
        recipe: its fields ``classifier`` and ``pretrained``.
        channels: channels of the image of a branch.

    Raises:
        RecipeError: the weights cannot be had, or do not fit the backbone.
    """
    library, _, model = recipe.classifier.partition(":")
    try:
        if isinstance(recipe.pretrained, Path):
            weights = read_weights(recipe.pretrained)
        else:
            features = timm_features if library == "timm" else torchvision_features
            weights = features(model, channels, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"the weights of {recipe.classifier} cannot be loaded ({reason}); on a machine without a network, copy "
            "them there and set pretrained=FILE.safetensors"
        ) from error
    (stage,) = classifier.stages
    backbones = stage.backbones if isinstance(stage, Parallel) else [stage]
    missing: list[str] = []
    try:
        for backbone in backbones:
            missing = backbone.load_state_dict(weights, strict=False).missing_keys  # the head of the file is left out
    except RuntimeError as error:
        raise RecipeError(f"the weights do not fit {recipe.classifier}: {' '.join(str(error).split())}") from error
    if missing:
        raise RecipeError(
            f"{recipe.pretrained} lacks {len(missing)} weights of {recipe.classifier}, for example {missing[0]}; name "
            "a file of the same backbone"
        )


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        RecipeError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise RecipeError(f"pretrained={file} needs safetensors; {INSTALL}") from error
    try:
        return load(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or not a file of safetensors: {error}") from error


def alike(name: str, known: list[str]) -> str:
    """Suggest names that begin like ``name``."""
    near = [each for each in known if each.startswith(name[:4])][:5]
    return f"; it has, for example, {', '.join(near or known[:5])}"
