"""Fit and evaluate, on Lightning's Trainer."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from training.classifiers import Output, SpatialTransformerClassifier
from training.data import Split, Stream, distortion, loader, seeded, test_split, training_splits
from training.errors import RunError
from training.files import write_bytes, write_text
from training.metrics import Spread
from training.recipes import Recipe
from training.runs import Evaluation, Run

EVALUATION_BATCH = 500
SAMPLES = 64


class Training(lightning.LightningModule):
    """One network in training: its loss, its metrics and its optimiser.

    The distortions of a step are drawn from the run's seed and the step's number alone, so a resumed run sees what
    an unbroken one would have seen.
    """

    def __init__(self, network: SpatialTransformerClassifier, recipe: Recipe, seed: int, classes: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.seed = seed
        self.distortion = distortion(recipe)
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.theta_spread = Spread(network.transformer.parameter_count)
        self.validation_accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Output:
        """``(N, C, H, W)`` uint8 or 0 to 255 -> the network's output."""
        output: Output = self.network(images.float().div(255).to(memory_format=torch.channels_last))
        return output

    def training_step(self, batch: Split, batch_index: int) -> Tensor:
        images, labels = batch
        height, width = images.shape[-2:]
        maps = self.distortion.sample(
            len(labels), (height, width), seeded(Stream.DISTORTION, self.seed, self.global_step)
        )
        output = self(self.distortion.apply(images.float(), maps))
        loss = functional.cross_entropy(output.logits, labels, label_smoothing=self.recipe.label_smoothing)
        self.train_accuracy(output.logits, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Split, batch_index: int) -> None:
        images, labels = batch
        output = self(images)
        loss = functional.cross_entropy(output.logits, labels)
        self.validation_accuracy(output.logits, labels)
        self.log("validation_loss", loss, batch_size=len(labels))
        self.theta_spread(output.warps[0].theta.flatten(1))
        self.log("theta_spread", self.theta_spread, prog_bar=True, batch_size=len(labels))
        self.log("validation_accuracy", self.validation_accuracy, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        recipe = self.recipe
        groups: list[dict[str, Any]] = []
        for module, rate in (
            (self.network.localisation, recipe.learning_rate * recipe.localisation_rate),
            (self.network.classifier, recipe.learning_rate),
        ):
            for is_matrix, decay in ((True, recipe.weight_decay), (False, 0.0)):
                chosen = [p for p in module.parameters() if (p.dim() > 1) == is_matrix]
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
        optimiser = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=[group["lr"] for group in groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=recipe.warmup,
            cycle_momentum=False,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MetricsTable(Callback):
    """Writes ``metrics.csv``, one row an epoch; the rows travel in the checkpoint, so resuming keeps them."""

    columns = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "theta_spread")

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        measured = {name: round(float(trainer.callback_metrics[name]), 6) for name in self.columns[1:]}
        self.rows.append({"epoch": trainer.current_epoch, **measured})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.file, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Checkpoints(ModelCheckpoint):
    """Lightning's, which forgets the best epoch when its folder has another name; a run folder may be moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath})


def fit(run: Run, data_root: Path, *, progress: bool = True) -> None:
    """Train the run from where it stands (its last checkpoint, or the start) to its last epoch.

    Raises:
        DataError: the data set cannot be read.
        RunError: the last checkpoint cannot be read, or Ctrl+C stopped the training.
    """
    info = run.info()
    recipe = info.recipe
    resumed = run.checkpoint_to_resume()
    train, validation = training_splits(recipe, data_root)
    lightning.seed_everything(info.seed, verbose=False)
    training = Training(info.network(), recipe, info.seed, len(info.classes))
    best = Checkpoints(
        run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor="validation_accuracy",
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # One of its own: the option save_last of the other would save the last epoch only when it is the best one.
    last = Checkpoints(
        run.checkpoints, filename=run.last_checkpoint.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        max_epochs=recipe.epochs,
        devices=1,
        deterministic="warn",
        gradient_clip_val=1.0,
        logger=TensorBoardLogger(run.folder, name="tensorboard", version=""),
        callbacks=[MetricsTable(run.metrics_file), best, last, *([TQDMProgressBar()] if progress else [])],
        enable_progress_bar=progress,
        enable_model_summary=False,
        default_root_dir=run.folder,
    )
    try:
        trainer.fit(
            training,
            loader(train, recipe.batch_size, info.seed),
            loader(validation, EVALUATION_BATCH),
            ckpt_path=resumed,
            weights_only=True,
        )
    except SystemExit as stop:  # how Lightning ends on Ctrl+C
        raise RunError(f"stopped before the last epoch; continue with --resume {run.folder}") from stop


def evaluate(run: Run, data_root: Path) -> Evaluation:
    """Measure the best checkpoint on the test set; write ``evaluation.json`` and ``samples.npz``.

    Raises:
        DataError: the data set cannot be read.
        RunError: the run has no usable checkpoint.
    """
    info = run.info()
    test = test_split(info.recipe, data_root)
    scores = score(run.trained_network(), test, len(info.classes))
    best = best_epoch(run)
    per_class = scores.confusion.diag() / scores.confusion.sum(dim=1)
    evaluation = Evaluation(
        dataset=info.recipe.dataset,
        distortion=info.recipe.distortion,
        pictures=len(test.labels),
        accuracy=scores.accuracy,
        loss=scores.loss,
        class_accuracy={name: round(float(a), 6) for name, a in zip(info.classes, per_class, strict=True)},
        confusion=scores.confusion.tolist(),
        theta_spread=scores.theta_spread,
        best_epoch=int(best["epoch"]),
        validation_accuracy=best["validation_accuracy"],
    )
    images = test.images[:SAMPLES].permute(0, 2, 3, 1)  # (N, H, W, C)
    samples = io.BytesIO()
    np.savez_compressed(samples, images=images.numpy(), labels=test.labels[:SAMPLES].numpy())
    write_bytes(run.samples_file, samples.getvalue())
    write_text(run.evaluation_file, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


class Scores(NamedTuple):
    """How well a network does on a split."""

    accuracy: float
    loss: float
    confusion: Tensor
    """``(K, K)`` counts; rows are true classes."""
    theta_spread: float
    """See `training.metrics.Spread`."""


def score(network: SpatialTransformerClassifier, split: Split, classes: int) -> Scores:
    """Run ``network`` over ``split`` and count."""
    confusion = MulticlassConfusionMatrix(classes)
    spread = Spread(network.transformer.parameter_count)
    loss = 0.0
    with torch.inference_mode():
        for images, labels in loader(split, EVALUATION_BATCH):
            output = network(images.float() / 255)
            loss += float(functional.cross_entropy(output.logits, labels, reduction="sum"))
            confusion.update(output.logits, labels)
            spread.update(output.warps[0].theta.flatten(1))
    counts = confusion.compute()
    total = len(split.labels)
    return Scores(int(counts.trace()) / total, round(loss / total, 6), counts, round(float(spread.compute()), 6))


def best_epoch(run: Run) -> dict[str, float]:
    """The row of ``metrics.csv`` with the highest validation accuracy, the first of equals.

    Raises:
        RunError: there is no such table.
    """
    try:
        with run.metrics_file.open(newline="") as table:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
        return max(rows, key=lambda row: row["validation_accuracy"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{run.metrics_file} has no metrics; continue the run with --resume {run.folder}") from error
