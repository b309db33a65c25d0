"""How far the corners of the sampled region lie from those of the thing, before and after the network has looked."""

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.data.splits import Corners
from training.evaluation.overlaps import bounds, intersection_over_union, quadrilateral_overlap
from training.networks.geometry import corner_points


class CornerFit(BaseModel):
    """How well quadrilaterals fit the corners of things."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    error_px: float
    """Mean distance of a corner, in pixels of the picture's file."""
    error_px_90: float
    """90th percentile of the distance, over all corners."""
    overlap: float
    """Mean intersection over union of the quadrilaterals, clipped to the picture."""


class CornerScores(BaseModel):
    """How well the sampled regions fit the corners of things, and two guesses for comparison."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    labelled: int
    """Training pictures with corners or boxes."""
    pictures: int
    """Test pictures with four corners."""
    before: CornerFit | None
    """Of the whole picture, which is what there is without a transformer."""
    guess: CornerFit | None
    """Of the mean corners of the training pictures, which is the best answer without looking; None without any."""
    after: CornerFit | None
    """Of the sampled region, through the whole map."""
    boxed: int
    """Test pictures with a box."""
    box_overlap: float | None
    """Mean intersection over union of the box and the box around the sampled region."""


def measure_corners(found: Tensor, corners: Corners, training: Corners | None) -> CornerScores | None:
    """Compare the corners ``found`` ``(N, 4, 2)`` with the known ones; None if none are known.

    Args:
        found: where the whole map takes the corners of the rectified image, normalised.
        corners: of the same pictures.
        training: of the training pictures.
    """
    marked, boxed = corners.known & ~corners.boxed, corners.known & corners.boxed
    if not corners.known.any():
        return None
    seen = None if training is None else training.points[training.known & ~training.boxed]
    guess = seen.mean(dim=0).expand_as(found) if seen is not None and len(seen) else None
    whole = corner_points().expand_as(found)
    box_overlap = None
    if boxed.any():
        wanted = bounds(corners.points[boxed])
        box_overlap = round(float(intersection_over_union(bounds(found[boxed]), wanted).mean()), 4)
    return CornerScores(
        labelled=0 if training is None else int(training.known.sum()),
        pictures=int(marked.sum()),
        before=fit(whole[marked], corners.at(marked)),
        guess=None if guess is None else fit(guess[marked], corners.at(marked)),
        after=fit(found[marked], corners.at(marked)),
        boxed=int(boxed.sum()),
        box_overlap=box_overlap,
    )


def fit(found: Tensor, corners: Corners) -> CornerFit | None:
    """Compare ``found`` ``(N, 4, 2)`` with ``corners``, which must all be known; None without a picture."""
    if not len(found):
        return None
    distances = ((found - corners.points) * corners.sizes[:, None] / 2).norm(dim=2)  # (N, 4) pixels
    return CornerFit(
        error_px=round(float(distances.mean()), 3),
        error_px_90=round(float(distances.quantile(0.9)), 3),
        overlap=round(float(quadrilateral_overlap(found, corners.points).mean()), 4),
    )
