"""Losses on frames: where theta's frame lies on the undistorted picture, told picture by picture or class by class.

A frame is an affine map ``(N, 2, 3)`` from the rectified image to the undistorted picture: theta, followed by the known
map of the distortion.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.distributed import processes, total
from training.evaluation.poses import targets

ATTENTION = 0.1
"""Weight of the attention loss relative to the pose loss."""
ROUNDING = 0.05
"""Error, as a share of the target's side, below which the loss becomes quadratic."""


def pose_loss(frames: Tensor, wanted: Tensor) -> Tensor:
    """Return how far ``frames`` are from the ``wanted`` ones, in shares of their side: a scalar, 0 if equal.

    The distance of the centres and that of the linear parts are added. The distance counts, not its square, so that a
    few small or hidden objects do not outweigh all others; near 0 it is rounded by `ROUNDING`. With a common root, a
    large error of the place would hide an error of the rotation.
    """
    size = wanted[:, :, :2].square().sum(dim=(1, 2))
    gap = (frames - wanted).square()
    parts = torch.stack([gap[:, :, 2].sum(dim=1), gap[:, :, :2].sum(dim=(1, 2))]) / size
    return ((parts + ROUNDING**2).sqrt() - ROUNDING).sum(dim=0).mean()


def attention_loss(scores: Tensor, cells: tuple[int, int], maps: Tensor, wanted: Tensor) -> Tensor:
    """Return the cross-entropy of attention and the cell in which the object's centre lies: a scalar.

    Args:
        scores: ``(N, cells)``, row by row.
        cells: number of rows and columns.
        maps: ``(N, 2, 3)`` from the canvas to the undistorted picture.
        wanted: ``(N, 2, 3)``: the wanted frames on the undistorted picture.
    """
    centres: Tensor = torch.linalg.solve(maps[:, :, :2], wanted[:, :, 2] - maps[:, :, 2])  # (N, 2) on the canvas
    columns, rows = (
        ((centres[:, axis] + 1) / 2 * cells[1 - axis]).long().clamp(0, cells[1 - axis] - 1) for axis in (0, 1)
    )
    return functional.cross_entropy(scores, rows * cells[1] + columns)


class CanonicalPose(nn.Module):
    """Holds the mean frame of each class at the canonical crop.

    Labels and known distortions alone thus say what is upright, and how large a frame is: single pictures may differ
    from the mean of their class. The mean is an exponential one over batches; the gradient flows through the batch's
    own part of it. Several processes share the means of the whole batch, so all of them must take part.
    """

    means: Tensor

    def __init__(self, classes: int, crop: float, decay: float = 0.9) -> None:
        """Start with the mean of all ``classes`` at the centre crop with side ``crop``; ``decay`` per batch."""
        super().__init__()
        self.decay = decay
        self.crop = crop
        start = torch.tensor([[crop, 0.0, 0.0], [0.0, crop, 0.0]])
        self.register_buffer("means", start.repeat(classes, 1, 1), persistent=False)

    def forward(self, frames: Tensor, labels: Tensor) -> Tensor:
        """Update the means with ``frames`` ``(N, 2, 3)`` and ``labels`` ``(N,)``; return the loss, a scalar."""
        sums = torch.zeros_like(self.means).index_add(0, labels, frames)
        counts = torch.zeros_like(self.means[:, :1, :1]).index_add(0, labels, torch.ones_like(frames[:, :1, :1]))
        if processes() > 1:
            sums, counts = total(sums), total(counts)
        found = torch.nonzero(counts.flatten())[:, 0]
        if not len(found):
            return sums.sum()
        batch = sums[found] / counts[found]
        with torch.no_grad():
            self.means[found] = self.decay * self.means[found] + (1 - self.decay) * batch
        mean = self.means[found] + (batch - batch.detach())
        gap = mean - targets(None, self.crop, mean)
        squared: Tensor = gap.square().sum(dim=(1, 2)).mean()
        return squared / (2 * self.crop**2)
