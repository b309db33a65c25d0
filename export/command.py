"""The command line that every runtime shares: ``python -m export.onnx RUN``, ``python -m export.torchscript RUN``."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from export.artifact import Artifact
from export.errors import ArtifactError
from export.exporter import Runtime, export_run
from training.errors import TrainingError
from training.runs import Run


def main(runtime: Runtime) -> None:
    """Run the command for ``runtime``; an error its user can mend becomes one line and exit code 1."""

    def export(
        run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
        out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("models"),
        name: Annotated[str, typer.Option(help="What the model is called.")] = "digits",
        version: Annotated[
            int | None, typer.Option(min=1, max=10**9 - 1, help="Its version.  [default: the next one]")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
    ) -> None:
        show(export_run(Run(run), runtime, out, name, version, force=force))

    export.__doc__ = f"""Export the best checkpoint of RUN as {runtime.title} to OUT/NAME/VERSION.

    The model is loaded again and compared with the trained one first; if they differ, nothing is written.

    Example:

      python -m export.{runtime.name} runs/mnist-rts --name digits
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name=f"python -m export.{runtime.name}")(export)
    try:
        app(prog_name=f"python -m export.{runtime.name}")
    except (ArtifactError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def show(artifact: Artifact) -> None:
    """Print what was written."""
    manifest = artifact.manifest
    table = Table("file", "bytes", title=str(artifact.folder))
    for name, file in manifest.files.items():
        table.add_row(name, f"{file.bytes:,}")
    differences = Table("differs from the trained model by", "at most")
    differences.add_row("probabilities", f"{manifest.parity.probabilities:.1e}")
    differences.add_row("theta and parameters", f"{manifest.parity.parameters:.1e}")
    differences.add_row("rectified image", f"{manifest.parity.rectified} grey levels")
    console = Console()
    console.print(table)
    console.print(differences)
    console.print(f"accuracy {manifest.accuracy.accuracy:.2%} on {manifest.accuracy.dataset}")
