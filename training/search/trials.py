"""A search with Optuna: trials that are ordinary runs, pruned early where their validation accuracy lags behind.

FOLDER/
  search.json     the recipe and what is searched
  study.db        Optuna's study: settings and accuracies of all trials
  trial-000/ …    the run of each trial

A search that was killed goes on with the epoch that was interrupted. The test set is never read.
"""

import csv
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import lightning
import optuna
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Callback
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import CollapseError, RecipeError, RunError
from training.files import write_text
from training.fitting.runs import LoggerName, Run, begin_run
from training.fitting.trainer import fit
from training.recipes.recipe import Recipe, change_recipe
from training.search.ranges import Space, check_space, draw

MEASURE = "validation_accuracy"
RUN, REASON = "run", "reason"
"""Attributes of a trial: the name of its run's folder, and why it failed."""
STARTUP_TRIALS = 5
"""Number of trials that are never pruned."""
WARMUP = 5
"""A trial is not pruned before this part (1/5) of the recipe's epochs."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

Say = Callable[[str], None]
"""Receives progress messages."""


class Search(BaseModel):
    """The content of ``search.json``."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    """The recipe with the fields that are only set."""
    fixed: tuple[str, ...]
    """Names of these fields."""
    space: dict[str, str]
    """What is searched, as text."""
    seed: int
    data_root: Path


class Best(NamedTuple):
    """The best trial."""

    run: Run
    accuracy: float
    """On the validation set."""
    settings: dict[str, object]
    """Its values of the fields that are searched."""


class Reports(Callback):
    """Reports the validation accuracy of each epoch to Optuna, and ends the run if the trial is pruned."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.pruned = False

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.trial.report(float(trainer.callback_metrics[MEASURE]), trainer.current_epoch)
        if self.trial.should_prune() and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.pruned = trainer.should_stop = True


def open_search(folder: Path, search: Search, space: Space) -> optuna.Study:
    """Begin the search in ``folder``, or open it again.

    Raises:
        RecipeError: a value that is searched is never possible.
        RunError: the folder has something else in it, or cannot be written.
    """
    check_space(search.recipe, space)
    file = folder / "search.json"
    if file.exists():
        try:
            earlier = Search.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{file} cannot be read; choose another --out") from error
        if other := [name for name in Search.model_fields if getattr(earlier, name) != getattr(search, name)]:
            raise RunError(
                f"{folder} is a search of its own ({', '.join(other)} differ); repeat its command to continue it, or "
                "choose another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is in use; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, search.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise RunError(f"cannot write the search to {folder}: {error.strerror}; choose another --out") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{folder.absolute() / 'study.db'}"
    pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=search.recipe.epochs // WARMUP)
    study = optuna.create_study(
        storage=storage, pruner=pruner, study_name="search", direction="maximize", load_if_exists=True
    )
    seed = search.seed + len(study.get_trials(deepcopy=False))  # another one at each start, or it would repeat itself
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    return study


def run_search(
    folder: Path,
    search: Search,
    space: Space,
    trials: int,
    say: Say,
    *,
    logger: LoggerName = "tensorboard",
    progress: bool = True,
) -> Best:
    """Run trials until there are ``trials`` of them in ``folder``, and return the best one.

    Raises:
        TrainingError: the data set cannot be read, every trial failed, another process is at work in the folder, or
            Ctrl+C stopped it.
    """
    study = open_search(folder, search, space)
    try:
        with FileLock(folder / "search.lock", timeout=0):
            take_up(study)
            while len(study.get_trials(deepcopy=False, states=ENDED)) < trials:
                trial = study.ask()
                say(run_trial(folder, search, space, study, trial, logger=logger, progress=progress))
    except Timeout as error:
        raise RunError(f"another process is searching in {folder}; wait for it, or choose another --out") from error
    return best_of(folder, study, space)


def take_up(study: optuna.Study) -> None:
    """Queue the settings of trials again that a killed process left behind."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={RUN: trial.user_attrs.get(RUN, name_of(trial.number))})


def name_of(number: int) -> str:
    """Return the name of the folder of a trial."""
    return f"trial-{number:03}"


def run_trial(
    folder: Path,
    search: Search,
    space: Space,
    study: optuna.Study,
    trial: optuna.Trial,
    *,
    logger: LoggerName,
    progress: bool,
) -> str:
    """Train the run of ``trial``, tell the ``study`` its accuracy, and say how it ended."""
    settings = draw(trial, space)
    run = Run(folder / trial.user_attrs.get(RUN, name_of(trial.number)))
    trial.set_user_attr(RUN, run.folder.name)
    told = f"{run.folder.name}: {described(settings)}"
    reports = Reports(trial)
    try:
        if not run.info_file.exists():
            begin_trial(run, search, settings, logger)
        for epoch, accuracy in accuracies(run).items():
            trial.report(accuracy, epoch)
        fit(run, search.data_root, progress=progress, watchers=(reports,))
    except (CollapseError, RecipeError) as error:
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=TrialState.PRUNED)
        return f"{told}: failed ({error})"
    except RunError as error:
        raise RunError(f"{error}; to continue the search instead, repeat its command") from error
    if reports.pruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"{told}: pruned after epoch {max(accuracies(run))}"
    found = accuracies(run)[run.kept_epoch()]
    study.tell(trial, found)
    return f"{told}: validation accuracy {found:.2%}"


def begin_trial(run: Run, search: Search, settings: Mapping[str, object], logger: LoggerName) -> None:
    """Create the folder of a trial's run.

    Raises:
        RecipeError: the settings contradict each other or do not fit the pictures.
        RunError: it cannot be written, or there is only one class.
        DataError: the pictures cannot be read.
    """
    shutil.rmtree(run.folder, ignore_errors=True)  # a process may have been killed while it created the run
    recipe = change_recipe(search.recipe, dict(settings))
    begin_run(run.folder, recipe, search.seed, search.data_root, {*search.fixed, *settings}, logger=logger)
    if len(run.info().classes) == 1:
        raise RunError("with a single class every accuracy is 1, so there is nothing to search by; add classes")


def accuracies(run: Run) -> dict[int, float]:
    """Return the validation accuracy of each epoch that ``run`` has trained."""
    if not run.metrics_file.exists():
        return {}
    with run.metrics_file.open(newline="", encoding="utf-8") as text:
        return {int(row["epoch"]): float(row[MEASURE]) for row in csv.DictReader(text)}


def best_of(folder: Path, study: optuna.Study, space: Space) -> Best:
    """Return the best trial.

    Raises:
        RunError: no trial was trained to its end.
    """
    if not (ended := study.get_trials(states=(TrialState.COMPLETE,))):
        failed = study.get_trials(states=(TrialState.PRUNED,))
        reason = next((trial.user_attrs[REASON] for trial in reversed(failed) if REASON in trial.user_attrs), "pruned")
        raise RunError(f"no trial in {folder} was trained to its end ({reason}); change what is searched")
    best: FrozenTrial = max(ended, key=lambda trial: trial.value or 0.0)
    settings = draw(optuna.trial.FixedTrial(best.params), space)  # type: ignore[arg-type]
    return Best(Run(folder / best.user_attrs[RUN]), best.value or 0.0, settings)


def repeat(search: Search, fixed: Mapping[str, object], best: Best) -> str:
    """Return the command that trains, evaluates and reports a run with the settings of the ``best`` trial."""
    recipe = search.recipe
    words = ["python", "-m", "training", "run", recipe.name, "--data-root", str(search.data_root)]
    for name, found in {**fixed, **best.settings}.items():
        words += ["--set", f"{name}={found if isinstance(found, str) else json.dumps(found)}"]
    return shlex.join([*words, "--seed", str(search.seed)])


def described(settings: Mapping[str, object]) -> str:
    """Describe the settings of a trial in a line."""
    return ", ".join(
        f"{name}={found:.4g}" if isinstance(found, float) else f"{name}={found}" for name, found in settings.items()
    )
