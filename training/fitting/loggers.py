"""Loggers of Lightning, which record metrics for other programs while a run is trained."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from training.errors import RecipeError, RunError
from training.fitting.runs import LoggerName, Run, RunInfo

PACKAGES: dict[LoggerName, tuple[str, ...]] = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""Packages of the extra ``loggers`` that a logger needs."""
TAG = "stn_run"
"""Tag by which a resumed run is found in MLflow."""


def check_logger(name: LoggerName) -> None:
    """Check that the packages of a logger are installed.

    Raises:
        RecipeError: one of them is not.
    """
    for package in PACKAGES.get(name, ()):
        need(package, f"--logger {name}", "loggers")


def need(package: str, what: str, extra: str) -> None:
    """Check that a ``package`` is installed, without which ``what`` does not work.

    Raises:
        RecipeError: it is not; the message names the ``extra`` that has it.
    """
    if find_spec(package) is None:
        raise RecipeError(f"{what} needs {package}; install it with: pip install -c constraints.txt -e '.[{extra}]'")


@contextmanager
def open_logger(run: Run, info: RunInfo) -> Iterator[Logger]:
    """Open the logger of ``run``; a resumed run continues what it recorded before.

    Raises:
        RecipeError: its packages are not installed.
        RunError: it cannot record, because an account or a server is missing.
    """
    check_logger(info.logger)
    if info.logger == "tensorboard":
        yield TensorBoardLogger(run.folder, name="tensorboard", version="")
        return
    if info.logger == "csv":
        logger: Logger = CSVLogger(run.folder, name="csv")
    else:
        logger = mlflow_logger(run, info) if info.logger == "mlflow" else wandb_logger(run, info)
    logger.log_hyperparams(info.recipe.model_dump(mode="json") | {"seed": info.seed})
    try:
        yield logger
    finally:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def identity(run: Run) -> str:
    """Return a name of ``run`` that no other run has, and that stays when its folder is moved."""
    return hashlib.blake2b(run.info_file.read_bytes(), digest_size=8).hexdigest()


def mlflow_logger(run: Run, info: RunInfo) -> MLFlowLogger:
    """Return a logger that records to MLFLOW_TRACKING_URI, or else to the run's ``mlflow.db``."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before it is imported
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder.absolute() / 'mlflow.db'}"
    name, own = info.recipe.name, identity(run)
    try:
        client = MlflowClient(place)
        experiment = client.get_experiment_by_name(name)
        wanted = f"tags.{TAG} = '{own}'"
        earlier = [] if experiment is None else client.search_runs([experiment.experiment_id], wanted)
        resumed = earlier[0].info.run_id if earlier else None
        logger = MLFlowLogger(name, run.folder.name, place, tags={TAG: own}, run_id=resumed)
        _ = logger.experiment  # created at the first access
    except MlflowException as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"MLflow does not record to {place} ({reason}); set MLFLOW_TRACKING_URI to a server that answers, or "
            f"unset it, and continue with --resume {run.folder}"
        ) from error
    return logger


def wandb_logger(run: Run, info: RunInfo) -> WandbLogger:
    """Return a logger that records to Weights & Biases, or with WANDB_MODE=offline to the run's ``wandb/`` alone."""
    import wandb

    logger = WandbLogger(run.folder.name, run.folder, project=info.recipe.name, id=identity(run), resume="allow")
    try:
        _ = logger.experiment  # created at the first access
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"Weights & Biases does not record ({reason}); run: wandb login, or set WANDB_MODE=offline, and continue "
            f"with --resume {run.folder}"
        ) from error
    return logger
