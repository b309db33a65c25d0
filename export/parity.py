"""Is the exported model the trained one? Compared on real and random pictures before anything is put in place."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from export.artifact import ArtifactError, Outputs, Parity
from export.graph import Signature

BATCH_SIZES = (1, 2, 33)
TOLERANCE = Parity(probabilities=1e-5, parameters=1e-5, rectified=1)
"""The largest differences that pass."""

Model = Callable[[NDArray[np.uint8]], Outputs]
"""Pictures ``(N, H, W, C)`` -> outputs by name."""


class ParityError(ArtifactError):
    """The exported model does not answer as the trained one does."""


def compare(reference: Model, exported: Model, signature: Signature, samples: NDArray[np.uint8]) -> Parity:
    """The largest differences between two models on ``samples`` ``(N, H, W, C)`` and on random pictures.

    Raises:
        ParityError: they differ by more than `TOLERANCE`, or in names, shapes or types.
    """
    worst = Parity(probabilities=0, parameters=0, rectified=0)
    for images in pictures(samples):
        expected, found = reference(images), exported(images)
        check_form(expected, found, len(images))
        seen = difference(expected, found, signature)
        worst = Parity(**{name: max(getattr(worst, name), getattr(seen, name)) for name in Parity.model_fields})
    exceeded = [name for name in Parity.model_fields if not getattr(worst, name) <= getattr(TOLERANCE, name)]
    if exceeded:
        seen_and_allowed = ", ".join(
            f"{n} by {getattr(worst, n):g} (allowed {getattr(TOLERANCE, n):g})" for n in exceeded
        )
        raise ParityError(f"the exported model differs from the trained one: {seen_and_allowed}; nothing was written")
    return worst


def pictures(samples: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Batches of each size, of real pictures and of noise."""
    noise = np.random.default_rng(0)
    for size in BATCH_SIZES:
        yield samples[np.arange(size) % len(samples)]
        yield noise.integers(0, 256, (size, *samples.shape[1:]), dtype=np.uint8)


def check_form(expected: Outputs, found: Outputs, count: int) -> None:
    """Raise `ParityError` unless both have the same outputs, shapes and types for ``count`` pictures."""
    forms = [{name: (o.shape, str(o.dtype)) for name, o in outputs.items()} for outputs in (expected, found)]
    if forms[0] != forms[1] or any(shape[0] != count for shape, _ in forms[0].values()):
        raise ParityError(
            f"the exported model answers in another form: {forms[1]}, not {forms[0]}; nothing was written"
        )


def difference(expected: Outputs, found: Outputs, signature: Signature) -> Parity:
    """The largest differences of each sort between two answers of the same form."""

    def largest(names: set[str]) -> float:
        gaps = [np.abs(expected[n].astype(np.float64) - found[n].astype(np.float64)).max() for n in names]
        return float(np.nan_to_num(np.max(gaps), nan=np.inf))  # what is no number differs without bound

    transforms = signature.transforms
    rectified = {t.rectified for t in transforms}
    parameters = {t.theta for t in transforms} | {t.parameters for t in transforms}
    return Parity(
        probabilities=largest(set(signature.outputs) - rectified - parameters),
        parameters=largest(parameters),
        rectified=int(largest(rectified)),
    )
