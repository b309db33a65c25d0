"""Train a network with Lightning's Trainer."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from training.data.batches import distort, loader, shape_changes, training_distortion, training_splits
from training.data.distortions import Distorted, warp_affine
from training.data.random_streams import Stream, seed_of, seeded
from training.data.splits import Corners, Split
from training.distributed import processes, share_of, share_statistics, sum_of
from training.errors import CollapseError, RecipeError, RunError
from training.evaluation.metrics import Spread
from training.fitting.collapse import CollapseGuard, RunningAverage
from training.fitting.isolation import isolated
from training.fitting.loggers import open_logger
from training.fitting.losses import class_loss
from training.fitting.objective import Objective, Shown
from training.fitting.rates import parameter_groups, rate_factor
from training.fitting.records import CheckpointFiles, Checkpoints, MetricsTable, Snapshots
from training.fitting.runs import Run, RunInfo, advice
from training.fitting.worth_check import WorthCheck
from training.networks.backbones import load_pretrained
from training.networks.dropout import Dropout
from training.networks.network import Output, SpatialTransformerClassifier
from training.networks.spatial import Warp
from training.recipes.recipe import Recipe

for name in ("lightning.pytorch", "lightning.fabric"):  # both set INFO when they are imported
    logging.getLogger(name).setLevel(logging.WARNING)

EVALUATION_BATCH = 100
SNAPSHOTS = 10


class Training(lightning.LightningModule):
    """The training of one network: its steps, metrics and optimiser.

    The distortions and dropped units of a step depend only on the run's seed and the step's number, so a resumed run
    gives the same result as an uninterrupted one.
    """

    def __init__(self, network: SpatialTransformerClassifier, recipe: Recipe, seed: int, classes: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.seed = seed
        self.versions = 2 if recipe.upright else 1
        """Number of distorted versions of each picture in a step."""
        self.distortion = training_distortion(recipe)
        self.objective = Objective(recipe, classes)
        self.train_accuracy = MulticlassAccuracy(max(classes, 2), average="micro")
        self.theta_spread = Spread(6 * (recipe.sequence if recipe.recurrent else 1))
        self.validation_accuracy = MulticlassAccuracy(max(classes, 2), average="micro")

    def setup(self, stage: str) -> None:
        """Prepare the network; called in each training process."""
        if processes() > 1:
            share_statistics(self.network)
        for module in self.network.modules():
            if isinstance(module, Dropout):
                module.versions = self.versions
        self.network.classify_in_bf16 = self.recipe.precision != "float32"
        for transform in self.network.transforms:
            transform.joint = self.recipe.joint
            transform.localise_in_bf16 = self.recipe.precision == "bf16-all"

    def forward(self, images: Tensor) -> Output:
        """``(N, C, H, W)`` uint8 or 0 to 255 -> the network's output."""
        output: Output = self.network(images.float().div(255).to(memory_format=torch.channels_last))
        return output

    def training_step(self, batch: Split, batch_index: int) -> Tensor:
        torch.manual_seed(seed_of(Stream.DROPOUT, self.seed, self.global_step))
        generator = seeded(Stream.DISTORTION, self.seed, self.global_step)
        # Every process distorts the whole batch and takes its share, so the result is that of a single process.
        before = shape_changes(self.recipe, batch, generator)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        originals = batch.images if before is None else warp_affine(batch.images.float(), before, size)
        shown = Shown(
            [shared(distort(self.distortion, batch, generator, before)) for _ in range(self.versions)],
            share_of(originals),
            None if batch.boxes is None else share_of(batch.boxes),
            None if batch.corners is None else Corners(*map(share_of, batch.corners)),
        )
        output = self(torch.cat([version.images for version in shown.versions]))
        loss: Tensor
        loss, measures = self.objective(output, shown)
        for name, measure in measures.items():
            self.record(name, measure.value, measure.pictures)
        self.train_accuracy(output.logits.argmax(dim=-1), shown.labels)
        self.record("train_accuracy", self.train_accuracy, len(shown.labels))
        self.check_finite(loss, output.warps)
        return loss

    def check_finite(self, loss: Tensor, warps: tuple[Warp, ...]) -> None:
        """Raise CollapseError in all processes if ``loss`` or a theta is not finite in any of them.

        Theta is checked too, because the loss may stay finite: the sampler may read black for it.
        """
        for name, values in (("the loss", [loss]), ("theta", [warp.theta for warp in warps])):
            whole = sum_of(sum((value.detach().sum() for value in values), torch.zeros((), device=loss.device)))
            if not torch.isfinite(whole):
                raise CollapseError(f"training diverged: {name} is {whole.item()} in epoch {self.current_epoch}")

    def record(self, name: str, value: Tensor | Metric, count: int) -> None:
        """Log the mean of ``value`` over the epoch."""
        self.log(name, value, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Record the gradient norm of localisation; the trainer calls this before gradients are clipped."""
        found = [p.grad for n in self.network.localisation_networks() for p in n.parameters() if p.grad is not None]
        if found:
            norms = torch.stack([gradient.norm() for gradient in found])
            self.record("localisation_gradient", norms.norm(), 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the class means too, so that a resumed run continues with them."""
        if (pose := self.objective.canonical_pose) is not None:
            checkpoint["class_means"] = pose.means

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the class means, which older checkpoints lack."""
        if (pose := self.objective.canonical_pose) is not None and "class_means" in checkpoint:
            pose.means.copy_(checkpoint["class_means"])

    def validation_step(self, batch: Split, batch_index: int) -> None:
        labels = batch.labels
        output = self(batch.images)
        loss = class_loss(output.logits, labels)
        self.check_finite(loss, output.warps)
        predicted = output.logits.argmax(dim=-1)
        self.validation_accuracy(predicted, labels)
        self.log("validation_loss", loss, batch_size=len(labels), sync_dist=True)
        if output.warps:
            read = self.network.transforms[-1].read(output.warps)
            self.theta_spread(torch.cat([warp.theta.flatten(1) for warp in read], dim=1))
            self.log("theta_spread", self.theta_spread, prog_bar=True, batch_size=len(labels))
        self.log("validation_accuracy", self.validation_accuracy, prog_bar=True, batch_size=len(labels))
        if self.recipe.sequence:
            whole = (predicted == labels).all(dim=1).float().mean()
            self.log("validation_sequence_accuracy", whole, prog_bar=True, batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        recipe = self.recipe
        groups = parameter_groups(self.network, recipe)
        optimiser: torch.optim.Optimizer
        optimiser = (
            torch.optim.SGD(groups, momentum=recipe.momentum)
            if recipe.optimiser == "sgd"
            else torch.optim.AdamW(groups)
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(recipe, step / steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def shared(distorted: Distorted) -> Distorted:
    """Return this process's share of a distorted batch."""
    return Distorted(*(None if part is None else share_of(part) for part in distorted))  # type: ignore[arg-type]


def selection(recipe: Recipe, classes: int) -> tuple[str, str]:
    """Return the quantity by which the epoch is selected that a run keeps, and whether its ``min`` or ``max`` counts.

    If the learning rate falls to zero, it is the last epoch. Earlier ones were trained at higher rates, and the highest
    accuracy on a few thousand pictures mostly picks one of them by chance. If the rate is constant, no epoch is more
    settled than another, and the one with the lowest validation loss is kept. (It is 0 for a single class.)
    """
    return ("epoch", "max") if recipe.schedule == "cosine" or classes == 1 else ("validation_loss", "min")


def callbacks(run: Run, info: RunInfo, validation: Split, *, progress: bool) -> list[Callback]:
    """Return the callbacks of a run; its first ``validation`` pictures are those of the snapshots."""
    recipe = info.recipe
    found: list[Callback] = [MetricsTable(run.metrics_file)]
    if recipe.branches:
        found = [
            CollapseGuard(recipe.on_collapse, len(info.classes)),
            WorthCheck(validation.images, validation.labels, recipe.epochs),
            Snapshots(run.snapshots_file, validation.images[:SNAPSHOTS]),
            *found,
        ]
    if recipe.average:
        found.append(RunningAverage(decay=recipe.average))
    if progress:
        found.append(TQDMProgressBar())
    monitor, mode = selection(recipe, len(info.classes))
    best = Checkpoints(
        run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor=monitor,
        mode=mode,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # A separate callback, because the option save_last of `best` saves the last epoch only if it is the best one.
    last = Checkpoints(
        run.checkpoints, filename=run.last_checkpoint.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return [*found, best, last]


def fit(
    run: Run, data_root: Path, *, devices: int = 1, progress: bool = True, watchers: Sequence[Callback] = ()
) -> None:
    """Train the run from its last checkpoint, or from the start, to its last epoch; ``watchers`` may end it earlier.

    Each of several ``devices`` processes its share of every batch; the result is the same except for rounding.

    Raises:
        DataError: the data set cannot be read.
        RecipeError: a batch cannot be divided evenly among the devices, there are fewer devices, or a backbone's
            trained weights cannot be loaded.
        CollapseError: training failed.
        RunError: the last checkpoint cannot be read, or Ctrl+C stopped the training.
    """
    info = run.info()
    recipe = info.recipe
    if recipe.batch_size % devices:
        raise RecipeError(
            f"{devices} devices cannot share batch_size={recipe.batch_size} evenly; choose a multiple of {devices}"
        )
    if devices > 1 and recipe.is_backbone:  # its batch normalisation may be one of a library's own
        raise RecipeError(f"classifier={recipe.classifier} trains on one device only; leave out --devices")
    resumed = run.checkpoint_to_resume()
    train, validation = training_splits(recipe, run.source(data_root))
    with isolated(info.seed), open_logger(run, info) as logger:
        fit_splits(run, train, validation, resumed, logger, watchers, devices=devices, progress=progress)


def fit_splits(
    run: Run,
    train: Split,
    validation: Split,
    resumed: Path | None,
    logger: Logger,
    watchers: Sequence[Callback],
    *,
    devices: int,
    progress: bool,
) -> None:
    """Train the run on the pictures ``train``, starting from the checkpoint ``resumed``; see `fit`."""
    info = run.info()
    recipe = info.recipe
    training = Training(info.network(), recipe, info.seed, len(info.classes))
    if recipe.pretrained and resumed is None:
        load_pretrained(training.network.classifier, recipe, info.channels)
    try:
        trainer = lightning.Trainer(
            max_epochs=recipe.epochs,
            devices=devices,
            strategy="auto" if devices == 1 else "ddp_spawn",
            use_distributed_sampler=False,
            deterministic="warn",
            gradient_clip_val=recipe.clip,
            plugins=[CheckpointFiles(), LightningEnvironment()],  # or a cluster's variables would decide
            logger=logger,
            callbacks=[*callbacks(run, info, validation, progress=progress), *watchers],
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=run.folder,
        )
    except MisconfigurationException as error:
        raise RecipeError(f"{devices} devices cannot train: {' '.join(str(error).split())}; lower --devices") from error
    try:
        trainer.fit(
            training,
            loader(train, recipe.batch_size, info.seed, recipe.balance),
            loader(validation, EVALUATION_BATCH),
            ckpt_path=resumed,
            weights_only=True,
        )
    except SystemExit as stop:  # raised by Lightning on Ctrl+C
        raise RunError(f"stopped before the last epoch; continue with --resume {run.folder}") from stop
    except CollapseError as error:
        raise CollapseError(f"{error}; {advice(recipe)}; {kept(run)}") from error
    except ProcessRaisedException as error:  # its last line names the exception of the failed process
        kind, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
        if kind != f"{CollapseError.__module__}.{CollapseError.__name__}":
            raise
        raise CollapseError(f"{message}; {advice(recipe)}; {kept(run)}") from error


def kept(run: Run) -> str:
    """Say which checkpoint a failed run has."""
    if run.best_checkpoint.exists():
        return f"an epoch before it is kept: python -m training evaluate {run.folder}"
    return "no epoch was completed"
