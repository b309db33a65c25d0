"""Try out a network before it is traced: its answer to a picture must depend on that picture alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from export.adopt.errors import refusing
from export.format.errors import ArtifactError

CLOSE = 1e-4
"""Largest relative difference between the answers for a picture alone and in a batch, which rounding explains."""
ONLY = "output"
"""Name of the output of a network that returns a tensor."""


class Answer(NamedTuple):
    """An output of the network."""

    name: str
    axis: int
    """The batch axis."""
    values: Tensor
    """For all pictures, with the batch axis in front: ``(N, ...)``."""


class Chosen(nn.Module):
    """The network with some of its outputs as a tuple, each ``(N, ...)`` float."""

    def __init__(self, network: nn.Module, axes: Mapping[str, int]) -> None:
        """``axes`` has the batch axis of each chosen output."""
        super().__init__()
        self.network = network
        self.axes = dict(axes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(N, C, H, W)``, normalised -> the chosen outputs."""
        found = flatten(self.network(pixels))
        chosen = [found[name].movedim(axis, 0) for name, axis in self.axes.items()]
        return tuple(value if value.dtype is torch.float32 else value.float() for value in chosen)


def flatten(answer: Any, name: str = "") -> dict[str, Tensor]:
    """Return all tensors in an answer by name; numbers and None are left out."""
    if isinstance(answer, Tensor):
        return {name or ONLY: answer}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        answer = dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, (list, tuple)):
        answer = {f"{ONLY}_{place}" if not name else str(place): part for place, part in enumerate(answer)}
    if not isinstance(answer, Mapping):
        return {}
    parts = [flatten(part, f"{name}_{key}" if name else str(key)) for key, part in answer.items()]
    return {key: value for part in parts for key, value in part.items()}


def try_out(network: nn.Module, pixels: Tensor) -> list[Answer]:
    """Run ``network`` on ``pixels`` ``(N, C, H, W)``, with N of at least 3, and return its outputs.

    Raises:
        ArtifactError: it fails, or its answer for a picture depends on chance, on earlier pictures or on others.
    """
    _, channels, height, width = pixels.shape
    before = {name: value.clone() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    with torch.no_grad():
        with refusing("forward", f"is --size {height}x{width} --channels {channels} what it was trained with?"):
            found = flatten(network(pixels.clone()))
        with refusing(
            "forward",
            "it fails for some numbers of pictures; views need x.size(0) or -1, and batch normalisation must not train",
        ):
            alone = flatten(network(pixels[:1].clone()))
            fewer = flatten(network(pixels[1:].clone()))
        again = flatten(network(pixels.clone()))
    if not found:
        raise ArtifactError("forward returns no tensor; return one, or a tuple or dictionary of them")
    answers = [Answer(name, *in_front(name, [found, fewer], len(pixels))) for name in found]
    check_repeatable(found, again)
    after = network.state_dict()
    if changed := [name for name, value in before.items() if not torch.equal(value, after[name])]:
        raise ArtifactError(
            f"forward changes {changed[0]}, so an answer would depend on earlier pictures; change it only if "
            "self.training"
        )
    for answer in answers:
        if not bool(torch.isfinite(answer.values).all()):
            raise ArtifactError(f"{answer.name} is not finite for a picture; check --mean and --std, and the weights")
        check_independent(answer, alone, fewer)
    return answers


def in_front(name: str, answers: list[dict[str, Tensor]], count: int) -> tuple[int, Tensor]:
    """Return the batch axis of an output and the output with that axis in front.

    ``answers`` are those for ``count`` pictures and for one picture less.
    """
    more, fewer = (answer[name] for answer in answers)
    sizes = list(zip(more.shape, fewer.shape, strict=False))
    axes = [axis for axis, pair in enumerate(sizes) if pair == (count, count - 1)]
    if more.dim() != fewer.dim() or len(axes) != 1 or any(a != b for i, (a, b) in enumerate(sizes) if i != axes[0]):
        raise ArtifactError(
            f"{name} is {tuple(more.shape)} for {count} pictures and {tuple(fewer.shape)} for {count - 1}, but needs "
            "one row for each picture; a view with a fixed size, such as view(1, -1) or view(-1, 320) for another "
            "--size, mixes pictures"
        )
    return axes[0], more.movedim(axes[0], 0).float()


def check_repeatable(found: dict[str, Tensor], again: dict[str, Tensor]) -> None:
    """Raise `ArtifactError` unless the same pictures give the same answers twice."""
    for name, value in found.items():
        if not torch.allclose(value.float(), again[name].float(), rtol=CLOSE, atol=CLOSE, equal_nan=True):
            raise ArtifactError(
                f"{name} differs when the same pictures are sent again; dropout or noise is active in evaluation: "
                "write functional.dropout(x, training=self.training), or use nn.Dropout"
            )


def check_independent(answer: Answer, alone: dict[str, Tensor], fewer: dict[str, Tensor]) -> None:
    """Raise `ArtifactError` unless pictures have the same answers alone and in other batches."""
    first = alone[answer.name].movedim(answer.axis, 0).float()
    others = fewer[answer.name].movedim(answer.axis, 0).float()
    scale = max(1.0, float(answer.values.abs().max()))
    if any(
        not torch.allclose(one, other, rtol=0, atol=CLOSE * scale)
        for one, other in ((first, answer.values[:1]), (others, answer.values[1:]))
    ):
        raise ArtifactError(
            f"{answer.name} for a picture depends on the other pictures of its batch; batch normalisation uses the "
            "batch (train mode, or track_running_stats=False), or a view mixes pictures"
        )
