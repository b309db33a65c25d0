"""The collapse guard: detects that a spatial transformer has collapsed, and restores earlier weights.

Even after many good epochs, one large step can move the sampled region out of the picture. The sampler then reads only
padding, its gradient is zero, and training cannot recover. Or the step leaves every unit of the localisation network
below zero for every picture; then theta is the same for all pictures. Known remedies are a lower learning rate for the
localisation network, a decaying learning rate, AdamW instead of large steps of SGD, normalisation after the sampler,
and a penalty on the distance from the identity.
"""

import copy
import math
from typing import Any, Literal, NamedTuple, cast

import lightning
import structlog
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.optim.lr_scheduler import LambdaLR

from training.errors import CollapseError

GONE = 0.95
"""Share of sample points outside the picture above which the transformer cannot recover."""
ALIVE = 0.01
"""Spread of theta above which theta depends on the picture."""
DEAD = 0.02
"""Share of the largest spread below which theta no longer depends on the picture."""
SLOWER = 0.1
"""Factor on the localisation networks' learning rate when earlier weights are restored."""
CURE = "lower localisation_rate, take optimiser=adamw, schedule=cosine and normalise=after, or raise identity_penalty"

log = structlog.get_logger(__name__)


class Health(NamedTuple):
    """Measures of one epoch of training."""

    loss: float
    spread: float
    """Spread of theta over the pictures (see `training.evaluation.metrics.Spread`)."""
    outside: float
    """Share of sample points outside the picture."""
    distance: float
    """Mean absolute difference of theta from the identity."""
    gradient: float
    """Gradient norm of all localisation networks."""


def symptom(health: Health, best_loss: float, best_spread: float, chance_loss: float) -> str | None:
    """Describe the sign that training has collapsed; return None if there is none.

    Args:
        health: measures of the epoch.
        best_loss: lowest training loss of all earlier epochs.
        best_spread: largest spread of theta of all earlier epochs.
        chance_loss: loss of random guessing.
    """
    if health.outside > GONE:
        return f"{health.outside:.0%} of the sample points lie outside the picture"
    if health.spread < DEAD * best_spread and best_spread > ALIVE:
        return f"theta no longer depends on the picture: its spread fell from {best_spread:.3f} to {health.spread:.6f}"
    if best_loss < chance_loss / 2 and health.loss > (best_loss + chance_loss) / 2:
        return f"the training loss rose from {best_loss:.3f} to {health.loss:.3f}, guessing gives {chance_loss:.3f}"
    return None


def warning(health: Health) -> str | None:
    """Describe what may lead to a collapse; return None if nothing does."""
    if health.outside > 0.5:
        return f"{health.outside:.0%} of the sample points lie outside the picture"
    if health.distance > 2:
        return f"theta differs from the identity by {health.distance:.1f} on average"
    if health.gradient == 0:
        return "no gradient reaches the localisation network"
    return None


class RunningAverage(EMAWeightAveraging):
    """Lightning's running mean of the weights, with a reset."""

    def begin_again(self, pl_module: lightning.LightningModule) -> None:
        """Restart the mean from the current weights of ``pl_module``."""
        if self._average_model is not None:
            self._average_model.module.load_state_dict(pl_module.state_dict())


class CollapseGuard(Callback):
    """Checks every epoch for a collapse, and acts as the recipe says.

    With ``restore``, training continues from the weights and the optimiser state of the best epoch, with a tenth of the
    localisation networks' learning rate. The guard's state is part of the checkpoint.
    """

    def __init__(self, on_collapse: Literal["warn", "restore", "stop"], classes: int) -> None:
        self.on_collapse = on_collapse
        self.chance_loss = math.log(classes)
        self.best_loss = math.inf
        self.best_spread = 0.0
        self.best_validation_loss = math.inf
        self.good: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        measured = trainer.callback_metrics
        names = ("train_loss", "theta_spread", "outside", "theta_distance", "localisation_gradient")
        health = Health(*(float(measured[name]) for name in names))
        epoch = trainer.current_epoch
        found = symptom(health, self.best_loss, self.best_spread, self.chance_loss)
        if found is None:
            if reason := warning(health):
                log.warning("transformer_in_danger", epoch=epoch, reason=reason, cure=CURE)
            self.best_loss = min(self.best_loss, health.loss)
            self.best_spread = max(self.best_spread, health.spread)
            validation_loss = float(measured["validation_loss"])
            if validation_loss < self.best_validation_loss or not self.chance_loss:  # 0 in every epoch with one class
                self.best_validation_loss = validation_loss
                self.good = copy.deepcopy(
                    {"network": pl_module.state_dict(), "optimiser": trainer.optimizers[0].state_dict(), "epoch": epoch}
                )
        elif self.on_collapse == "stop":
            raise CollapseError(f"the transformer collapsed in epoch {epoch}: {found}; {CURE}")
        elif self.on_collapse == "warn" or self.good is None:
            log.warning("transformer_collapsed", epoch=epoch, reason=found, cure=CURE)
        else:
            rates = self.restore(trainer, pl_module, self.good)
            log.warning("transformer_collapsed", epoch=epoch, reason=found, back_to=self.good["epoch"], rates=rates)

    def restore(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, good: dict[str, Any]
    ) -> list[float]:
        """Restore the state ``good``, and return the new highest learning rates of the localisation networks."""
        optimiser = trainer.optimizers[0]
        schedule = cast(LambdaLR, trainer.lr_scheduler_configs[0].scheduler)
        pl_module.load_state_dict(good["network"])
        for average in cast(list[Callback], trainer.callbacks):  # type: ignore[attr-defined]
            if isinstance(average, RunningAverage):
                average.begin_again(pl_module)
        optimiser.load_state_dict(copy.deepcopy(good["optimiser"]))
        slowed = [position for position, group in enumerate(optimiser.param_groups) if group["localisation"]]
        for position in slowed:
            schedule.base_lrs[position] *= SLOWER
        for position, group in enumerate(optimiser.param_groups):
            group["lr"] = schedule.base_lrs[position] * schedule.lr_lambdas[position](schedule.last_epoch)
        return [float(schedule.base_lrs[position]) for position in slowed]

    def state_dict(self) -> dict[str, Any]:
        names = ("best_loss", "best_spread", "best_validation_loss", "good")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)
