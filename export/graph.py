"""The served network: from uint8 pictures to probabilities and rectified pictures."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.format.errors import ArtifactError
from export.format.manifest import NO_TRANSFORMER, ImageInput, Transform
from training.fitting.runs import RunInfo
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import Sampler
from training.networks.spatial import SpatialTransformer
from training.networks.transformers import Transformer
from training.recipes.recipe import Recipe

INPUT = "image"
PROBABILITIES = "probabilities"
WHITE = 255
PLAIN_KINDS = ("affine", "similarity", "attention", "translation", "rotation", NO_TRANSFORMER)
"""Kinds of transformers that theta describes completely."""


class ServedNetwork(nn.Module):
    """Wraps a trained network: uint8 pictures -> probabilities and the outputs of each transformer; see `signature`."""

    def __init__(self, network: SpatialTransformerClassifier, temperature: float = 1.0) -> None:
        """``temperature`` is the divisor of the logits that calibrates probabilities (Guo et al. 2017)."""
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.white = WHITE
        """Grey level that the network reads as 1."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(N, H, W, C)`` uint8 -> ``(N, K)`` float32, or ``(N, T, K)``, and up to three outputs for each transformer.

        They are theta ``(N, 2, 3)`` float32, the parameters ``(N, rows, columns)`` float32 unless they equal theta,
        and the rectified image ``(N, h, w, C)`` uint8. Without a transformer, they are the identity and the picture.
        """
        # Converted before it is transposed, because TensorRT transposes no uint8.
        output = self.network(image.float().permute(0, 3, 1, 2) / self.white)  # (N, C, H, W)
        answers = [self.probabilities(output.logits)]
        if not output.warps:
            return *answers, torch.eye(2, 3).expand(image.shape[0], 2, 3).clone(), image.clone()
        for transform, warp in zip(transforms(self.network.recipe), output.warps, strict=True):
            answers.append(warp.theta)
            if transform.parameters != transform.theta:
                answers.append(warp.parameters)
            grey_levels = torch.round(self.network.as_picture(warp.rectified) * self.white)
            answers.append(grey_levels.permute(0, 2, 3, 1).to(torch.uint8))
        return tuple(answers)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits ``(N, K)`` or ``(N, T, K)`` to probabilities; each row sums to 1."""
        return (logits if self.temperature == 1 else logits / self.temperature).softmax(dim=-1)


def folded(network: ServedNetwork) -> ServedNetwork:
    """Return a copy of ``network`` with constants folded into its weights, so that its graph has fewer operations.

    It gives the same answers except for rounding, which export checks:

    - It reads grey levels from 0 to 255 instead of shares from 0 to 1, and only subtracts their mean. The weights of
      the first layers include the division by the standard deviation.
    - Localisation networks predict all parameters of a transform instead of offsets from the identity.
    - Logits leave the classifier divided by the temperature.
    """
    copy = deepcopy(network)
    inner = copy.network
    with torch.no_grad():
        if inner.recipe.normalise != "each":  # or the network measures each picture itself
            read_grey_levels(inner)
            copy.white = 1
            divide_in_first_layers(inner)
        transforms = [*inner.transforms, *([inner.feature_transform] if inner.feature_transform is not None else [])]
        for transform in transforms:
            predict_parameters(transform)
        last = inner.classifier.head[-1] if isinstance(inner.classifier.head, nn.Sequential) else None
        if isinstance(last, nn.Linear):
            scale(last, 1 / copy.temperature)
            copy.temperature = 1.0
    return copy.eval()


def read_grey_levels(network: SpatialTransformerClassifier) -> None:
    """Let ``network`` read pictures from 0 to `WHITE`."""
    network.mean *= WHITE
    if network.std is not None:
        network.std = network.std * WHITE
    for sampler in network.modules():
        if isinstance(sampler, Sampler) and not isinstance(sampler.padding, str):
            sampler.padding *= WHITE


def divide_in_first_layers(network: SpatialTransformerClassifier) -> None:
    """Let the first layers of ``network`` divide by the standard deviation: all layers before them are linear.

    What a backbone's layers do is not known, so its network keeps the division.
    """
    if network.recipe.is_backbone:
        return
    localisations = dict.fromkeys(each for one in network.transforms for each in one.localisations)
    if network.std is None or not all(isinstance(each, nn.Sequential) for each in localisations):
        return
    factors = (1 / network.std).flatten()  # (C,)
    rescale_inputs(network.classifier, factors.repeat(max(1, network.recipe.branches)))
    if not network.recipe.shared_stage:  # or they read features
        for localisation in localisations:
            rescale_inputs(localisation, factors, others=2 * network.recipe.coordinates)
    network.std = None


def rescale_inputs(part: nn.Module, factors: Tensor, others: int = 0) -> None:
    """Multiply the first layer's weights by ``factors`` ``(C,)``, one for each channel; ``others`` more follow."""
    first = next(layer for layer in part.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    channels = first.weight.view(first.weight.shape[0], len(factors) + others, -1)
    channels[:, : len(factors)] *= factors[:, None]


class Direct(Transformer):
    """A transformer whose localisation network predicts all parameters of the map, not offsets."""

    def __init__(self, inner: Transformer, shape: torch.Size) -> None:
        """``shape`` is that of the parameters of one picture."""
        super().__init__(inner.aspect)
        self.inner = inner
        self.shape = shape
        self.parameter_count = shape.numel()

    def solve(self, delta: Tensor) -> Tensor:
        return delta.view(-1, *self.shape)

    def points(self, parameters: Tensor, points: Tensor) -> Tensor:
        return self.inner.points(parameters, points)

    def theta(self, parameters: Tensor, grid: Tensor) -> Tensor:
        return self.inner.theta(parameters, grid)


def predict_parameters(transform: SpatialTransformer) -> None:
    """Let the localisation networks of ``transform`` predict its parameters, if these depend linearly on delta."""
    kind = transform.transformer
    if not kind.linear or not all(ends_linearly(each) for each in transform.localisations):
        return
    start = kind.solve(torch.zeros(1, kind.parameter_count))
    columns = (kind.solve(torch.eye(kind.parameter_count)) - start).flatten(1)  # (P, parameters)
    for localisation in once(transform.localisations):
        head = localisation[-1]
        if not isinstance(head, nn.Linear):
            raise TypeError(f"{type(head).__name__} is not linear")
        whole = nn.Linear(head.in_features, columns.shape[1])
        whole.weight.copy_(columns.T @ head.weight)
        whole.bias.copy_(columns.T @ head.bias + start.flatten())
        localisation[-1] = whole
    transform.transformer = Direct(kind, start.shape[1:])


def ends_linearly(network: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether the last layer of ``network`` is linear."""
    return isinstance(network, nn.Sequential) and isinstance(network[-1], nn.Linear)


def once(localisations: Iterable[nn.Module]) -> list[nn.Sequential]:
    """Return each of ``localisations`` once; steps may share a network."""
    return [module for module in dict.fromkeys(localisations) if isinstance(module, nn.Sequential)]


def scale(layer: nn.Linear, factor: float) -> None:
    """Multiply the outputs of ``layer`` by ``factor``."""
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)


class Exact(TorchFunctionMode):
    """Computes in float64 instead of float32, to measure the effect of rounding."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace every ``.float()`` by ``.double()``."""
        return args[0].double() if func is Tensor.float else func(*args, **(kwargs or {}))


class Signature(NamedTuple):
    """Input and outputs of a `ServedNetwork`, for the manifest."""

    input: ImageInput
    transforms: tuple[Transform, ...]
    outputs: Sequence[str]


def signature(info: RunInfo) -> Signature:
    """Return input and outputs of the network that ``info`` describes.

    Raises:
        ArtifactError: the artifact format does not support such a network.
    """
    recipe = info.recipe
    if info.channels not in (1, 3):
        raise ArtifactError(f"{recipe.name} has pictures of {info.channels} channels; only 1 and 3 can be exported")
    found = transforms(recipe)
    height, width = recipe.canvas
    image = ImageInput(
        name=INPUT,
        height=height,
        width=width,
        channels=1 if info.channels == 1 else 3,
        resize="bilinear",
        background=(0,) * info.channels,
    )
    outputs = [PROBABILITIES]
    for transform in found:
        outputs += dict.fromkeys((transform.theta, transform.parameters, transform.rectified))
    return Signature(image, found, outputs)


class Place(NamedTuple):
    """The position of a transformer in the network."""

    name: str
    branch: int
    step: int
    reads: Literal["picture", "features"]
    size: tuple[int, int]
    """Height and width of its rectified image."""


def transforms(recipe: Recipe) -> tuple[Transform, ...]:
    """Return the network's transformers in the order of its warps: branches with their steps, then that of features.

    A recurrent one is described by a branch for each object, since every crop is one of the picture.

    A network without any is described by one of the kind `NO_TRANSFORMER`.
    """
    places: list[Place] = []
    for branch in range(1, recipe.branches + 1):
        for step in range(1, recipe.steps + 1):
            parts = [f"branch{branch}"] * (recipe.branches > 1) + [f"step{step}"] * (recipe.steps > 1)
            size = recipe.view or recipe.canvas if step < recipe.steps else recipe.rectified
            places.append(Place("_".join(parts) or "transformer", branch, step, "picture", size))
    if recipe.recurrent:
        places = [Place(f"object{n}", n, 1, "picture", recipe.rectified) for n in range(1, recipe.sequence + 1)]
    if recipe.feature_stage:
        places.append(Place("features", 1, 1, "features", recipe.rectified))
    if not places:
        places.append(Place("transformer", 1, 1, "picture", recipe.canvas))
    return tuple(transform(recipe, place, alone=len(places) == 1) for place in places)


def transform(recipe: Recipe, place: Place, *, alone: bool) -> Transform:
    """Describe one transformer; the names of its outputs include its own unless it is the only one (``alone``).

    Raises:
        ArtifactError: the artifact format does not support the recipe's kind of transformer.
    """
    shapes = dict.fromkeys(PLAIN_KINDS, (2, 3)) | {"projective": (3, 3), "tps": (recipe.control_points**2, 2)}
    if recipe.transformer not in shapes:
        raise ArtifactError(f"transformers of kind {recipe.transformer!r} cannot be exported; supported: {[*shapes]}")
    suffix = "" if alone else f"_{place.name}"
    is_theta = alone and recipe.transformer in PLAIN_KINDS
    return Transform(
        name=place.name,
        kind=recipe.transformer,
        branch=place.branch,
        step=place.step,
        reads=place.reads,
        theta=f"theta{suffix}",
        parameters=f"theta{suffix}" if is_theta else f"parameters{suffix}",
        parameters_shape=shapes[recipe.transformer],
        rectified=f"rectified{suffix}",
        height=place.size[0],
        width=place.size[1],
    )
