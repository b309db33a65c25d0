"""What theta, confidence and classes look like over many pictures, and how far that is from a reference.

Quantities of theta are of the region that it cuts out of the picture: how it is turned, its size, where its centre
lies, and how much of it lies out of the picture. Affine transformers alone have all of them: of projective maps and
splines theta is only the map that fits best.

The distance is the population stability index, the sum over bins of (found - expected) * ln(found / expected): Lewis
1994, *An Introduction to Credit Scoring*; what it is by chance: Yurdakul and Naranjo 2020, Journal of Risk Model
Validation 14 (4). By custom, below 0.1 nothing has happened and from 0.25 on the population is another (Siddiqi 2006).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from export.golden import Outputs
from export.manifest import Distribution, Manifest, Quantity, Reference, Transform

Name = tuple[str, Quantity]
"""Transformer (empty for what is of the whole model) and quantity."""
Values = dict[Name, NDArray[np.float64]]
"""``(N,)`` each: one value a picture."""

SHOWS: Final[Mapping[str, frozenset[Quantity]]] = {
    "affine": frozenset({"rotation", "scale", "shift_x", "shift_y"}),
    "similarity": frozenset({"rotation", "scale", "shift_x", "shift_y"}),
    "attention": frozenset({"scale", "shift_x", "shift_y"}),
    "rotation": frozenset({"rotation"}),
}
"""What theta can change, by the kind of transformer; all kinds show `outside`."""
RESOLUTION: Final[Mapping[Quantity, float]] = {
    "rotation": 0.5,
    "scale": 0.005,
    "shift_x": 0.005,
    "shift_y": 0.005,
    "outside": 0.02,
}
"""Narrowest bins: devices and precisions may round theta otherwise, and that is no drift."""
BINS: Final = 10
"""Of geometry, with as many pictures of the reference in each as can be."""
CONFIDENCES: Final = (0.5, 0.7, 0.9, 0.99, 0.999)
"""Edges for confidence, most of which lies so near to 1 that quantiles of it would be rounding."""
MOST_CLASSES: Final = 20
"""Bins of classes; neighbours share one where there are more classes."""
PROBES: Final = 8
"""Points along each side of a region, to see how much of it lies out of the picture."""


def values(outputs: Outputs, manifest: Manifest) -> Values:
    """What the model's ``outputs`` for N pictures show, those that are not numbers as NaN."""
    probabilities = outputs[manifest.probabilities]
    found: Values = {
        ("", "confidence"): probabilities.max(axis=1).astype(np.float64),
        ("", "classes"): probabilities.argmax(axis=1).astype(np.float64),
    }
    height, width = manifest.input.height, manifest.input.width
    for transform in manifest.transforms:
        theta = outputs[transform.theta].astype(np.float32)
        shows = {**geometry(theta.astype(np.float64), transform, height, width), "outside": outside(theta)}
        wanted = SHOWS.get(transform.kind, frozenset()) | {"outside"}
        found |= {(transform.name, quantity): shows[quantity] for quantity in shows if quantity in wanted}
    return found


def geometry(
    theta: NDArray[np.float64], transform: Transform, height: int, width: int
) -> dict[Quantity, NDArray[np.float64]]:
    """Of thetas ``(N, 2, 3)`` into pictures of ``height`` x ``width`` pixels.

    ``rotation`` is that of the nearest rotation between pixels, clockwise in degrees; ``scale`` the root of the
    region's area as a share of the picture's; ``shift_x`` and ``shift_y`` where its centre lies from the picture's, in
    widths and heights of the picture.
    """
    (a, b, x), (c, d, y) = theta.transpose(1, 2, 0)
    turn = np.arctan2(
        c * height / transform.width - b * width / transform.height,
        (a * width / transform.width + d * height / transform.height),
    )
    return {
        "rotation": np.degrees(turn),
        "scale": np.sqrt(np.abs(a * d - b * c)),
        "shift_x": x / 2,
        "shift_y": y / 2,
    }


def outside(theta: NDArray[np.float32]) -> NDArray[np.float64]:
    """What share of the region of each theta ``(N, 2, 3)`` lies out of the picture: ``(N,)``."""
    along = (2 * np.arange(PROBES) + 1) / PROBES - 1
    x, y = np.meshgrid(along, along)
    probes = np.stack([x.ravel(), y.ravel(), np.ones(x.size)]).astype(np.float32)  # (3, M)
    points = np.abs(theta.reshape(-1, 3) @ probes).reshape(len(theta), 2, -1)  # one product for all: (N, 2, M)
    share: NDArray[np.float64] = (points.max(axis=1) > 1).mean(axis=1)
    share[~np.isfinite(theta).all(axis=(1, 2))] = np.nan
    return share


def make_reference(found: Values, dataset: str) -> Reference:
    """The reference of pictures that ``found`` was seen on."""
    distributions = []
    for (transform, quantity), seen in found.items():
        edges = choose_edges(quantity, seen)
        shares = count_in_bins(seen, edges) / len(seen)
        distributions.append(
            Distribution(
                transform=transform,
                quantity=quantity,
                edges=tuple(edges),
                shares=tuple(shares.round(6).tolist()),
                mean=round(float(seen.mean()), 6),
            )
        )
    return Reference(dataset=dataset, pictures=len(seen), distributions=tuple(distributions))


def choose_edges(quantity: Quantity, seen: NDArray[np.float64]) -> list[float]:
    """Where bins of ``quantity`` meet, for a reference of the values ``seen``."""
    if quantity == "confidence":
        return list(CONFIDENCES)
    if quantity == "classes":
        if seen.min() == seen.max():
            return [float(seen[0]) - 0.5, float(seen[0]) + 0.5]
        levels = np.arange(seen.max()) if seen.max() < MOST_CLASSES else quantiles(seen, MOST_CLASSES)
        return [float(level) + 0.5 for level in np.unique(levels)]
    step = RESOLUTION[quantity]
    low, high = float(seen.min()), float(seen.max())
    if high - low < step:
        return [round(low - step, 6), round(high + step, 6)]
    edges: list[float] = []
    for level in quantiles(seen, BINS).round(6).tolist():
        if not edges or level - edges[-1] >= step:
            edges.append(level)
    return edges


def quantiles(seen: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """The values that part ``seen`` into as many equal shares as there are ``bins``."""
    levels: NDArray[np.float64] = np.quantile(seen, np.arange(1, bins) / bins, method="lower")
    return levels


def count_in_bins(seen: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int64]:
    """How many values lie in each bin."""
    return np.bincount(np.searchsorted(edges, seen, side="left"), minlength=len(edges) + 1)


def distance(counts: Sequence[float], distribution: Distribution, pictures: int) -> float:
    """The population stability index of ``counts`` in the bins of ``distribution``, which is of ``pictures``.

    Half a picture is added to each bin of both, so that an empty one does not make it infinite.
    """
    bins = len(distribution.shares)
    expected = (np.array(distribution.shares) * pictures + 0.5) / (pictures + 0.5 * bins)
    found = (np.array(counts) + 0.5) / (sum(counts) + 0.5 * bins)
    return float(((found - expected) * np.log(found / expected)).sum())
