"""Is the exported model the trained one? Compared on real and random pictures before anything is put in place.

The bound is 1e-5 for probabilities and parameters. Where float32 itself forbids that (a sharp classifier on noise, a
spline in several steps), it is `ROUNDINGS` times as far as rounding takes the PyTorch model from its own answers in
float64, which is measured on the same pictures.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ParityError
from export.golden import Outputs
from export.graph import Exact, ServedNetwork, Signature
from export.manifest import Parity, Tolerance

BATCH_SIZES = (1, 2, 33, 256)
EXACT_BATCH = 16
TOLERANCE = 1e-5
"""Largest difference of probabilities and parameters that passes, unless rounding is to blame."""
ROUNDINGS = 4
LOOSEST = 1e-3
"""Rounding is no excuse for more."""
WITHIN_ONE_LEVEL = 0.9999
"""Share of the rectified images' pixels that differ by one grey level at most."""

Model = Callable[[NDArray[np.uint8]], Outputs]
"""Pictures ``(N, H, W, C)`` -> outputs by name."""


def trained(network: ServedNetwork, outputs: tuple[str, ...]) -> Model:
    """The network itself as a model."""

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            answers = network(torch.from_numpy(images))
        return {name: answer.numpy() for name, answer in zip(outputs, answers, strict=True)}

    return run


def exact(network: ServedNetwork, outputs: tuple[str, ...]) -> Model:
    """The network in float64 as a model; it takes few pictures at a time, as its convolutions are copied for each."""
    run = trained(deepcopy(network).double(), outputs)

    def run_exactly(images: NDArray[np.uint8]) -> Outputs:
        with Exact():
            parts = [run(images[at : at + EXACT_BATCH]) for at in range(0, len(images), EXACT_BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    return run_exactly


def compare(
    reference: Model, exported: Model, signature: Signature, samples: NDArray[np.uint8], exactly: Model | None = None
) -> Parity:
    """`measure`, and refuse what is out of bounds.

    Raises:
        ParityError: they differ by more than is allowed, or in names, shapes or types.
    """
    parity = measure(reference, exported, signature, samples, exactly)
    check(parity)
    return parity


def measure(
    reference: Model, exported: Model, signature: Signature, samples: NDArray[np.uint8], exactly: Model | None = None
) -> Parity:
    """The largest differences between two models on ``samples`` ``(N, H, W, C)`` and on random pictures.

    Args:
        reference: what should be answered.
        exported: what is answered.
        signature: which output is what.
        samples: real pictures.
        exactly: what ``reference`` would answer without rounding; without it nothing is forgiven.

    Raises:
        ParityError: they differ in names, shapes or types.
    """
    gaps, roundings, sizes = [], [], []
    for images in pictures(samples):
        expected, found = reference(images), exported(images)
        check_form(expected, found, len(images))
        gaps.append(difference(expected, found, signature))
        sizes.append(len(images))
        if exactly is not None:
            roundings.append(difference(exactly(images), expected, signature))
    return Parity(
        probabilities=max(gap.probabilities for gap in gaps),
        parameters=max(gap.parameters for gap in gaps),
        rectified=max(gap.rectified for gap in gaps),
        within_one_level=float(np.average([gap.within_one_level for gap in gaps], weights=sizes)),
        rounding_probabilities=max((rounding.probabilities for rounding in roundings), default=None),
        rounding_parameters=max((rounding.parameters for rounding in roundings), default=None),
    )


def check(parity: Parity) -> None:
    """Raise `ParityError` unless ``parity`` is within the bounds."""
    exceeded = []
    for name in ("probabilities", "parameters"):
        rounding = getattr(parity, f"rounding_{name}") or 0
        allowed = max(TOLERANCE, min(ROUNDINGS * rounding, LOOSEST))
        if not getattr(parity, name) <= allowed:
            exceeded.append(f"{name} by {getattr(parity, name):g} (allowed {allowed:g})")
    if parity.within_one_level < WITHIN_ONE_LEVEL:
        exceeded.append(
            f"rectified by up to {parity.rectified} grey levels (allowed 1, at {WITHIN_ONE_LEVEL:.2%} of the pixels)"
        )
    if exceeded:
        raise ParityError(
            f"the exported model differs from the trained one: {', '.join(exceeded)}; nothing was written"
        )


def pictures(samples: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Batches of each size, of real pictures and of noise; where samples repeat, each time moved by one pixel more."""
    noise = np.random.default_rng(0)
    for size in BATCH_SIZES:
        yield np.stack([np.roll(samples[i % len(samples)], i // len(samples), axis=1) for i in range(size)])
        yield noise.integers(0, 256, (size, *samples.shape[1:]), dtype=np.uint8)


def check_form(expected: Outputs, found: Outputs, count: int) -> None:
    """Raise `ParityError` unless both have the same outputs, shapes and types for ``count`` pictures."""
    forms = [{name: (o.shape, str(o.dtype)) for name, o in outputs.items()} for outputs in (expected, found)]
    if forms[0] != forms[1] or any(shape[0] != count for shape, _ in forms[0].values()):
        raise ParityError(
            f"the exported model answers in another form: {forms[1]}, not {forms[0]}; nothing was written"
        )


def difference(expected: Outputs, found: Outputs, signature: Signature) -> Parity:
    """The largest differences of each sort between two answers of the same shapes."""

    def gaps(names: set[str]) -> NDArray[np.float64]:
        each = [np.abs(expected[n].astype(np.float64) - found[n].astype(np.float64)).ravel() for n in sorted(names)]
        gaps: NDArray[np.float64] = np.nan_to_num(np.concatenate(each), nan=np.inf)
        return gaps  # what is no number differs without bound

    transforms = signature.transforms
    rectified = {t.rectified for t in transforms}
    parameters = {t.theta for t in transforms} | {t.parameters for t in transforms}
    levels = gaps(rectified)
    return Parity(
        probabilities=float(gaps(set(signature.outputs) - rectified - parameters).max()),
        parameters=float(gaps(parameters).max()),
        rectified=int(levels.max()),
        within_one_level=float((levels <= 1).mean()),
    )


def exceeds(found: Parity, tolerance: Tolerance) -> str:
    """What in ``found`` is more than an artifact's tolerance allows, by name; empty where nothing is."""
    names = [name for name in Tolerance.model_fields if not getattr(found, name) <= getattr(tolerance, name)]
    return ", ".join(names)
