"""Labelled pictures, the interface of a data set, and the choice of the validation pictures."""

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from training.data.random_streams import Stream, seeded
from training.errors import DataError


class Corners(NamedTuple):
    """Where the thing lies in each picture, as far as it is known."""

    points: Tensor
    """``(N, 4, 2)``: the thing's corners, clockwise from its own top left, normalised to [-1, 1]; NaN if unknown."""
    boxed: Tensor
    """``(N,)``: whether the corners are only those of a box around the thing, which does not tell its rotation."""
    sizes: Tensor
    """``(N, 2)``: width and height of the picture's file in pixels; 1 if the corners are unknown."""

    @property
    def known(self) -> Tensor:
        """``(N,)``: whether the corners, or the box, are known."""
        return self.points[:, 0, 0].isfinite()

    def at(self, positions: Tensor) -> Self:
        """Return the corners of the pictures at ``positions``."""
        return type(self)(*(part[positions] for part in self))


class Split(NamedTuple):
    """Labelled pictures of one size."""

    images: Tensor
    """``(N, C, H, W)`` uint8."""
    labels: Tensor
    """``(N,)`` int64; ``(N, T)`` if each picture shows T objects in a row."""
    groups: Tensor | None = None
    """``(N,)`` int64: pictures of the same scene have the same number and must stay in one split."""
    boxes: Tensor | None = None
    """``(N, 2, 2)``: smallest and largest (x, y) of the object's bounding box, normalised to [-1, 1]."""
    corners: Corners | None = None
    """None if the data set has none."""

    def at(self, positions: Tensor) -> Self:
        """Return the pictures at ``positions``."""
        groups, boxes = (None if part is None else part[positions] for part in (self.groups, self.boxes))
        corners = None if self.corners is None else self.corners.at(positions)
        return type(self)(self.images[positions], self.labels[positions], groups, boxes, corners)


class Source(Protocol):
    """A data set. Test pictures are not read before `test` is called."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""

    def training(self) -> tuple[Split, Split]:
        """Return the training pictures, and the validation pictures held out from them.

        Raises:
            DataError: they cannot be read, or there are too few.
        """

    def test(self) -> Split:
        """Return the test pictures.

        Raises:
            DataError: they cannot be read.
        """


def hold_out(whole: Split, size: int, name: str) -> tuple[Split, Split]:
    """Split off ``size`` random pictures, the same ones each time; return the rest and the held-out pictures.

    If there are groups, whole groups are held out: about the same share of each class.

    Raises:
        DataError: there are too few pictures or groups; the message refers to the data set as ``name``.
    """
    count = len(whole.labels)
    if size >= count:
        raise DataError(
            f"{name} has {count} training pictures, so {size} cannot be held out; set a lower validation_size"
        )
    if whole.groups is None:
        order = torch.randperm(count, generator=seeded(Stream.SPLIT))
        return whole.at(order[size:]), whole.at(order[:size])
    held = torch.isin(whole.groups, held_groups(whole.labels, whole.groups, size / count))
    if not held.any():
        raise DataError(f"every class of {name} has only one scene, so none can be held out; add scenes")
    return whole.at(torch.nonzero(~held)[:, 0]), whole.at(torch.nonzero(held)[:, 0])


def held_groups(labels: Tensor, groups: Tensor, share: float) -> Tensor:
    """Choose whole groups with about ``share`` of each class's pictures, and leave at least one group of each class.

    Args:
        labels: ``(N,)``.
        groups: ``(N,)``; a group belongs to the class of its first picture.
        share: 0 to 1.

    Returns:
        The chosen groups, ``(G,)``.
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
