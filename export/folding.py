"""Fold constants into a network's weights, so that the exported graph has fewer operations.

The folded network gives the same answers except for rounding, which export checks:

- The network reads grey levels from 0 to 255 instead of shares from 0 to 1, and only subtracts their mean. The weights
  of the first layers include the division by the standard deviation.
- Localisation networks predict all parameters of a transform instead of offsets from the identity.
- Logits leave the classifier divided by the temperature.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from export.graph import WHITE, ServedNetwork
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import Sampler
from training.networks.spatial import SpatialTransformer
from training.networks.transformers import Transformer


def folded(network: ServedNetwork) -> ServedNetwork:
    """Return a copy of ``network`` with its constants folded into the weights."""
    copy = deepcopy(network)
    inner = copy.network
    with torch.no_grad():
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
    network.std *= WHITE
    for sampler in network.modules():
        if isinstance(sampler, Sampler) and not isinstance(sampler.padding, str):
            sampler.padding *= WHITE


def divide_in_first_layers(network: SpatialTransformerClassifier) -> None:
    """Let the first layers of ``network`` divide by the standard deviation: all layers before them are linear."""
    if network.std is None:
        return
    factors = (1 / network.std).flatten()  # (C,)
    rescale_inputs(network.classifier, factors.repeat(max(1, network.recipe.branches)))
    if not network.recipe.shared_stage:  # or they read features
        for localisation in dict.fromkeys(each for one in network.transforms for each in one.localisations):
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
    if not kind.linear:
        return
    start = kind.solve(torch.zeros(1, kind.parameter_count))
    columns = (kind.solve(torch.eye(kind.parameter_count)) - start).flatten(1)  # (P, parameters)
    for localisation in once(transform.localisations):
        head = localisation[-1]
        whole = nn.Linear(head.in_features, columns.shape[1])
        whole.weight.copy_(columns.T @ head.weight)
        whole.bias.copy_(columns.T @ head.bias + start.flatten())
        localisation[-1] = whole
    transform.transformer = Direct(kind, start.shape[1:])


def once(localisations: Iterable[nn.Module]) -> list[nn.Sequential]:
    """Return each of ``localisations`` once; steps may share a network."""
    return [module for module in dict.fromkeys(localisations) if isinstance(module, nn.Sequential)]


def scale(layer: nn.Linear, factor: float) -> None:
    """Multiply the outputs of ``layer`` by ``factor``."""
    layer.weight *= factor
    layer.bias *= factor
