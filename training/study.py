"""A study: a set of recipes, each trained with one or more seeds, and one table of what they reached."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from training.begin import begin_run
from training.catalogue import DISTORTED_MNIST, KINDS
from training.errors import CollapseError, RecipeError, RunError
from training.files import write_text
from training.recipes import Recipe
from training.runs import Evaluation, Run

STUDIES: dict[str, list[Recipe]] = {"distorted-mnist": DISTORTED_MNIST}
FIRST = ("r", "rts", "tc", "p", "e", "addition")
"""The order in which problems are worked on; of each, kinds in the order of `KINDS`."""
TABLE = "study.md"
NOT_RUN = "not run"
PUBLISHED = {"r": 0.7, "rts": 0.5, "p": 0.8, "e": 1.1, "tc": 1.7, "addition": 5.8}
"""Test error of the best network of Jaderberg et al. 2015 (table 1, sections 4.1 and A.4), percent."""


class Cell(NamedTuple):
    """One recipe with one seed."""

    recipe: Recipe
    seed: int
    run: Run


def cells(name: str, folder: Path, seeds: int, only: Iterable[str] = ()) -> list[Cell]:
    """All cells of the study ``name``, those that matter most first.

    Raises:
        RecipeError: there is no such study, or no such recipe in it.
    """
    try:
        recipes = {recipe.name: recipe for recipe in STUDIES[name]}
    except KeyError:
        raise RecipeError(f"no study is called {name!r}; there are: {', '.join(STUDIES)}") from None
    if unknown := set(only) - recipes.keys():
        raise RecipeError(f"{name} has no recipe {', '.join(sorted(unknown))}; it has: {', '.join(recipes)}")
    chosen = [recipes[name] for name in only] or sorted(recipes.values(), key=lambda r: FIRST.index(r.distortion))
    return [Cell(recipe, seed, Run(folder / f"{recipe.name}-seed{seed}")) for seed in range(seeds) for recipe in chosen]


def work(todo: Iterable[Cell], data_root: Path, report: Callable[[], object]) -> Iterator[Cell]:
    """Train and evaluate what is not done yet, going on where an earlier call was interrupted; ``report`` after each.

    Raises:
        TrainingError: see `training.trainer.fit` and `training.trainer.evaluate`.
    """
    from training.evaluation import evaluate
    from training.trainer import fit

    for cell in todo:
        begin(cell, data_root)
        if result(cell.run) is not None or failure_file(cell.run).exists():
            continue
        yield cell
        try:
            fit(cell.run, data_root)
            evaluate(cell.run, data_root)
        except CollapseError as error:  # it would fail again in the same way; the others may do better
            write_text(failure_file(cell.run), f"{error}\n")
        report()


def begin(cell: Cell, data_root: Path) -> None:
    """Make the folder of the cell's run, or see that what is there is a run of the same recipe.

    Raises:
        RunError: it is a run of another one, or cannot be made.
    """
    if not cell.run.info_file.exists():
        begin_run(cell.run.folder, cell.recipe, cell.seed, data_root)
    elif cell.run.info().recipe != cell.recipe:
        raise RunError(
            f"{cell.run.folder} was trained by another version of the recipe {cell.recipe.name}; "
            "delete it, or choose another --out"
        )


def failure_file(run: Run) -> Path:
    """Says why a run of a study ended without a result."""
    return run.folder / "failed.txt"


def result(run: Run) -> Evaluation | None:
    """What ``run`` reached, if it is done."""
    try:
        return run.evaluation()
    except RunError:
        return None


def write_table(name: str, folder: Path) -> Path:
    """Write ``study.md``: errors by problem and kind, and a row for each recipe; what was not run says so."""
    found: dict[str, list[Evaluation]] = {}
    failed: dict[str, int] = {}
    for recipe in STUDIES[name]:
        runs = sorted(folder.glob(f"{recipe.name}-seed*"))
        found[recipe.name] = [evaluation for run in runs if (evaluation := result(Run(run))) is not None]
        failed[recipe.name] = sum(failure_file(Run(run)).exists() for run in runs)
    lines = [
        f"# {name}",
        "",
        "Test error in percent (mean, and spread over the seeds where there are several).",
        "",
        f"| problem | {' | '.join(KINDS)} | paper's best |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    for problem in FIRST:
        errors = [error_text(found.get(f"mnist-{problem}-{kind}", [])) for kind in KINDS]
        lines.append(f"| {problem} | {' | '.join(errors)} | {PUBLISHED[problem]} |")
    lines += [
        "",
        "| recipe | seeds | error % | residual rotation, deg (input) | stillness (input) | box found |",
        "|---|---|---|---|---|---|",
        *(row(recipe, found[recipe.name], failed[recipe.name]) for recipe in STUDIES[name]),
    ]
    file = folder / TABLE
    write_text(file, "\n".join(lines) + "\n")
    return file


def is_study(folder: Path) -> bool:
    """Whether ``folder`` is one that `work` filled."""
    return folder.name in STUDIES and folder.is_dir() and not Run(folder).info_file.exists()


def finished_runs(folder: Path) -> list[Run]:
    """The evaluated runs of the study in ``folder``."""
    runs = [Run(found) for found in sorted(folder.iterdir()) if found.is_dir()]
    return [run for run in runs if result(run) is not None]


def error_text(evaluations: list[Evaluation]) -> str:
    """Error in percent: mean and spread."""
    if not evaluations:
        return NOT_RUN
    errors = [100 * (1 - evaluation.accuracy) for evaluation in evaluations]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.2f}{spread}"


def row(recipe: Recipe, evaluations: list[Evaluation], failed: int) -> str:
    """One recipe of the second table."""
    upright = [evaluation.uprightness for evaluation in evaluations if evaluation.uprightness is not None]
    if upright:
        rotation, before, still, still_before, box = (
            statistics.mean(getattr(u, name) for u in upright)
            for name in ("rotation_deg", "input_rotation_deg", "stillness", "input_stillness", "box_found")
        )
        measured = f"{rotation:.1f} ({before:.1f}) | {still:.3f} ({still_before:.3f}) | {box:.0%}"
    else:
        measured = " | | "
    seeds = f"{len(evaluations)}" + (f", {failed} failed" if failed else "")
    return f"| `{recipe.name}` | {seeds} | {error_text(evaluations)} | {measured} |"
