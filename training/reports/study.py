"""A study: a set of recipes, each trained with one or more seeds."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from training.errors import CollapseError, RecipeError, RunError
from training.evaluation.results import Evaluation
from training.files import write_text
from training.fitting.runs import DATA_ROOT, Run, begin_run
from training.recipes.digits import DISTORTED_MNIST, SHORT_DISTORTED_MNIST
from training.recipes.recipe import Recipe
from training.recipes.studies import CONVOLUTIONS, MOVED_DIGITS, NORMALISATION

STUDIES: dict[str, list[Recipe]] = {
    "distorted-mnist": DISTORTED_MNIST,
    "distorted-mnist-short": SHORT_DISTORTED_MNIST,
    "convolutions": CONVOLUTIONS,
    "normalisation": NORMALISATION,
    "moved-digits": MOVED_DIGITS,
}
"""The recipes of each study, in training order."""


class Cell(NamedTuple):
    """One recipe with one seed."""

    recipe: Recipe
    seed: int
    run: Run


def cells(name: str, folder: Path, seeds: int, only: Iterable[str] = ()) -> list[Cell]:
    """Return all cells of the study ``name``: every recipe with the first seed, then with the next.

    Raises:
        RecipeError: the study does not exist, or has no such recipe.
    """
    try:
        recipes = {recipe.name: recipe for recipe in STUDIES[name]}
    except KeyError:
        raise RecipeError(f"there is no study {name!r}; the studies are: {', '.join(STUDIES)}") from None
    if unknown := set(only) - recipes.keys():
        raise RecipeError(f"{name} has no recipe {', '.join(sorted(unknown))}; its recipes are: {', '.join(recipes)}")
    chosen = [recipes[name] for name in only] or list(recipes.values())
    return [Cell(recipe, seed, Run(folder / f"{recipe.name}-seed{seed}")) for seed in range(seeds) for recipe in chosen]


def work(todo: Iterable[Cell], data_root: Path, report: Callable[[], object]) -> Iterator[Cell]:
    """Train and evaluate all unfinished cells, resuming interrupted ones; call ``report`` after each.

    Raises:
        TrainingError: see `training.fitting.trainer.fit` and `training.fitting.trainer.evaluate`.
    """
    from training.fitting.trainer import fit
    from training.reports.evaluation import evaluate

    for cell in todo:
        begin(cell, data_root)
        if result(cell.run) is not None or failure_file(cell.run).exists():
            continue
        yield cell
        try:
            fit(cell.run, data_root)
            evaluate(cell.run, data_root)
        except CollapseError as error:  # it would fail again in the same way, so the next call skips it
            write_text(failure_file(cell.run), f"{error}\n")
        report()


def root_of(folder: Path, chosen: Path | None) -> Path:
    """Return the location of the study's data set: ``chosen``, or else that of its first run."""
    begun = (Run(file.parent) for file in sorted(folder.glob("*/run.json")))
    return chosen or next((run.data_root() for run in begun), DATA_ROOT)


def begin(cell: Cell, data_root: Path) -> None:
    """Create the folder of the cell's run, or check that an existing run has the same recipe.

    Raises:
        RunError: it is a run of another recipe, or cannot be created.
    """
    if not cell.run.info_file.exists():
        begin_run(cell.run.folder, cell.recipe, cell.seed, data_root)
    elif cell.run.info().recipe != cell.recipe:
        raise RunError(
            f"{cell.run.folder} was trained by another version of the recipe {cell.recipe.name}; "
            "delete it, or choose another --out"
        )


def failure_file(run: Run) -> Path:
    """Return the file that says why a run of a study failed."""
    return run.folder / "failed.txt"


def result(run: Run) -> Evaluation | None:
    """Return the evaluation of ``run``, or None if it is not finished."""
    try:
        return run.evaluation()
    except RunError:
        return None


def is_study(folder: Path) -> bool:
    """Return whether ``folder`` is the folder of a study."""
    return folder.name in STUDIES and folder.is_dir() and not Run(folder).info_file.exists()


def finished_runs(folder: Path) -> list[Run]:
    """Return the evaluated runs of the study in ``folder``."""
    runs = [Run(found) for found in sorted(folder.iterdir()) if found.is_dir()]
    return [run for run in runs if result(run) is not None]
