"""Compare the exported model with the trained network, on real and random pictures, before it is written.

The limit is 1e-4 for probabilities and parameters. Where float32 is not precise enough for that (a sharp classifier on
noise, a spline in several steps), the limit is `ROUNDINGS` times the difference between the PyTorch model in float32
and in float64, measured on the same pictures.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.format.errors import ParityError
from export.format.golden import Outputs
from export.format.manifest import Parity, Tolerance
from export.graph import Exact, Signature

BATCH_SIZES = (1, 2, 33, 256)
BATCH_PIXELS = 256 * 128**2
"""Pixels of the largest batch; batches of pictures above 128x128 have fewer of them."""
EXACT_BATCH = 16
TOLERANCE = 1e-4
"""Largest allowed difference of probabilities and parameters, unless rounding explains a larger one."""
ROUNDINGS = 4
LOOSEST = 1e-3
"""Largest difference that rounding may explain."""
WITHIN_ONE_LEVEL = 0.9999
"""Smallest allowed share of the rectified images' pixels that differ by at most one grey level."""

Model = Callable[[NDArray[np.uint8]], Outputs]
"""Pictures ``(N, H, W, C)`` -> outputs by name."""


def trained(network: nn.Module, outputs: tuple[str, ...]) -> Model:
    """Return the network as a model."""

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            answers = network(torch.from_numpy(images))
        return {name: answer.numpy() for name, answer in zip(outputs, answers, strict=True)}

    return run


def exact(network: nn.Module, outputs: tuple[str, ...]) -> Model:
    """Return the network in float64 as a model. It runs in small batches, because float64 convolutions need memory."""
    run = trained(deepcopy(network).double(), outputs)

    def run_exactly(images: NDArray[np.uint8]) -> Outputs:
        with Exact():
            parts = [run(images[at : at + EXACT_BATCH]) for at in range(0, len(images), EXACT_BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    return run_exactly


def compare(
    reference: Model, exported: Model, signature: Signature, samples: NDArray[np.uint8], exactly: Model | None = None
) -> Parity:
    """Measure the differences, and check that they are within the limits.

    Raises:
        ParityError: they differ by more than allowed, or in names, shapes or types.
    """
    parity = measure(reference, exported, signature, samples, exactly)
    check(parity)
    return parity


def measure(
    reference: Model, exported: Model, signature: Signature, samples: NDArray[np.uint8], exactly: Model | None = None
) -> Parity:
    """Measure the largest differences between two models on ``samples`` ``(N, H, W, C)`` and on random pictures.

    Args:
        reference: the expected model.
        exported: the model to compare.
        signature: the meaning of the outputs.
        samples: real pictures.
        exactly: the ``reference`` in float64, to measure rounding.

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
    """Raise `ParityError` unless ``parity`` is within the limits."""
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
    """Yield batches of each size, of real pictures and of noise; repeated samples are shifted by a pixel each time."""
    noise = np.random.default_rng(0)
    height, width = samples.shape[1:3]
    *small, most = BATCH_SIZES
    for size in dict.fromkeys((*small, min(most, max(small[-1], BATCH_PIXELS // (height * width))))):
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
    """Return the largest difference of each kind of output; non-finite values differ infinitely."""

    def gaps(names: set[str]) -> NDArray[np.float64]:
        each = [np.abs(expected[n].astype(np.float64) - found[n].astype(np.float64)).ravel() for n in sorted(names)]
        gaps: NDArray[np.float64] = np.nan_to_num(np.concatenate(each), nan=np.inf)
        return gaps

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
    """Return the names of the differences that exceed ``tolerance``; empty if none does."""
    names = [name for name in Tolerance.model_fields if not getattr(found, name) <= getattr(tolerance, name)]
    return ", ".join(names)
