"""Begin a run: look at the data set as far as that is needed, settle the recipe, make the folder."""

from collections.abc import Collection
from pathlib import Path

from training.data.folders import Folder, split_folder, split_text
from training.data.sizing import fit_to_pictures
from training.data.sources import open_source
from training.fitting.runs import Run
from training.recipes.recipe import Recipe


def begin_run(
    folder: Path,
    recipe: Recipe,
    seed: int,
    data_root: Path,
    chosen: Collection[str] = (),
    model: str | None = None,
) -> Run:
    """Make the ``folder`` of a new run of ``recipe`` on the data under ``data_root``, to be exported as ``model``.

    A folder of own pictures is split, and the recipe fitted to it in all fields but ``chosen``.

    Raises:
        RunError: there is something in the folder already, or it cannot be written.
        DataError: the pictures cannot be read or split.
        RecipeError: what was chosen does not go with the pictures.
    """
    if recipe.dataset != "folder":
        return Run.create(folder, recipe, seed, open_source(recipe, data_root).classes, data_root, model=model)
    entries = split_folder(data_root, recipe)
    fitted = fit_to_pictures(recipe, data_root, entries, chosen)
    classes = Folder(data_root, entries, fitted.canvas, len(fitted.mean)).classes
    return Run.create(folder, fitted, seed, classes, data_root, model=model, split=split_text(entries))
