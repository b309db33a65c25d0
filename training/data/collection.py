"""Labelled pictures, what gives them, and how some are held out for validation."""

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from training.data.random_streams import Stream, seeded
from training.errors import DataError


class Collection(NamedTuple):
    """Labelled pictures of one size."""

    images: Tensor
    """``(N, C, H, W)`` uint8."""
    labels: Tensor
    """``(N,)`` int64."""
    groups: Tensor | None = None
    """``(N,)`` int64: pictures of the same scene have the same number, and belong together."""
    boxes: Tensor | None = None
    """``(N, 2, 2)``: where the object is, as its least and greatest (x, y), normalised to [-1, 1]."""

    def at(self, positions: Tensor) -> Self:
        """Those at ``positions``."""
        groups, boxes = (None if part is None else part[positions] for part in (self.groups, self.boxes))
        return type(self)(self.images[positions], self.labels[positions], groups, boxes)


class Source(Protocol):
    """The data set of a recipe. It opens no test picture before it is asked for them."""

    classes: tuple[str, ...]
    """Their names, in the order of the labels."""

    def training(self) -> tuple[Collection, Collection]:
        """The pictures to train on and, held out from them, those to validate on.

        Raises:
            DataError: they cannot be read, or are too few.
        """

    def test(self) -> Collection:
        """The test pictures.

        Raises:
            DataError: they cannot be read.
        """


def hold_out(whole: Collection, size: int, name: str) -> tuple[Collection, Collection]:
    """Hold out ``size`` pictures chosen at random, the same ones each time: what is left, and they.

    Where there are groups, whole groups are held out, about as large a share of each class.

    Raises:
        DataError: there are no more than ``size``, or nothing but whole classes; the message calls them ``name``.
    """
    count = len(whole.labels)
    if size >= count:
        raise DataError(
            f"{name} has {count} training pictures, so {size} cannot be held out; lower it with --set validation_size=N"
        )
    if whole.groups is None:
        order = torch.randperm(count, generator=seeded(Stream.SPLIT))
        return whole.at(order[size:]), whole.at(order[:size])
    held = torch.isin(whole.groups, held_groups(whole.labels, whole.groups, size / count))
    if not held.any():
        raise DataError(f"every class of {name} is one scene, so none can be held out; say where scenes begin and end")
    return whole.at(torch.nonzero(~held)[:, 0]), whole.at(torch.nonzero(held)[:, 0])


def held_groups(labels: Tensor, groups: Tensor, share: float) -> Tensor:
    """Choose whole groups that make up about ``share`` of the pictures of each class, and leave it at least one.

    Args:
        labels: ``(N,)``.
        groups: ``(N,)``; a group counts for the class of its first picture.
        share: 0 to 1.

    Returns:
        the chosen groups, ``(G,)``.
    """
    chosen = []
    generator = seeded(Stream.SPLIT)
    names, member = torch.unique(groups, return_inverse=True)
    sizes = member.bincount()
    first = torch.full_like(names, len(member)).scatter_reduce(0, member, torch.arange(len(member)), "amin")
    for label in labels[first].unique():  # type: ignore[no-untyped-call]
        own = torch.nonzero(labels[first] == label)[:, 0]
        own = own[torch.randperm(len(own), generator=generator)]
        before = sizes[own].cumsum(0) - sizes[own]
        chosen.append(own[:-1][before[:-1] < share * sizes[own].sum()])
    found: Tensor = names[torch.cat(chosen)]
    return found
