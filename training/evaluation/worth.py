"""The worth of theta: how much less accurate a network is if its transformers do not look at the picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.evaluation.intervals import mcnemar
from training.networks.geometry import affine_points
from training.networks.network import SpatialTransformerClassifier
from training.networks.spatial import SpatialTransformer, Warp

BATCH = 100
SMALLEST_LOSS = 0.001
"""Loss of accuracy without theta below which a transformer is decoration."""
CERTAIN = 0.05
"""p-value above which the loss of accuracy may be chance."""
DECORATION_CURE = (
    "let finding pay: set placement.chance and pose, or widen augmentation and set canonical, and lower area; or leave "
    "the transformer out with transformer=none"
)
"""Advice for a transformer that is decoration."""
SEQUENCE_CURE = (
    "raise canvas, so that the objects lie in more places; or leave the transformer out, as the recipe "
    "mnist-sequence-cnn does"
)
"""The same for sequences."""

Hook = Callable[[SpatialTransformer, tuple[Tensor, ...], tuple[Warp, ...]], tuple[Warp, ...] | None]


class Worth(BaseModel):
    """Accuracy of a network with the theta that it predicts, and with one theta for all pictures."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    pictures: int
    accuracy: float
    mean_theta: float
    """Accuracy with the theta of each transformer replaced by its mean over these pictures."""
    identity: float
    """Accuracy with theta replaced by the identity, which is the whole picture."""
    lost: float
    """Accuracy lost without theta: with its mean or with the identity, whichever is better."""
    p_value: float
    """p-value of this loss; see `training.evaluation.intervals.PairedTest`."""
    decoration: bool
    """Whether the loss is too small to matter, or may be chance."""


def measure_worth(network: SpatialTransformerClassifier, images: Tensor, labels: Tensor) -> Worth:
    """Measure the worth of theta on ``images`` ``(N, C, H, W)`` uint8 with ``labels`` ``(N,)``, or ``(N, T)``.

    The network must have a transformer and be in evaluation mode.
    """
    places = [module for module in network.modules() if isinstance(module, SpatialTransformer)]
    seen: dict[SpatialTransformer, list[Tensor]] = {place: [] for place in places}

    def record(place: SpatialTransformer, _: tuple[Tensor, ...], warps: tuple[Warp, ...]) -> None:
        seen[place].append(torch.stack([warp.theta for warp in place.read(warps)], dim=1))

    def right() -> Tensor:
        batches = torch.split(images, BATCH)
        with torch.inference_mode():
            found = torch.cat([network(batch.float() / 255).logits.argmax(dim=-1) for batch in batches])
            return found == labels

    with hooked(dict.fromkeys(places, record)):
        predicted = right()
    means = {place: torch.cat(thetas).mean(dim=0) for place, thetas in seen.items()}
    with hooked({place: partial(replace, theta) for place, theta in means.items()}):
        mean = right()
    with hooked({place: partial(replace, torch.eye(2, 3).expand_as(theta)) for place, theta in means.items()}):
        identity = right()
    test = mcnemar(predicted, max(mean, identity, key=lambda found: int(found.sum())))
    return Worth(
        pictures=len(labels),
        accuracy=share(predicted),
        mean_theta=share(mean),
        identity=share(identity),
        lost=round(test.difference, 6),
        p_value=test.p_value,
        decoration=test.difference < SMALLEST_LOSS or test.p_value > CERTAIN,
    )


@contextmanager
def hooked(hooks: dict[SpatialTransformer, Hook]) -> Iterator[None]:
    """Call a hook after each of these transformers, and use what it returns in place of their warps."""
    handles = [place.register_forward_hook(hook) for place, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def replace(
    thetas: Tensor, place: SpatialTransformer, inputs: tuple[Tensor, ...], warps: tuple[Warp, ...]
) -> tuple[Warp, ...]:
    """Return ``warps`` with those that are read sampled through ``thetas`` ``(R, 2, 3)`` for every picture."""
    images, sampler = inputs[0], place.samplers[-1]
    replaced = []
    for theta, warp in zip(thetas, place.read(warps), strict=True):
        every = theta.expand(len(images), -1, -1)
        fixed = partial(affine_points, every)
        view = sampler(images, fixed(sampler.fine))
        replaced.append(warp._replace(theta=every, grid=fixed(sampler.base), rectified=view, map=fixed))
    return (*warps[: -len(replaced)], *replaced)


def share(right: Tensor) -> float:
    """Return the share of pictures ``(N,)``, or of objects ``(N, T)``, that are right."""
    return round(float(right.double().mean()), 6)
