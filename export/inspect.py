"""Describe an artifact: ``python -m export.inspect FILE|FOLDER``. It is verified, but not run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.console import measures, price_table, run_command
from export.format.artifact import Artifact, read_artifact
from export.format.manifest import Manifest

SHOWN = 100
"""Number of classes whose names are printed."""
RUNS = {
    "onnx": "serve it (python -m service --models {file}), or open it with ONNX Runtime",
    "torchscript": "serve it (python -m service --torchscript true --models {file}), or torch.jit.load",
    "program": "torch.export.load({file!r}).module() in PyTorch",
}


def inspect(
    artifact: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A model file, or an artifact's folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Describe an artifact: inputs and outputs, accuracy, and origin.

    Checksums, format and golden pictures are verified first. A model file is enough, because it contains the manifest.

    Examples:

      python -m export.inspect models/digits/2

      python -m export.inspect model.onnx --json

    Exit codes: 0 success, 1 not an artifact or damaged, 2 wrong command.
    """
    found = read_artifact(artifact)
    images, _ = found.golden()
    if json:
        typer.echo(found.manifest.model_dump_json(indent=2))
        return
    explain(found, len(images))


def explain(artifact: Artifact, golden: int) -> None:
    """Print the description."""
    manifest, console = artifact.manifest, Console()
    name = str(manifest.recipe.get("name", "an unnamed recipe"))
    console.print(f"[bold]{escape(str(artifact.model_file))}[/bold]")
    made = "adopted from" if manifest.recipe.get("adopted") else "trained as"
    console.print(f"{made} {escape(name)}, exported {manifest.created:%Y-%m-%d}")
    more = f" and {len(manifest.classes) - SHOWN:,} more (--json has all)" if len(manifest.classes) > SHOWN else ""
    console.print(f"classes: {escape(', '.join(manifest.classes[:SHOWN])) or 'none'}{more}")
    console.print(tensors(manifest))
    console.print(f"{manifest.convention}. Pictures are resized to the input's size ({manifest.input.resize}).")
    console.print(measures(manifest))
    if manifest.price is not None and manifest.accuracy is not None:
        model = manifest.files[manifest.model_file]
        console.print(price_table(manifest.price, manifest.accuracy.accuracy, model.bytes))
    console.print(f"made with {', '.join(f'{library} {number}' for library, number in manifest.versions.items())}")
    console.print(
        f"{golden} golden pictures; to use it: {RUNS[manifest.runtime].format(file=str(artifact.model_file))}"
    )


def tensors(manifest: Manifest) -> Table:
    """Return inputs and outputs with their meaning as a table."""
    meaning = dict.fromkeys((feature.name for feature in manifest.features), "raw output")
    meaning[manifest.probabilities] = "class probabilities; each row sums to 1"
    if manifest.sequence is not None:
        meaning[manifest.probabilities] = f"class probabilities of {manifest.sequence} objects, from left to right"
    for t in manifest.transforms:
        alone = len(manifest.transforms) == 1
        where = f"{t.kind} transformer on the {t.reads}" + ("" if alone else f", {t.name}")
        meaning[t.parameters] = f"parameters of the {where}"
        meaning[t.theta] = f"affine map of the {where}"
        meaning[t.rectified] = f"rectified image of the {where}"
    table = Table("", "name", "type", "shape", "meaning")
    image = manifest.image()
    table.add_row("in", escape(image.name), image.type, shape(image.shape), "pictures, 0 to 255")
    for tensor in manifest.answers().values():
        table.add_row("out", escape(tensor.name), tensor.type, shape(tensor.shape), escape(meaning[tensor.name]))
    return table


def shape(sides: tuple[int, ...]) -> str:
    """Return a shape as text, with the batch axis."""
    return f"(N, {', '.join(map(str, sides))})"


if __name__ == "__main__":
    run_command(inspect, "python -m export.inspect")
