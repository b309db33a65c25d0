"""The network (Jaderberg et al. 2015, figure 2): spatial transformers and a classifier, built from a recipe."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.backbones import backbone_classifier
from training.networks.classifiers import (
    Classifier,
    cifar_classifier,
    conv_classifier,
    residual_classifier,
    tutorial_classifier,
)
from training.networks.depth import freeze
from training.networks.geometry import affine_fit
from training.networks.localisation import localisation_network
from training.networks.recurrent import RecurrentTransformer, recurrent, row
from training.networks.samplers import Reduction, Sampler
from training.networks.spatial import Map, SpatialTransformer, Warp, centre, chain, tiles
from training.networks.transformers import (
    AffineTransformer,
    AttentionTransformer,
    ProjectiveTransformer,
    RotationTransformer,
    SimilarityTransformer,
    ThinPlateTransformer,
    Transformer,
    TranslationTransformer,
)
from training.recipes.recipe import Recipe, Size

FAINT = 0.02
"""Standard deviation of a picture, in [0, 1], below which its contrast is not raised to the full."""


class Output(NamedTuple):
    """The network's output for a batch."""

    logits: Tensor
    """``(N, K)``: unnormalised log-probabilities of the classes; ``(N, T, K)`` for a sequence of T objects."""
    warps: tuple[Warp, ...]
    """The warps of all spatial transformers, in the order of the data flow."""


class SpatialTransformerClassifier(nn.Module):
    """Spatial transformers on the picture, a classifier, and optionally a transformer on its features.

    By default the sampler reads the picture in [0, 1] and the rectified image is normalised, so that zero padding is
    black instead of grey.
    """

    mean: Tensor
    std: Tensor | None
    """None if the weights of the first layers include the division by it (see `export.graph.folded`)."""

    def __init__(self, recipe: Recipe, classes: int, channels: int) -> None:
        """Build the network for ``classes`` and for pictures of ``recipe.canvas`` pixels with ``channels``."""
        super().__init__()
        self.recipe = recipe
        self.classify_in_bf16 = False
        self.classes = classes
        self.classifier = classifier(recipe, classes, channels * max(1, recipe.branches))
        seen = self.classifier.widths[0] if recipe.shared_stage else channels
        starts = tiles(recipe.branches, recipe.tile) if recipe.branches > 1 else [centre(recipe.crop)] * recipe.branches
        transforms: list[SpatialTransformer]
        if recipe.recurrent:
            transforms = [sequence_transformer(recipe, seen)]
        else:
            transforms = [picture_transformer(recipe, seen, start) for start in starts]
        self.transforms: Sequence[SpatialTransformer] = nn.ModuleList(transforms)  # type: ignore[assignment]
        self.feature_transform = feature_transformer(recipe, self.classifier) if recipe.feature_stage else None
        self.register_buffer("mean", torch.tensor(recipe.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(recipe.std).view(-1, 1, 1))

    def localisation_networks(self) -> list[nn.Module]:
        """Return all localisation networks, each once; they can have a learning rate of their own."""
        transforms = [*self.transforms, *([self.feature_transform] if self.feature_transform is not None else [])]
        return list(dict.fromkeys(network for transform in transforms for network in transform.localisations))

    def forward(self, images: Tensor) -> Output:
        """``(N, C, H, W)`` in [0, 1] -> logits ``(N, K)``, or ``(N, T, K)`` of a sequence, and the warps."""
        if self.recipe.normalise == "before":
            images = self._normalise(images)
        branches = [transform(images, self._see) for transform in self.transforms]
        reads = [transform.read(branch) for transform, branch in zip(self.transforms, branches, strict=True)]
        views = [warp.rectified for branch in reads for warp in branch] or [images]
        warps = [warp for branch in branches for warp in branch]
        shown = [self._shown(view) for view in views]
        features = torch.stack(shown, dim=1).flatten(0, 1) if self.recipe.recurrent else torch.cat(shown, dim=1)
        for number, stage in enumerate(self.classifier.stages, start=1):
            features = self._classify(stage, features)
            if self.feature_transform is not None and number == self.recipe.feature_stage:
                (warp,) = self.feature_transform(features.float(), lambda view: view)
                features = warp.rectified
                warps.append(self._on_picture(warp, warps[-1].map, images))
        logits = self._classify(self.classifier.head, features).float()
        if self.recipe.sequence:
            logits = logits.view(-1, self.recipe.sequence, self.classes)
        return Output(logits, tuple(warps))

    def as_picture(self, view: Tensor) -> Tensor:
        """Convert a rectified image to the range [0, 1], also if the network normalises before sampling."""
        if self.recipe.normalise != "before":
            return view
        return (view if self.std is None else view * self.std) + self.mean

    def _normalise(self, images: Tensor) -> Tensor:
        """Normalise to zero mean and unit variance: ``(N, C, H, W)`` -> the same shape."""
        if self.recipe.normalise == "each":
            centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
            return centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True) + FAINT**2).sqrt()
        shifted = images - self.mean
        return shifted if self.std is None else shifted / self.std

    def _shown(self, view: Tensor) -> Tensor:
        return view if self.recipe.normalise == "before" else self._normalise(view)

    def _see(self, view: Tensor) -> Tensor:
        """Return the input of a localisation network for a view."""
        shown = self._shown(view)
        return self._classify(self.classifier.stages[0], shown).float() if self.recipe.shared_stage else shown

    def _classify(self, part: nn.Module, features: Tensor) -> Tensor:
        """Run a part of the classifier, in bfloat16 if training asks for it."""
        found: Tensor
        if not self.classify_in_bf16:
            found = part(features)
            return found
        with torch.autocast(features.device.type, torch.bfloat16):
            found = part(features)
        return found

    def _on_picture(self, warp: Warp, outer: Map, images: Tensor) -> Warp:
        """Express a warp of features as a warp of the picture, by composing it with the preceding ``outer`` map."""
        sampler = self.transforms[-1].samplers[-1]
        to_picture = chain(outer, warp.map)
        grid = to_picture(sampler.base)
        view = sampler(images, to_picture(sampler.fine))
        return Warp(affine_fit(grid, sampler.base), warp.parameters, warp.delta, grid, view, to_picture)


def transformer(recipe: Recipe, size: Size) -> Transformer:
    """Build the recipe's kind of transformer for pictures or features of ``size`` = (height, width)."""
    aspect = size[1] / size[0]
    made: dict[str, Callable[[], Transformer]] = {
        "affine": AffineTransformer,
        "similarity": lambda: SimilarityTransformer(aspect),
        "attention": AttentionTransformer,
        "translation": TranslationTransformer,
        "rotation": lambda: RotationTransformer(aspect),
        "projective": ProjectiveTransformer,
        "tps": lambda: ThinPlateTransformer(recipe.control_points),
    }
    return made[recipe.transformer]()


def classifier(recipe: Recipe, classes: int, channels: int) -> Classifier:
    """Build the recipe's classifier.

    One that reads all objects of a sequence at once has ``classes`` outputs for each.

    Raises:
        RecipeError: it is a backbone that does not exist, is not installed, or does not take the rectified image, or it
            has fewer stages than are to be frozen.
    """
    if recipe.is_backbone:
        branches = max(1, recipe.branches)
        backbone = backbone_classifier(recipe.classifier, channels // branches, classes, recipe.read_size, branches)
        freeze(backbone, recipe.frozen_stages)
        return backbone
    if recipe.classifier == "tutorial":
        return tutorial_classifier(channels, classes, recipe.read_size)
    if recipe.classifier == "cifar":
        return cifar_classifier(channels, classes)
    if recipe.classifier == "residual":
        return residual_classifier(channels, classes, recipe.classifier_width, recipe.classifier_blocks)
    if recipe.sequence and not recipe.recurrent:
        return conv_classifier(channels, recipe.sequence * classes, recipe.stage_widths, recipe.read_size)
    return conv_classifier(channels, classes, recipe.stage_widths)


def picture_transformer(recipe: Recipe, channels: int, start: Tensor | None) -> SpatialTransformer:
    """Build a transformer of the picture with all steps; ``channels`` are those of the localisation networks' input."""
    kind = transformer(recipe, recipe.canvas)
    view = recipe.view or recipe.canvas

    def network(name: str, size: tuple[int, int], side: float) -> nn.Module:
        return localisation_network(
            name, channels, size, kind.parameter_count, coordinates=recipe.coordinates, slope=recipe.slope, side=side
        )

    wider = recipe.margin if recipe.steps > 1 else 1.0
    first = network(recipe.localisation, recipe.seen_size, recipe.crop * wider)
    later = recipe.refinement or recipe.localisation
    sides = [1.0] * (recipe.steps - 2) + [1 / wider]
    networks = [first if recipe.shared_steps else network(later, view, side) for side in sides[: recipe.steps - 1]]
    samplers = [Sampler(view, recipe.padding) for _ in range(recipe.steps - 1)]
    samplers.append(Sampler(recipe.rectified, recipe.padding, recipe.points, pyramid=recipe.pyramid))
    glance = Reduction(recipe.canvas, recipe.localisation_size) if recipe.localisation_size else None
    return SpatialTransformer(kind, [first, *networks], samplers, start, recipe.margin, glance)


def sequence_transformer(recipe: Recipe, channels: int) -> RecurrentTransformer:
    """Build the transformer of a sequence; ``channels`` are those of the localisation network's input."""
    kind = transformer(recipe, recipe.canvas)
    network = localisation_network(
        recipe.localisation,
        channels,
        recipe.seen_size,
        kind.parameter_count,
        coordinates=recipe.coordinates,
        slope=recipe.slope,
    )
    sampler = Sampler(recipe.rectified, recipe.padding, recipe.points, pyramid=recipe.pyramid)
    glance = Reduction(recipe.canvas, recipe.localisation_size) if recipe.localisation_size else None
    starts = row(recipe.sequence, recipe.tile)
    return RecurrentTransformer(kind, recurrent(network, recipe.sequence), sampler, starts, glance)


def feature_transformer(recipe: Recipe, classifier: Classifier) -> SpatialTransformer:
    """Build the transformer of the features after stage ``recipe.feature_stage``."""
    channels = classifier.widths[recipe.feature_stage - 1]
    height, width = (side >> (recipe.feature_stage - 1) for side in recipe.rectified)
    kind = transformer(recipe, (height, width))
    network = localisation_network(
        recipe.localisation,
        channels,
        (height, width),
        kind.parameter_count,
        coordinates=recipe.coordinates,
        slope=recipe.slope,
    )
    return SpatialTransformer(kind, [network], [Sampler((height, width))])
