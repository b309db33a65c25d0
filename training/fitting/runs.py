"""A run folder: all results of one training run.

RUN/
  run.json            recipe, seed, classes, size of the network, versions of the libraries, location of the data set
  split.csv           for a folder of pictures: the split of each picture
  corners.csv         for a folder of pictures: where the thing lies in those whose corners are known
  metrics.csv         one row per epoch
  checkpoints/        best.ckpt (the epoch that the run keeps), last.ckpt (to resume from)
  snapshots.npz       the first validation pictures, with theta and the rectified image after each epoch
  tensorboard/        the same metrics for TensorBoard, or csv/, mlflow.db or wandb/ for another logger
  evaluation.json     the kept checkpoint's results on the test set
  answers.npz         logits, labels and groups (if known) of all test pictures
  validation.npz      logits and thetas of all validation pictures
  samples.npz         the first test pictures, as clients send them to the service, and their labels
  pictures/           figures and animations of the results
"""

import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.folder.corners import corners_text
from training.data.folder.labels import find_labels
from training.data.folder.listing import CORNERS_TABLE, SPLIT_TABLE
from training.data.folder.sizing import fit_to_pictures
from training.data.folder.source import Folder, labelled_corners, split_folder, split_text
from training.data.sources import open_source
from training.data.splits import Source
from training.errors import RunError
from training.evaluation.results import Evaluation
from training.files import read_arrays, read_checkpoint, write_text
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe

LoggerName = Literal["tensorboard", "csv", "mlflow", "wandb"]
LIBRARIES = ("torch", "torchvision", "lightning")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Names of models that export accepts."""
DATA_ROOT = Path("data")
"""Default folder of the data sets."""
TRAIN_AGAIN = "delete it to train from the start"
NETWORK_PREFIX = "network."
"""Prefix of the network's weights in a checkpoint of the trainer."""

Document = TypeVar("Document", bound=BaseModel)


class RunInfo(BaseModel):
    """The content of ``run.json``: enough to rebuild the network and to repeat the run."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    seed: int
    classes: tuple[str, ...]
    channels: int
    network_parameters: int
    created: datetime
    versions: dict[str, str]
    data_root: Path | None = None
    """Location of the data set when the run was created; None in runs of older versions."""
    model: str | None = None
    """Name of the model that the finished run is exported to."""
    logger: LoggerName = "tensorboard"

    def network(self) -> SpatialTransformerClassifier:
        """Return the run's network with new, untrained weights."""
        return SpatialTransformerClassifier(self.recipe, len(self.classes), self.channels)


class Run:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made_folder = False
        self.info_file = folder / "run.json"
        self.metrics_file = folder / "metrics.csv"
        self.evaluation_file = folder / "evaluation.json"
        self.checkpoints = folder / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.split_file = folder / SPLIT_TABLE
        self.corners_file = folder / CORNERS_TABLE
        self.answers_file = folder / "answers.npz"
        self.validation_file = folder / "validation.npz"
        self.samples_file = folder / "samples.npz"
        self.snapshots_file = folder / "snapshots.npz"
        self.pictures = folder / "pictures"

    @classmethod
    def create(
        cls,
        folder: Path,
        recipe: Recipe,
        seed: int,
        classes: tuple[str, ...],
        data_root: Path,
        *,
        split: str | None = None,
        corners: str | None = None,
        model: str | None = None,
        logger: LoggerName = "tensorboard",
    ) -> Self:
        """Create the folder, and write ``split.csv`` and ``corners.csv``, if there are any, and then ``run.json``.

        Raises:
            RunError: the folder is not empty, or cannot be written.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(
                f"{folder} is in use; choose another --out, or continue the run there with --resume {folder}"
            )
        network = SpatialTransformerClassifier(recipe, len(classes), len(recipe.mean))
        info = RunInfo(
            recipe=recipe,
            seed=seed,
            classes=classes,
            channels=len(recipe.mean),
            network_parameters=sum(p.numel() for p in network.parameters()),
            created=datetime.now(UTC).replace(microsecond=0),
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            data_root=data_root.absolute(),
            model=model,
            logger=logger,
        )
        run = cls(folder)
        try:
            run.made_folder = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            if split is not None:
                write_text(run.split_file, split)
            if corners is not None:
                write_text(run.corners_file, corners)
            write_text(run.info_file, info.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise RunError(f"cannot write the run to {folder}: {error.strerror}; choose another --out") from error
        return run

    def take_back(self) -> None:
        """Undo `create`, unless training has left something in the folder since."""
        made = (self.split_file, self.corners_file, self.info_file)
        if {file.name for file in self.folder.iterdir()} <= {file.name for file in made}:
            for file in made:
                file.unlink(missing_ok=True)
            if self.made_folder:
                self.folder.rmdir()

    def info(self) -> RunInfo:
        """Read ``run.json``.

        Raises:
            RunError: the folder contains no run, or a run that this version cannot read.
        """
        return self._read(self.info_file, RunInfo, "is this a run folder?")

    def evaluation(self) -> Evaluation:
        """Read ``evaluation.json``.

        Raises:
            RunError: the run has not been evaluated.
        """
        return self._read(self.evaluation_file, Evaluation, self._evaluate_again)

    def trained_network(self) -> SpatialTransformerClassifier:
        """Return the network with the weights of the kept checkpoint, in evaluation mode.

        Raises:
            RunError: the checkpoint is missing or does not fit the recipe.
        """
        network = self.info().network()
        state = read_checkpoint(self.best_checkpoint, "state_dict", self._resume)
        try:
            network.load_state_dict({name.removeprefix(NETWORK_PREFIX): value for name, value in state.items()})
        except RuntimeError as error:
            raise RunError(
                f"{self.best_checkpoint} does not fit the recipe in {self.info_file}: {' '.join(str(error).split())}"
            ) from error
        return network.eval()

    def kept_epoch(self) -> int:
        """Return the epoch of the kept checkpoint.

        Raises:
            RunError: the checkpoint is missing or damaged.
        """
        epoch: int = read_checkpoint(self.best_checkpoint, "epoch", self._resume)
        return epoch

    def checkpoint_to_resume(self) -> Path | None:
        """Return the last checkpoint, or None if there is none yet.

        Raises:
            RunError: it cannot be read.
        """
        if not self.last_checkpoint.exists():
            return None
        read_checkpoint(self.last_checkpoint, "state_dict", TRAIN_AGAIN)
        return self.last_checkpoint

    def finished(self) -> bool:
        """Return whether the run was trained to its last epoch and evaluated.

        Raises:
            RunError: the folder contains no run, or its last checkpoint cannot be read.
        """
        if not (self.evaluation_file.exists() and self.last_checkpoint.exists()):
            return False
        last: int = read_checkpoint(self.last_checkpoint, "epoch", TRAIN_AGAIN)
        return last + 1 == self.info().recipe.epochs

    def data_root(self, chosen: Path | None = None) -> Path:
        """Return the location of the data set: ``chosen``, or else the folder that the run was created with.

        Raises:
            RunError: the folder contains no run.
        """
        return chosen or self.info().data_root or DATA_ROOT

    def source(self, data_root: Path) -> Source:
        """Return the run's data set under ``data_root``.

        Raises:
            RunError: the folder contains no run.
            DataError: its table of splits or corners cannot be read.
        """
        corners = self.corners_file if self.corners_file.exists() else None
        return open_source(self.info().recipe, data_root, self.split_file, corners)

    def groups(self) -> torch.Tensor | None:
        """Read the number of each test picture's group (track, scene), ``(N,)``; None if the data set tells none.

        Raises:
            RunError: the run has not been evaluated.
        """
        if self.evaluation().groups is None:
            return None
        return torch.from_numpy(read_arrays(self.answers_file, ("groups",), self._evaluate_again)[0])

    def answers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the network's logits ``(N, K)`` for all test pictures, and the labels ``(N,)``.

        Raises:
            RunError: the run has not been evaluated.
        """
        logits, labels = read_arrays(self.answers_file, ("logits", "labels"), self._evaluate_again)
        return torch.from_numpy(logits), torch.from_numpy(labels)

    def validation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Read the network's logits ``(N, K)`` and thetas ``(N, T, 2, 3)`` for all validation pictures.

        None if an older version of this program evaluated the run.

        Raises:
            RunError: the file is damaged.
        """
        if not self.validation_file.exists():
            return None
        logits, thetas = read_arrays(self.validation_file, ("logits", "thetas"), self._evaluate_again)
        return logits, thetas

    def samples(self) -> NDArray[np.uint8]:
        """Read the first test pictures: ``(N, H, W, C)`` uint8.

        Raises:
            RunError: the run has not been evaluated.
        """
        return read_arrays(self.samples_file, ("images",), self._evaluate_again)[0]

    def snapshots(self) -> list[NDArray[Any]]:
        """Read the snapshots: pictures ``(N, C, H, W)``, and their thetas and rectified images after each epoch.

        Raises:
            RunError: the run kept none.
        """
        return read_arrays(self.snapshots_file, ("images", "theta", "rectified"), "train the run again")

    @property
    def _resume(self) -> str:
        return f"continue the run with --resume {self.folder}"

    @property
    def _evaluate_again(self) -> str:
        return f"run: python -m training evaluate {self.folder}"

    def _read(self, file: Path, document: type[Document], cure: str) -> Document:
        try:
            return document.model_validate_json(file.read_bytes())
        except OSError as error:
            raise RunError(f"cannot read {file} ({error.strerror}); {cure}") from error
        except ValidationError as error:
            raise RunError(f"{file} is damaged or from another version: {error.errors()[0]['msg']}") from error


def begin_run(
    folder: Path,
    recipe: Recipe,
    seed: int,
    data_root: Path,
    chosen: Iterable[str] = (),
    model: str | None = None,
    logger: LoggerName = "tensorboard",
) -> Run:
    """Create the ``folder`` of a new run of ``recipe`` on the data under ``data_root``, to be exported as ``model``.

    A folder of the user's own pictures is split, and all fields of the recipe but ``chosen`` are adapted to it.

    Raises:
        RunError: the folder is not empty, or cannot be written.
        DataError: the pictures cannot be read or split.
        RecipeError: the chosen fields do not fit the pictures.
    """
    create = partial(Run.create, folder, seed=seed, data_root=data_root, model=model, logger=logger)
    if recipe.dataset != "folder":
        return create(recipe=recipe, classes=open_source(recipe, data_root).classes)
    labels = find_labels(data_root)
    entries = split_folder(data_root, recipe, labels)
    outlines = labelled_corners(data_root, recipe, entries, labels)
    fitted = fit_to_pictures(recipe, data_root, entries, set(chosen))
    classes = Folder(data_root, entries, fitted.canvas, len(fitted.mean)).classes
    corners = corners_text(outlines) if outlines else None
    return create(recipe=fitted, classes=classes, split=split_text(entries), corners=corners)


def advice(recipe: Recipe) -> str:
    """Suggest how to change a recipe whose training failed."""
    clip = "" if recipe.clip else ", or set clip"
    return f"train again with a lower learning_rate (it is {recipe.learning_rate:g}) or localisation_rate{clip}"
