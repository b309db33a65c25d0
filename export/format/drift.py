"""Distributions of theta, confidence and classes over many pictures, and their distance from a reference.

The quantities of theta describe the region that is sampled: its rotation, its size, its centre, and the share of it
that lies outside the picture. Only affine transformers have all of them; for projective maps and splines, theta is
merely the best affine fit.

The distance is the population stability index, the sum over bins of (found - expected) * ln(found / expected): Lewis
1994, *An Introduction to Credit Scoring*. Its distribution under chance: Yurdakul and Naranjo 2020, Journal of Risk
Model Validation 14 (4). By convention, values below 0.1 mean no change, and 0.25 or more a different population
(Siddiqi 2006).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from export.format.golden import Outputs
from export.format.manifest import NO_TRANSFORMER, Distribution, Manifest, Quantity, Reference, Transform

Name = tuple[str, Quantity]
"""Name of a transformer (empty for quantities of the whole model), and quantity."""
Values = dict[Name, NDArray[np.float64]]
"""Arrays ``(N,)``: one value per picture."""

SHOWS: Final[Mapping[str, frozenset[Quantity]]] = {
    "affine": frozenset({"rotation", "scale", "shift_x", "shift_y"}),
    "similarity": frozenset({"rotation", "scale", "shift_x", "shift_y"}),
    "attention": frozenset({"scale", "shift_x", "shift_y"}),
    "translation": frozenset({"shift_x", "shift_y"}),
    "rotation": frozenset({"rotation"}),
}
"""Quantities that theta can change, by kind of transformer; every kind also has `outside`."""
RESOLUTION: Final[Mapping[Quantity, float]] = {
    "rotation": 0.5,
    "scale": 0.005,
    "shift_x": 0.005,
    "shift_y": 0.005,
    "outside": 0.02,
}
"""Narrowest bins. Rounding differs between devices and precisions, and must not count as drift."""
BINS: Final = 10
"""Number of bins for quantities of theta, each with about the same number of reference pictures."""
CONFIDENCES: Final = (0.5, 0.7, 0.9, 0.99, 0.999)
"""Bin edges for confidence. Quantiles would not do: most values are so close to 1 that rounding would decide."""
MOST_CLASSES: Final = 20
"""Largest number of bins for classes; beyond it, neighbouring classes share a bin."""
PROBES: Final = 8
"""Test points along each side of a region, to measure the share of it that lies outside the picture."""


def values(outputs: Outputs, manifest: Manifest) -> Values:
    """Return all quantities of the model's ``outputs`` for N pictures; non-finite outputs give NaN."""
    found: Values = {}
    if manifest.probabilities:
        probabilities = outputs[manifest.probabilities]
        if manifest.sequence is not None:  # the confidence that all objects are right
            found["", "confidence"] = probabilities.max(axis=2).prod(axis=1).astype(np.float64)
        else:
            found["", "confidence"] = probabilities.max(axis=1).astype(np.float64)
            found["", "classes"] = probabilities.argmax(axis=1).astype(np.float64)
    height, width = manifest.input.height, manifest.input.width
    for transform in manifest.transforms:
        if transform.kind == NO_TRANSFORMER:
            continue
        theta = outputs[transform.theta].astype(np.float32)
        shows = {**geometry(theta.astype(np.float64), transform, height, width), "outside": outside(theta)}
        wanted = SHOWS.get(transform.kind, frozenset()) | {"outside"}
        found |= {(transform.name, quantity): shows[quantity] for quantity in shows if quantity in wanted}
    return found


def geometry(
    theta: NDArray[np.float64], transform: Transform, height: int, width: int
) -> dict[Quantity, NDArray[np.float64]]:
    """Return the geometric quantities of thetas ``(N, 2, 3)`` for pictures of ``height`` x ``width`` pixels.

    ``rotation`` is the angle of the nearest rotation between pixel frames, clockwise in degrees. ``scale`` is the
    square root of the region's area relative to the picture's. ``shift_x`` and ``shift_y`` are the offset of the
    region's centre from the picture's, in widths and heights of the picture.
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
    """Return the share of each theta's region that lies outside the picture: ``(N, 2, 3)`` -> ``(N,)``."""
    along = (2 * np.arange(PROBES) + 1) / PROBES - 1
    x, y = np.meshgrid(along, along)
    probes = np.stack([x.ravel(), y.ravel(), np.ones(x.size)]).astype(np.float32)  # (3, M)
    points = np.abs(theta.reshape(-1, 3) @ probes).reshape(len(theta), 2, -1)  # one product for all: (N, 2, M)
    share: NDArray[np.float64] = (points.max(axis=1) > 1).mean(axis=1)
    share[~np.isfinite(theta).all(axis=(1, 2))] = np.nan
    return share


def make_reference(found: Values, dataset: str) -> Reference:
    """Return the reference for the values ``found`` on the pictures of ``dataset``."""
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
    """Return the bin edges of ``quantity`` for a reference with the values ``seen``."""
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
    """Return the values that divide ``seen`` into ``bins`` equal shares."""
    levels: NDArray[np.float64] = np.quantile(seen, np.arange(1, bins) / bins, method="lower")
    return levels


def count_in_bins(seen: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int64]:
    """Return the number of values in each bin."""
    return np.bincount(np.searchsorted(edges, seen, side="left"), minlength=len(edges) + 1)


def distance(counts: Sequence[float], distribution: Distribution, pictures: int) -> float:
    """Return the population stability index of ``counts`` against a ``distribution`` over so many ``pictures``.

    Half a picture is added to each bin of both, so that an empty bin does not make the index infinite.
    """
    bins = len(distribution.shares)
    expected = (np.array(distribution.shares) * pictures + 0.5) / (pictures + 0.5 * bins)
    found = (np.array(counts) + 0.5) / (sum(counts) + 0.5 * bins)
    return float(((found - expected) * np.log(found / expected)).sum())
