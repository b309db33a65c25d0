"""The command line: ``python -m training run | recipes | evaluate``."""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.errors import RecipeError, RunError, TrainingError
from training.recipes import RECIPES, change_recipe, find_recipe
from training.runs import Evaluation, Run

app = typer.Typer(
    name="python -m training",
    help="Train spatial transformer classifiers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataRoot = Annotated[
    Path, typer.Option(help="Folder of the data sets, as torchvision lays them out; what is missing is downloaded.")
]


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe; see: python -m training recipes.")] = None,
    data_root: DataRoot = Path("data"),
    epochs: Annotated[int | None, typer.Option(help="Short for --set epochs=N.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same run.  [default: 0]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make.  [default: runs/RECIPE-TIME]")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run as it was begun.")] = None,
) -> None:
    """Train RECIPE, evaluate it on its test set and draw what it learned.

    Examples:
      python -m training run mnist-rts

      python -m training run mnist-rts --epochs 5 --set learning_rate=0.001 --out runs/short

      python -m training run --resume runs/short
    """
    if resume is not None:
        if changes or any(option is not None for option in (epochs, seed, out)):
            raise RunError("--resume continues a run as it was begun; leave out --epochs, --set, --seed and --out")
        current = Run(resume)
        if recipe not in (None, current.info().recipe.name):
            raise RunError(f"{resume} is a run of {current.info().recipe.name}, not of {recipe}")
    else:
        if recipe is None:
            raise RecipeError(f"name a recipe; there are: {', '.join(RECIPES)}")
        current = begin(recipe, (changes or []) + ([f"epochs={epochs}"] if epochs is not None else []), seed or 0, out)
    from training.trainer import evaluate, fit
    from training.visualise import draw_run

    typer.echo(f"run folder: {current.folder}")
    fit(current, data_root)
    show(evaluate(current, data_root), current)
    draw_run(current, data_root)
    typer.echo(f"pictures: {current.pictures}")


@app.command()
def recipes() -> None:
    """List the recipes, a line each."""
    for recipe in RECIPES.values():
        typer.echo(f"{recipe.name:12} {recipe.summary}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")], data_root: DataRoot = Path("data")
) -> None:
    """Measure RUN's best checkpoint on the test set, and draw its pictures again."""
    from training.trainer import evaluate as evaluate_run
    from training.visualise import draw_run

    current = Run(run)
    show(evaluate_run(current, data_root), current)
    draw_run(current, data_root)


def begin(name: str, changes: list[str], seed: int, out: Path | None) -> Run:
    """Make the folder of a new run."""
    from training.data import class_names

    recipe = change_recipe(find_recipe(name), parse_changes(changes))
    folder = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return Run.create(folder, recipe, seed, class_names(recipe), len(recipe.mean))


def parse_changes(pairs: list[str]) -> dict[str, object]:
    """``["epochs=3", "canvas=[28, 28]"]`` as fields of a recipe: values are JSON, or else text.

    Raises:
        RecipeError: a pair without ``=``.
    """
    changes: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set takes KEY=VALUE, not {pair!r}")
        try:
            changes[key] = json.loads(value)
        except ValueError:
            changes[key] = value
    return changes


def show(evaluation: Evaluation, run: Run) -> None:
    """Print an evaluation as a table."""
    table = Table("measured", "value", title=str(run.folder))
    table.add_row("test accuracy", f"{evaluation.accuracy:.2%} of {evaluation.pictures:,} pictures")
    table.add_row("test loss", f"{evaluation.loss:.4f}")
    table.add_row("spread of theta", f"{evaluation.theta_spread:.3f}")
    table.add_row("validation accuracy", f"{evaluation.validation_accuracy:.2%} in epoch {evaluation.best_epoch}")
    table.add_row("parameters", f"{run.info().network_parameters:,}")
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; an error its user can mend becomes one line and exit code 1."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        app(arguments, standalone_mode=arguments is None)
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
