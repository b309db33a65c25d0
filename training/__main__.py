"""The command line: ``python -m training run | search | recipes | summary | evaluate | report | compare | study``."""

import subprocess
import sys
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.errors import DataError, RecipeError, RunError, TrainingError
from training.evaluation.results import Evaluation
from training.fitting.runs import DATA_ROOT, MODEL_NAME, LoggerName, Run, begin_run
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.recipe import change_recipe, parse_changes
from training.terminal import escape_unprintable

SHOWN_CLASSES = 60
"""Number of classes whose pictures are counted in the printed table; of further ones only the sum is printed."""

app = typer.Typer(
    name="python -m training",
    help="Train spatial transformer classifiers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data sets, in torchvision's layout (missing ones are downloaded); for recipes that read "
        "a folder of your own, such as my-images, that folder.  [default: that of the run, or data]"
    ),
]


def model_name(name: str | None) -> str | None:
    """Check the name of a model before training.

    Raises:
        RunError: it is not a valid name.
    """
    if name is not None and not MODEL_NAME.fullmatch(name):
        raise RunError(f"{name!r} is not a valid model name; use at most 64 letters, digits, '.', '_' and '-'")
    return name


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe; see: python -m training recipes.")] = None,
    data_root: DataRoot = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set epochs=N.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a field of the recipe; may be repeated. training/recipes/recipe.py describes all fields.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same run.  [default: 0]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The new run folder.  [default: runs/RECIPE-TIME]")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run with its settings.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Number of GPUs, or of processes on the CPU.")] = 1,
    logger: Annotated[
        LoggerName | None,
        typer.Option(help="Record metrics for this program, besides metrics.csv.  [default: tensorboard]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=model_name,
            help="Export to models/NAME.  [default: the recipe's name, for a folder of your own; else no export]",
        ),
    ] = None,
) -> None:
    """Train RECIPE, evaluate it on its test set, export it if a model name is given, and write a report.

    Examples:

      python -m training run mnist-rts

      python -m training run mnist-rts --epochs 5 --set learning_rate=0.001 --out runs/short

      python -m training run --resume runs/short

      python -m training run my-images --data-root pictures
    """
    if resume is not None:
        if changes or any(option is not None for option in (epochs, seed, out, logger)):
            raise RunError(
                "--resume continues a run with its settings; leave out --epochs, --set, --seed, --out and --logger"
            )
        current = Run(resume)
        if recipe not in (None, current.info().recipe.name):
            raise RunError(f"{resume} is a run of {current.info().recipe.name}, not of {recipe}")
    else:
        if recipe is None:
            raise RecipeError(f"name a recipe; the recipes are: {', '.join(RECIPES)}")
        all_changes = (changes or []) + ([f"epochs={epochs}"] if epochs is not None else [])
        current = begin(recipe, all_changes, seed or 0, out, data_root or DATA_ROOT, model, logger or "tensorboard")
    from training.fitting.trainer import fit
    from training.reports.evaluation import evaluate
    from training.reports.report import write_report

    typer.echo(f"run folder: {current.folder}")
    show_split(current)
    root = current.data_root(data_root)
    if finished := current.finished():
        typer.echo("this run is finished; it is evaluated again")
    else:
        try:
            fit(current, root, devices=devices)
        except (DataError, RecipeError):
            if resume is None:
                current.take_back()
            raise
    show(evaluate(current, root), current)
    info = current.info()
    name = model or info.model or (info.recipe.name if info.recipe.dataset == "folder" else None)
    if finished and name and not model:
        typer.echo(f"not exported again; to export another version, add: --model {name}")
    try:
        if name and not (finished and not model):
            export(current, name)
    finally:
        typer.echo(f"report: {write_report(current, root)}")


@app.command()
def search(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; see: python -m training recipes.")],
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUES", help="Search a field: LOW..HIGH, or a|b|c. KEY=VALUE sets one."),
    ],
    trials: Annotated[
        int, typer.Option(min=1, help="Number of trials in all, those before a resumption included.")
    ] = 20,
    data_root: DataRoot = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set epochs=N.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the search, and of each trial.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the search.  [default: runs/search-RECIPE]")] = None,
    logger: Annotated[LoggerName, typer.Option(help="Record metrics of each trial for this program.")] = "tensorboard",
) -> None:
    """Search for settings of RECIPE with a high validation accuracy. To continue after an interruption, run it again.

    Floats are drawn log-uniformly if their range spans more than a decade. Each trial is a run in a folder of its own;
    it is pruned when its validation accuracy lags behind. The test set is not read.

    Examples:

      python -m training search mnist-rts --set learning_rate=1e-4..1e-2 --set 'localisation=cnn|modern' --epochs 5

      python -m training search my-images --data-root pictures --set augmentation.rotation=0..45 --trials 30
    """
    from training.fitting.loggers import check_logger, need

    need("optuna", "the search", "search")
    from training.search.ranges import parse_space
    from training.search.trials import Search, repeat, run_search

    check_logger(logger)
    space, fixed = parse_space(changes + ([f"epochs={epochs}"] if epochs is not None else []))
    texts = dict(pair.split("=", 1) for pair in changes)
    todo = Search(
        recipe=change_recipe(find_recipe(recipe), fixed),
        fixed=tuple(fixed),
        space={name: texts[name] for name in space},
        seed=seed,
        data_root=(data_root or DATA_ROOT).absolute(),
    )
    folder = out or Path("runs") / f"search-{recipe}"
    best = run_search(folder, todo, space, trials, typer.echo, logger=logger)
    typer.echo(f"best: {best.run.folder} with a validation accuracy of {best.accuracy:.2%}; to repeat it:")
    typer.echo(f"  {repeat(todo, fixed, best)}")


@app.command()
def recipes() -> None:
    """List the recipes, one a line."""
    width = max(map(len, RECIPES))
    for recipe in RECIPES.values():
        typer.echo(f"{recipe.name:{width}} {recipe.summary}")


@app.command()
def summary(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe.")],
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field.")] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of classes.  [default: the data set's, or 10 for your own]")
    ] = None,
) -> None:
    """Print the layers of RECIPE's network with output shapes, parameters and operations per picture.

    Example:

      python -m training summary cifar10-145k
    """
    from training.data.sources import open_source
    from training.reports.summary import summarise

    chosen = change_recipe(find_recipe(recipe), parse_changes(changes or []))
    known = 10 if chosen.dataset == "folder" else len(open_source(chosen, Path()).classes)
    network = summarise(chosen, classes or known)
    table = Table("layer", "kind", "output", "parameters", "operations", title=recipe)
    for layer in network.layers:
        shape = "x".join(map(str, layer.output))
        table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.operations:,}")
    table.add_section()
    table.add_row("all", "", "", f"{network.parameters:,}", f"{network.operations:,}")
    Console().print(table)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")], data_root: DataRoot = None
) -> None:
    """Evaluate the weights that RUN has kept on the test set, and write its report again."""
    from training.reports.evaluation import evaluate as evaluate_run
    from training.reports.report import write_report

    current = Run(run)
    root = current.data_root(data_root)
    show(evaluate_run(current, root), current)
    typer.echo(f"report: {write_report(current, root)}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="The folder of a run, or of a study.")],
    data_root: DataRoot = None,
) -> None:
    """Write a report with figures: RUN/report.md, or the table of STUDY and the reports of all its runs.

    Examples:

      python -m training report runs/mnist-rts

      python -m training report runs/distorted-mnist
    """
    from training.reports.comparison import write_table
    from training.reports.report import write_report
    from training.reports.study import finished_runs, is_study

    if not is_study(folder):
        run = Run(folder)
        typer.echo(f"report: {write_report(run, run.data_root(data_root))}")
        return
    for done in finished_runs(folder):
        typer.echo(f"report: {write_report(done, done.data_root(data_root))}")
    typer.echo(f"table: {write_table(folder.name, folder)}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an evaluated run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="That of another run on the same test pictures.")],
) -> None:
    """Compare two runs picture by picture: difference in accuracy, its interval, and McNemar's test.

    Example:

      python -m training compare runs/gtsrb runs/gtsrb-cnn
    """
    from training.reports.pairing import comparison_facts

    table = Table("compared", "value", title=f"{escape(str(first))} against {escape(str(second))}")
    for fact in comparison_facts(Run(first), Run(second)).items():
        table.add_row(*map(escape, fact))
    Console().print(table)


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(help="distorted-mnist, distorted-mnist-short, convolutions, normalisation or moved-digits.")
    ],
    only: Annotated[list[str] | None, typer.Option(metavar="RECIPE", help="Only this recipe; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Number of runs of each recipe.")] = 1,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="A folder with the name NAME.  [default: runs/NAME]")] = None,
) -> None:
    """Train every recipe of a study and write one table. To continue after an interruption, run it again.

    Examples:

      python -m training study distorted-mnist --seeds 3

      python -m training study distorted-mnist --only mnist-r-affine --only mnist-rts-affine
    """
    from training.reports.comparison import write_table
    from training.reports.study import cells, root_of, work

    folder = out or Path("runs") / name
    todo = cells(name, folder, seeds, only or [])
    if folder.name != name:
        raise RunError(f"the name of {folder} is not {name}, so it would not be recognised; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write the study to {folder}: {error.strerror}; choose another --out") from error
    for cell in work(todo, root_of(folder, data_root), lambda: write_table(name, folder)):
        typer.echo(f"run folder: {cell.run.folder}")
    typer.echo(f"table: {write_table(name, folder)}")


def begin(
    name: str,
    changes: list[str],
    seed: int,
    out: Path | None,
    data_root: Path,
    model: str | None,
    logger: LoggerName,
) -> Run:
    """Create the folder of a new run."""
    from training.fitting.loggers import check_logger

    check_logger(logger)
    chosen = parse_changes(changes)
    recipe = change_recipe(find_recipe(name), chosen)
    folder = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return begin_run(folder, recipe, seed, data_root, chosen, model, logger)


def show_split(run: Run) -> None:
    """Print the number of pictures of each class in a folder, and the sizes chosen for them."""
    from training.data.folder.corners import read_corners
    from training.data.folder.source import PARTS, counts, read_split

    if not run.split_file.exists():
        return
    recipe = run.info().recipe
    table = Table("class", *PARTS)
    entries = read_split(run.split_file)
    found = counts(entries)
    for label, parts in islice(found.items(), SHOWN_CLASSES):
        table.add_row(escape(label), *(f"{parts[part]:,}" for part in PARTS))
    if len(found) > SHOWN_CLASSES:
        table.add_section()
        every = (f"{sum(parts[part] for parts in found.values()):,}" for part in PARTS)
        table.add_row(f"all {len(found):,} classes", *every)
    Console().print(table)
    if run.corners_file.exists():
        known = {each.path for each in read_corners(run.corners_file)}
        several = (f"{sum(e.path in known for e in entries if e.part == part):,} {part}" for part in PARTS)
        typer.echo(f"corners are known in {', '.join(several)} pictures")
    height, width = recipe.canvas
    typer.echo(f"pictures are resized to {width}x{height}, {len(recipe.mean)} channel(s); {recipe.epochs} epochs")


def export(run: Run, model: str) -> None:
    """Export ``run`` by the command that a user would run.

    Raises:
        RunError: the command failed, after printing the reason.
    """
    command = ["-m", "export.onnx", str(run.folder), "--name", model]
    if subprocess.run([sys.executable, *command], check=False).returncode:  # noqa: S603 - our own module
        raise RunError(f"the model was trained but not exported; try: python {' '.join(command)}")


def show(evaluation: Evaluation, run: Run) -> None:
    """Print an evaluation as a table."""
    from training.reports.facts import describe_worth, evaluation_facts

    table = Table("measured", "value", title=escape(str(run.folder)))
    for fact in evaluation_facts(run, evaluation).items():
        table.add_row(*map(escape, fact))
    Console().print(table)
    if sentence := describe_worth(evaluation):
        typer.echo(sentence)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Errors that the user can resolve are printed as one line, with exit code 1."""
    escape_unprintable()
    try:
        app(arguments, standalone_mode=arguments is None)
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
