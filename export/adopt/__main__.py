"""Serve a network from somebody's notebook: ``python -m export.adopt module:factory --weights FILE ...``."""

import os
import sys
import warnings
from contextlib import redirect_stdout
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from export.adopt.adoption import Request, adopt
from export.adopt.network import Normalisation
from export.adopt.scores import Scores
from export.command import show
from export.console import read_numbers, read_size, run_command
from export.exporter import Destination
from export.format.artifact import Artifact


class TaskName(StrEnum):
    """Values of ``--task``."""

    classification = "classification"
    features = "features"


def command(
    factory: Annotated[
        str, typer.Argument(metavar="MODULE:FACTORY", help="Class, function or network; also path/to/file.py:NAME.")
    ],
    weights: Annotated[Path, typer.Option(help="Its state dict, as torch.save(network.state_dict(), FILE) wrote it.")],
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of its pictures.")],
    mean: Annotated[str, typer.Option(help="Subtracted from pictures in [0, 1]: a number for each channel.")],
    std: Annotated[str, typer.Option(help="What they are then divided by.")],
    classes: Annotated[Path | None, typer.Option(help="File with the names of the classes, one a line.")] = None,
    channels: Annotated[int, typer.Option(help="1 (grey) or 3 (RGB).")] = 3,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "adopted",
    out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("models"),
    version: Annotated[
        int | None, typer.Option(min=1, max=10**9 - 1, help="Its version.  [default: the next one]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
    samples: Annotated[
        Path | None, typer.Option(help="Folder of pictures to compare on; four become the golden pictures.")
    ] = None,
    task: Annotated[
        TaskName, typer.Option(help="features: not a classifier; its raw output is served through /v2.")
    ] = TaskName.classification,
    output: Annotated[str | None, typer.Option(help="The output with the scores, if forward returns several.")] = None,
    scores: Annotated[Scores, typer.Option(help="What the scores are; found by checking unless stated.")] = Scores.auto,
    json: Annotated[bool, typer.Option("--json", help="Print folder and manifest as JSON.")] = False,
) -> None:
    """Write a network with a spatial transformer as an artifact that the service can load.

    The network is any nn.Module whose forward calls grid_sample. MODULE is imported, which runs its code. The exported
    model is compared with the network; what cannot be proven is refused, and nothing is written.

    Examples:

      python -m export.adopt my_module:Net --weights net.pt --classes classes.txt --size 28x28 --channels 1
      --mean 0.1307 --std 0.3081 --name mine

      python -m export.adopt plates.py:make_network --weights plates.pt --size 24x94 --mean 0.5,0.5,0.5
      --std 0.5,0.5,0.5 --task features

    Exit codes: 0 written, 1 failed, 2 wrong command, 3 the model differs from the network.
    """
    if channels not in (1, 3):
        raise typer.BadParameter(f"{channels} is neither 1 (grey) nor 3 (RGB)", param_hint="--channels")
    warnings.simplefilter("ignore")  # of the network's own code, under each of many runs
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a path of imports is text
    request = Request(
        factory=factory,
        weights=weights,
        size=read_size(size),
        channels=channels,
        normalisation=Normalisation(read_numbers(mean), read_numbers(std)),
        task=task.value,
        classes=classes,
        output=output,
        scores=scores,
        samples=samples,
    )
    notes = Console(stderr=True)
    with notes.status("starting") as status, redirect_stdout(sys.stderr):  # the network's code may print
        artifact = adopt(request, Destination(out, name, version, force), say=status.update)
    if json:
        typer.echo(dumps({"folder": str(artifact.folder), "manifest": artifact.manifest.model_dump(mode="json")}))
    else:
        show(artifact)
        Console().print(transformers(artifact))


def transformers(artifact: Artifact) -> Table:
    """Return how the network samples as a table."""
    table = Table("transformer", "reads", "rectified", "grid", "align_corners", "mode", "padding", "theta")
    for transform in artifact.manifest.transforms:
        found = transform.sampling
        if found is None:
            continue
        corners = found.align_corners or found.grid_align_corners
        table.add_row(
            transform.name,
            transform.reads,
            f"{transform.height}x{transform.width}",
            found.grid,
            str(found.align_corners).lower(),
            found.mode,
            found.padding,
            "converted to align_corners=False" if corners else "as it is",
        )
    return table


if __name__ == "__main__":
    run_command(command, "python -m export.adopt")
