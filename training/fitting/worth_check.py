"""The check during training of whether the classifier needs its transformer."""

import lightning
import structlog
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from training.evaluation.worth import DECORATION_CURE, SEQUENCE_CURE, measure_worth

PICTURES = 500
"""Largest number of validation pictures that are checked."""
CHECKS = 4
"""Number of checks in a run."""

log = structlog.get_logger(__name__)


class WorthCheck(Callback):
    """Measures the worth of theta a few times in a run, and warns if the transformer is decoration.

    Nothing is said while the network has learnt less than half of what there is to learn, because a network that
    guesses needs no transformer yet.
    """

    def __init__(self, images: Tensor, labels: Tensor, epochs: int) -> None:
        """Take validation pictures ``(N, C, H, W)`` uint8, their labels ``(N,)`` or ``(N, T)``, and the epochs."""
        some = torch.arange(len(labels))[:: -(-len(labels) // PICTURES)]
        self.images, self.labels = images[some], labels[some]
        self.every = max(1, epochs // CHECKS)
        guessing = int(self.labels.flatten().bincount().max()) / self.labels.numel()
        self.learnt = (1 + guessing) / 2
        """Accuracy above which the network has learnt something."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        pl_module.eval()
        images, labels = self.images.to(pl_module.device), self.labels.to(pl_module.device)
        worth = measure_worth(pl_module.network, images, labels)  # type: ignore[arg-type]
        pl_module.train()
        if worth.decoration and worth.accuracy > self.learnt:
            log.warning(
                "transformer_is_decoration",
                epoch=trainer.current_epoch,
                accuracy=worth.accuracy,
                with_mean_theta=worth.mean_theta,
                with_identity=worth.identity,
                cure=DECORATION_CURE if labels.dim() == 1 else SEQUENCE_CURE,
            )
