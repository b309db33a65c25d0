"""The results of a study: a table, curves, and tests of the differences."""

import statistics
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_ind

from training.evaluation.confusion import Cell
from training.evaluation.results import Evaluation
from training.files import write_text
from training.fitting.runs import Run
from training.recipes.digits import KINDS
from training.recipes.recipe import Recipe
from training.reports.confusions import confusion_figures
from training.reports.study import STUDIES, failure_file, result
from training.reports.visualise import read_metrics, save

TABLE = "study.md"
CURVES = "curves.png"
CONFUSIONS = "confusions.png"
SIDE_BY_SIDE = 6
"""Largest number of recipes whose classes are compared."""
NOT_RUN = "not run"
CERTAINTY = 0.95
PROBLEMS = ("r", "rts", "tc", "p", "e", "addition")
PUBLISHED = {"r": 0.7, "rts": 0.5, "p": 0.8, "e": 1.1, "tc": 1.7, "addition": 5.8}
"""Test error of the best network of Jaderberg et al. 2015 (table 1, sections 4.1 and A.4) in percent."""


def write_table(name: str, folder: Path) -> Path:
    """Write ``study.md``, ``curves.png`` and, for a few recipes, ``confusions.png``; return the first.

    Recipes without a result are marked as not run.
    """
    recipes = STUDIES[name]
    runs = {recipe.name: [Run(found) for found in sorted(folder.glob(f"{recipe.name}-seed*"))] for recipe in recipes}
    found = {recipe: [e for run in of if (e := result(run)) is not None] for recipe, of in runs.items()}
    lines = [f"# {name}", "", "Test error in percent (mean, and standard deviation over several seeds).", ""]
    if name.startswith("distorted-mnist"):
        lines += problems_by_kind(found, name.removeprefix("distorted-mnist"))
    lines += [
        "| recipe | seeds | error % | loss | residual rotation, deg (input) | stillness (input) | box found |",
        "|---|---|---|---|---|---|---|",
        *(row(r, found[r.name], sum(failure_file(run).exists() for run in runs[r.name])) for r in recipes),
    ]
    lines += differences_table(recipes, found)
    evaluated = {recipe: of for recipe, of in found.items() if of}
    done = {recipe: [run for run in runs[recipe] if result(run) is not None] for recipe in evaluated}
    classes = shared_classes(done)
    if classes is not None:
        lines += classes_table(evaluated, classes)
        save(confusion_figures(confusions(evaluated), classes), folder / CONFUSIONS)
    file = folder / TABLE
    write_text(file, "\n".join(lines) + "\n")
    if done:
        save(curves_figure(done), folder / CURVES)
    return file


def problems_by_kind(found: dict[str, list[Evaluation]], schedule: str) -> list[str]:
    """Return the paper's table: a row for each problem, a column for each kind; recipes' names end in ``schedule``."""
    lines = [f"| problem | {' | '.join(KINDS)} | paper's best |", "|---|" + "---|" * (len(KINDS) + 1)]
    for problem in PROBLEMS:
        errors = [error_text(found.get(f"mnist-{problem}-{kind}{schedule}", [])) for kind in KINDS]
        lines.append(f"| {problem} | {' | '.join(errors)} | {PUBLISHED[problem]} |")
    return [*lines, ""]


def error_text(evaluations: list[Evaluation]) -> str:
    """Return the error in percent: mean and standard deviation."""
    if not evaluations:
        return NOT_RUN
    errors = [100 * (1 - evaluation.accuracy) for evaluation in evaluations]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.2f}{spread}"


def row(recipe: Recipe, evaluations: list[Evaluation], failed: int) -> str:
    """Return the row of one recipe."""
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
    loss = f"{statistics.mean(e.calibration.loss for e in evaluations):.4f}" if evaluations else ""
    return f"| `{recipe.name}` | {seeds} | {error_text(evaluations)} | {loss} | {measured} |"


class Difference(NamedTuple):
    """The difference in accuracy between two recipes, in percentage points."""

    recipe: str
    other: str
    points: float
    interval: tuple[float, float]
    """95 % confidence interval of the difference, not corrected for multiple comparisons (Welch 1947)."""
    chance: float
    """p-value of Welch's test."""


def differences_table(recipes: list[Recipe], found: dict[str, list[Evaluation]]) -> list[str]:
    """Return the table of all `differences`, with p-values corrected for their number."""
    pairs = differences(recipes, found)
    if not pairs:
        return []
    lines = [
        f"| of {len(pairs)} pair(s) | accuracy is higher by (95 % interval) | p, corrected for all pairs (Holm) |",
        "|---|---|---|",
    ]
    for pair, chance in zip(pairs, holm([pair.chance for pair in pairs]), strict=True):
        low, high = pair.interval
        difference = f"{pair.points:+.2f} points ({low:+.2f} to {high:+.2f})"
        lines.append(f"| `{pair.recipe}` against `{pair.other}` | {difference} | {chance:.3f} |")
    return ["", *lines]


def differences(recipes: list[Recipe], found: dict[str, list[Evaluation]]) -> list[Difference]:
    """Return the differences between all pairs of recipes with the same distortion and several seeds each."""
    several = [recipe for recipe in recipes if len(found[recipe.name]) > 1]
    return [
        difference(recipe.name, other.name, found)
        for other, recipe in combinations(several, 2)
        if recipe.distortion == other.distortion
    ]


def difference(recipe: str, other: str, found: dict[str, list[Evaluation]]) -> Difference:
    """Return the difference of ``recipe`` from ``other``."""
    ours, theirs = ([100 * evaluation.accuracy for evaluation in found[name]] for name in (recipe, other))
    test = ttest_ind(ours, theirs, equal_var=False)
    interval = test.confidence_interval(CERTAINTY)
    points = statistics.mean(ours) - statistics.mean(theirs)
    return Difference(recipe, other, points, (float(interval.low), float(interval.high)), float(test.pvalue))


def holm(chances: list[float]) -> list[float]:
    """Correct the p-values of several tests for multiple comparisons (Holm 1979)."""
    order = np.argsort(chances)
    left = np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.maximum.accumulate(np.array(chances)[order] * left).clip(max=1)
    return [float(chance) for chance in corrected]


def shared_classes(runs: dict[str, list[Run]]) -> tuple[str, ...] | None:
    """Return the classes of all ``runs`` if they are the same and at most `SIDE_BY_SIDE` recipes are compared."""
    classes = {run.info().classes for of in runs.values() for run in of}
    return classes.pop() if len(classes) == 1 and len(runs) <= SIDE_BY_SIDE else None


def classes_table(found: dict[str, list[Evaluation]], classes: tuple[str, ...]) -> list[str]:
    """Return the accuracy of each class in percent, averaged over the seeds."""
    lines = ["", f"| class | {' | '.join(f'`{name}`' for name in found)} |", "|---|" + "---|" * len(found)]
    for name in classes:
        if not all(name in e.class_accuracy for of in found.values() for e in of):  # it has no test pictures
            continue
        cells = [f"{100 * statistics.mean(e.class_accuracy[name] for e in of):.2f}" for of in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def confusions(found: dict[str, list[Evaluation]]) -> dict[str, list[Cell]]:
    """Return the cells of the confusion matrices of each recipe for all seeds."""
    return {name: [cell for evaluation in of for cell in evaluation.confusions] for name, of in found.items()}


def curves_figure(runs: dict[str, list[Run]]) -> Figure:
    """Draw validation loss and error over the epochs, averaged over the seeds of each recipe."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for recipe, of in runs.items():
        tables = [read_metrics(run.metrics_file) for run in of]
        epochs = tables[0]["epoch"]
        for axes, column in zip(panels, ("validation_loss", "validation_accuracy"), strict=True):
            mean = np.mean([table[column] for table in tables], axis=0)
            axes.plot(epochs, mean if column == "validation_loss" else 100 * (1 - mean), label=recipe)
    for axes, title in zip(panels, ("validation loss", "validation error, %"), strict=True):
        axes.set(title=title, xlabel="epoch", yscale="log")
    panels[1].legend(fontsize=6)
    return figure
