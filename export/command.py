"""The command line that every runtime shares: ``python -m export.onnx RUN`` and its siblings.

Exit codes: 0 all is well, 1 it cannot be done, 2 the command is wrong, 3 it was done, measured and found wanting.
"""

import sys
from collections.abc import Callable
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from export.artifact import Artifact
from export.errors import ArtifactError, VerdictError
from export.exporter import Destination, Runtime, Smaller, export_run
from export.manifest import Manifest, Precision, Price
from training.errors import TrainingError
from training.runs import Run

WRONG, WANTING = 1, 3


class PrecisionName(StrEnum):
    """What ``--precision`` takes."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Layout(StrEnum):
    """What ``--layout`` takes."""

    plain = "plain"
    triton = "triton"


PRECISIONS: dict[PrecisionName, Precision] = {
    PrecisionName.fp32: "float32",
    PrecisionName.fp16: "float16",
    PrecisionName.int8: "int8",
}
EXAMPLES = """Export the best checkpoint of RUN as {title} to OUT/NAME/VERSION.

The model is loaded again and compared with the trained one first; if they differ, nothing is written. With --precision,
what the smaller model costs is measured on the test set and shown, and one that loses more than --max-drop is not kept.

Examples:

  python -m export.{name} runs/mnist-rts --name digits

  python -m export.{name} runs/mnist-rts --precision fp16 --data-root data --max-drop 0.002

  python -m export.{name} runs/mnist-rts --version 3 --force --json

Exit codes: 0 written, 1 cannot be done, 2 wrong command, 3 the model differs or loses too much.
"""


def main(runtime: Runtime) -> None:
    """Run the command for ``runtime``."""

    def export(
        run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
        out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path(runtime.folder),
        name: Annotated[str, typer.Option(help="What the model is called.")] = "digits",
        version: Annotated[
            int | None, typer.Option(min=1, max=10**9 - 1, help="Its version.  [default: the next one]")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
        layout: Annotated[
            Layout, typer.Option(help="triton: also config.pbtxt and labels.txt, for a Triton model repository.")
        ] = Layout.plain,
        precision: Annotated[
            PrecisionName, typer.Option(help="Of localisation and classifier; fp16 and int8 make it smaller.")
        ] = PrecisionName.fp32,
        max_drop: Annotated[
            float, typer.Option(min=0, max=1, help="Most test accuracy that fp16 or int8 may lose: 0.01 is a point.")
        ] = 0.005,
        data_root: Annotated[
            Path, typer.Option(help="Folder of the data sets, to calibrate int8 and measure what fp16 and int8 cost.")
        ] = Path("data"),
        json: Annotated[bool, typer.Option("--json", help="Print folder and manifest as JSON.")] = False,
    ) -> None:
        notes = Console(stderr=True)
        smaller = None
        if precision is not PrecisionName.fp32:
            smaller = Smaller(
                PRECISIONS[precision], data_root, max_drop, lambda *price: notes.print(price_table(*price))
            )
        destination = Destination(out, name, version, force, triton=layout is Layout.triton)
        with notes.status("starting") as status:
            artifact = export_run(Run(run), runtime, destination, smaller, say=status.update)
        if json:
            typer.echo(dumps({"folder": str(artifact.folder), "manifest": artifact.manifest.model_dump(mode="json")}))
        else:
            show(artifact)

    export.__doc__ = EXAMPLES.format(title=runtime.title, name=runtime.name)
    run_command(export, f"python -m export.{runtime.name}")


def run_command(command: Callable[..., None], program: str) -> None:
    """Run ``command`` with the arguments of this process; an error its user can mend becomes one line."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name=program)(command)
    try:
        app(prog_name=program)
    except (ArtifactError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(WANTING if isinstance(error, VerdictError) else WRONG)


def show(artifact: Artifact) -> None:
    """Print what was written."""
    manifest = artifact.manifest
    console = Console()
    table = Table("file", "bytes", "sha256", title=str(artifact.folder), title_justify="left")
    for name, file in manifest.files.items():
        table.add_row(name, f"{file.bytes:,}", f"{file.sha256[:12]}…")
    console.print(table)
    console.print(measures(manifest))


def measures(manifest: Manifest) -> Table:
    """What is known of a model, as a table."""
    table = Table("measured", "value")
    opset = f", opset {manifest.opset}" if manifest.opset else ""
    table.add_row("format", f"{manifest.runtime}{opset}, {manifest.precision}")
    table.add_row(
        "accuracy",
        f"{manifest.accuracy.accuracy:.2%} of {manifest.accuracy.pictures:,} pictures: {manifest.accuracy.dataset}",
    )
    parity = manifest.parity
    table.add_row("probabilities differ from the trained model by", f"{parity.probabilities:.1e} at most")
    table.add_row("theta and parameters", f"{parity.parameters:.1e} at most")
    table.add_row(
        "rectified images",
        f"by {parity.rectified} grey levels at most; {parity.within_one_level:.2%} of the pixels within 1",
    )
    if parity.rounding_probabilities is not None:
        table.add_row(
            "the trained model, by float32's rounding alone",
            f"{parity.rounding_probabilities:.1e}, {parity.rounding_parameters:.1e}",
        )
    return table


def price_table(price: Price, accuracy: float, size: int) -> Table:
    """What a smaller precision costs, beside float32."""
    table = Table("price", "float32", "smaller")
    table.add_row("test accuracy", f"{price.accuracy_before:.2%}", f"{accuracy:.2%}")
    table.add_row("bytes", f"{price.bytes_before:,}", f"{size:,} ({size / price.bytes_before:.2f} x)")
    table.add_row(f"speed on the exporting CPU, batches of {price.speed_batch}", "1", f"{price.speed:.2f} x")
    table.add_row("a probability differs by", "", f"{price.probabilities:.4f} at most")
    table.add_row("a corner moves by", "", f"{price.corners_px:.3f} px at most, {price.corners_mean_px:.4f} on average")
    return table
