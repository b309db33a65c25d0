"""Records written during training: metrics, snapshots of rectified images, and checkpoints."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from training.files import write_arrays, write_bytes, write_text


class MetricsTable(Callback):
    """Writes ``metrics.csv`` with one row per epoch. The rows are part of the checkpoint, so resuming keeps them."""

    columns = (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "validation_sequence_accuracy",
        "theta_spread",
        "outside",
        "theta_distance",
        "localisation_gradient",
        "upright_loss",
        "pose_loss",
        "canonical_loss",
        "corner_loss",
    )
    """The possible columns in order; most recipes have fewer."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        measured = trainer.callback_metrics
        row = {name: round(float(measured[name]), 6) for name in self.columns if name in measured}
        self.rows.append({"epoch": trainer.current_epoch, **row})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if trainer.is_global_zero:
            write_text(self.file, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Snapshots(Callback):
    """Writes ``snapshots.npz``: fixed pictures, and their theta and rectified images after each epoch.

    They are part of the checkpoint, so resuming keeps them.
    """

    def __init__(self, file: Path, images: Tensor) -> None:
        """``images`` ``(N, C, H, W)`` uint8 are the fixed pictures."""
        self.file = file
        self.images = images
        self.theta: list[Tensor] = []
        self.rectified: list[Tensor] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        pl_module.eval()
        with torch.inference_mode():
            warp = pl_module(self.images.to(pl_module.device)).warps[-1]
            view = pl_module.network.as_picture(warp.rectified)  # type: ignore[operator, union-attr]
        pl_module.train()
        self.theta.append(warp.theta.cpu())
        self.rectified.append((view * 255).round().clamp(0, 255).to(torch.uint8).cpu())
        arrays = {"images": self.images, "theta": torch.stack(self.theta), "rectified": torch.stack(self.rectified)}
        if trainer.is_global_zero:
            write_arrays(self.file, arrays)

    def state_dict(self) -> dict[str, Any]:
        return {"theta": self.theta, "rectified": self.rectified}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.theta, self.rectified = list(state_dict["theta"]), list(state_dict["rectified"])


class Checkpoints(ModelCheckpoint):
    """Lightning's checkpoints, except that the best epoch is remembered when the run folder was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath})


class CheckpointFiles(TorchCheckpointIO):
    """Atomic checkpoint files. Lightning's own are copied, not renamed, if the temporary folder is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content.getvalue())
