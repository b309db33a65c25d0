"""Put a straightener in front of any ONNX classifier: ``python -m export.compose STRAIGHTENER OTHER.onnx ...``."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.adopt.network import Normalisation
from export.adopt.scores import Scores
from export.command import show
from export.compose.composition import Request, compose
from export.console import read_numbers, read_size, run_command
from export.exporter import Destination


class PaddingName(StrEnum):
    """Values of ``--padding``."""

    zeros = "zeros"
    border = "border"
    reflection = "reflection"


def command(
    straightener: Annotated[
        Path, typer.Argument(metavar="STRAIGHTENER", help="An ONNX artifact of this project: its folder or model file.")
    ],
    other: Annotated[Path, typer.Argument(metavar="OTHER.onnx", help="Any ONNX classifier of pictures.")],
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of the classifier's pictures.")],
    mean: Annotated[str, typer.Option(help="Subtracted from pictures in [0, 1]: a number for each channel.")],
    std: Annotated[str, typer.Option(help="What they are then divided by.")],
    classes: Annotated[Path, typer.Option(help="File with the names of the classifier's classes, one a line.")],
    input: Annotated[  # noqa: A002 - the name of the option
        str | None, typer.Option("--input", help="Input of the classifier.  [default: its only one]")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Output with the scores.  [default: the classifier's only one]")
    ] = None,
    scores: Annotated[Scores, typer.Option(help="What the scores are; found by checking unless stated.")] = Scores.auto,
    padding: Annotated[
        PaddingName, typer.Option(help="What the classifier sees outside of the picture.")
    ] = PaddingName.zeros,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "composed",
    out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("models"),
    version: Annotated[
        int | None, typer.Option(min=1, max=10**9 - 1, help="Its version.  [default: the next one]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print folder and manifest as JSON.")] = False,
) -> None:
    """Write one model that straightens pictures and lets another classifier read them.

    The classifier's pictures are sampled from the whole picture through the straightener's map, at its own size. The
    result is compared with the two models run apart; if they differ, nothing is written.

    Examples:

      python -m export.compose models/digits/2 resnet.onnx --size 32x32 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
      --classes classes.txt --name straightened

    Exit codes: 0 written, 1 failed, 2 wrong command, 3 the model differs from the two run apart.
    """
    request = Request(
        straightener=straightener,
        other=other,
        size=read_size(size),
        normalisation=Normalisation(read_numbers(mean), read_numbers(std)),
        classes=classes,
        input=input,
        output=output,
        scores=scores,
        padding=padding.value,
    )
    notes = Console(stderr=True)
    with notes.status("starting") as status:
        artifact = compose(request, Destination(out, name, version, force), say=status.update)
    if json:
        typer.echo(dumps({"folder": str(artifact.folder), "manifest": artifact.manifest.model_dump(mode="json")}))
    else:
        show(artifact)


if __name__ == "__main__":
    run_command(command, "python -m export.compose")
