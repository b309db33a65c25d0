"""The command line that all runtimes share: ``python -m export.onnx RUN`` and its siblings."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from export.console import measures, price_table, run_command
from export.exporter import Destination, Runtime, Smaller, export_run
from export.format.artifact import Artifact
from export.format.manifest import Precision
from training.fitting.runs import Run


class PrecisionName(StrEnum):
    """Values of ``--precision``."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Layout(StrEnum):
    """Values of ``--layout``."""

    plain = "plain"
    triton = "triton"


PRECISIONS: dict[PrecisionName, Precision] = {
    PrecisionName.fp32: "float32",
    PrecisionName.fp16: "float16",
    PrecisionName.int8: "int8",
}
EXAMPLES = """Export the weights that RUN has kept as {title} to OUT/NAME/VERSION.

The exported model is first compared with the trained network; if they differ, nothing is written. With --precision, the
model's loss of accuracy is measured on the test set, and a model that loses more than --max-drop is not written.

Examples:

  python -m export.{name} runs/mnist-rts --name digits

  python -m export.{name} runs/mnist-rts --precision fp16 --data-root data --max-drop 0.002

  python -m export.{name} runs/mnist-rts --version 3 --force --json

Exit codes: 0 written, 1 failed, 2 wrong command, 3 the model differs or loses too much.
"""


def main(runtime: Runtime) -> None:
    """Run the command for ``runtime``."""

    def export(
        run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
        out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path(runtime.folder),
        name: Annotated[
            str | None, typer.Option(help="Name of the model.  [default: that of the run, or else of its recipe]")
        ] = None,
        version: Annotated[
            int | None, typer.Option(min=1, max=10**9 - 1, help="Its version.  [default: the next one]")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
        layout: Annotated[
            Layout, typer.Option(help="triton: also config.pbtxt and labels.txt, for a Triton model repository.")
        ] = Layout.plain,
        precision: Annotated[
            PrecisionName, typer.Option(help="Precision of localisation and classifier; fp16 and int8 are smaller.")
        ] = PrecisionName.fp32,
        max_drop: Annotated[
            float, typer.Option(min=0, max=1, help="Largest loss of test accuracy with fp16 or int8; 0.01 is a point.")
        ] = 0.005,
        data_root: Annotated[
            Path | None,
            typer.Option(
                help="Folder of the data sets, to calibrate int8 and measure the accuracy of fp16 and int8.  "
                "[default: that of the run]"
            ),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Print folder and manifest as JSON.")] = False,
    ) -> None:
        notes = Console(stderr=True)
        smaller = None
        if precision is not PrecisionName.fp32:
            smaller = Smaller(
                PRECISIONS[precision],
                Run(run).data_root(data_root),
                max_drop,
                lambda *price: notes.print(price_table(*price)),
            )
        info = Run(run).info()
        named = name if name is not None else info.model or info.recipe.name
        destination = Destination(out, named, version, force, triton=layout is Layout.triton)
        with notes.status("starting") as status:
            artifact = export_run(Run(run), runtime, destination, smaller, say=status.update)
        if json:
            typer.echo(dumps({"folder": str(artifact.folder), "manifest": artifact.manifest.model_dump(mode="json")}))
        else:
            show(artifact)

    export.__doc__ = EXAMPLES.format(title=runtime.title, name=runtime.name)
    run_command(export, f"python -m export.{runtime.name}")


def show(artifact: Artifact) -> None:
    """Print the files and measures of an artifact."""
    manifest = artifact.manifest
    console = Console()
    table = Table("file", "bytes", "sha256", title=str(artifact.folder), title_justify="left")
    for name, file in manifest.files.items():
        table.add_row(name, f"{file.bytes:,}", f"{file.sha256[:12]}…")
    console.print(table)
    console.print(measures(manifest))
