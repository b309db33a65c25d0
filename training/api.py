"""The Python interface to training: find a recipe, train, evaluate."""

from pathlib import Path

from training.evaluation.results import Evaluation
from training.fitting.runs import DATA_ROOT, Run, begin_run
from training.fitting.trainer import fit
from training.recipes import catalogue
from training.recipes.recipe import Recipe, change_recipe
from training.reports import evaluation


def find_recipe(name: str, **changes: object) -> Recipe:
    """Return a recipe by name, with some of its fields changed.

    Raises:
        RecipeError: the recipe or a field does not exist, or a value is wrong.
    """
    return change_recipe(catalogue.find_recipe(name), changes)


def train(recipe: Recipe, folder: Path, *, data_root: Path = DATA_ROOT, seed: int = 0, progress: bool = False) -> Run:
    """Train ``recipe`` on the data under ``data_root``, and return the run in the new ``folder``.

    Raises:
        TrainingError: the folder is in use, the data set cannot be read, or training failed.
    """
    run = begin_run(folder, recipe, seed, data_root)
    fit(run, data_root, progress=progress)
    return run


def evaluate(run: Run) -> Evaluation:
    """Evaluate the kept checkpoint of ``run`` on the test set.

    Raises:
        TrainingError: the run was not trained, the data set cannot be read, or training diverged.
    """
    return evaluation.evaluate(run, run.data_root())
