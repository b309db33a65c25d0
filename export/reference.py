"""Add the reference for drift detection to an artifact: ``python -m export.reference ARTIFACT RUN``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from export.console import run_command
from export.exporter import Runtime, as_sent, validation_of, values_in_batches
from export.format.artifact import MANIFEST, Artifact, read_artifact, seal, write_artifact
from export.format.drift import make_reference
from export.format.errors import ArtifactError, ParityError
from export.format.manifest import Manifest, Reference
from export.onnx import OnnxRuntime
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from training.data.batches import training_splits
from training.fitting.runs import Run

RUNTIMES: tuple[Runtime, ...] = (OnnxRuntime(), TorchScriptRuntime(), ProgramRuntime())


def reference(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run that it was exported from.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.  [default: that of the run]")] = None,
) -> None:
    """Run an exported model on the validation pictures of its run, and record the distributions of its outputs.

    Export does this for all runs that this version evaluated; the command is for older artifacts. Only the manifest
    changes, including its copy in the model file. If the model's outputs would change, nothing is written.

    Examples:

      python -m export.reference models/digits/2 runs/digits

    Exit codes: 0 written, 1 failed, 2 wrong command, 3 the model's outputs would change.
    """
    source = Run(run)
    show(add_reference(artifact, source, source.data_root(data_root)))


def add_reference(place: Path, run: Run, data_root: Path) -> Reference:
    """Add the reference from ``run``'s validation pictures to the artifact in the folder ``place``.

    Raises:
        TrainingError: the run or its data set is missing.
        ArtifactError: the folder is not an artifact, or not of this run.
        ParityError: the model's outputs would change.
    """
    if not (place / MANIFEST).is_file():
        raise ArtifactError(f"{place} has no {MANIFEST}; name an artifact's folder")
    artifact = read_artifact(place)
    info, manifest = run.info(), artifact.manifest
    ours = info.recipe.model_dump(mode="json") | {"seed": info.seed}
    if other := [name for name, value in manifest.recipe.items() if ours.get(name) != value]:
        raise ArtifactError(f"{place} was not exported from {run.folder}: {', '.join(other)} differ; name another run")
    runtime = next(runtime for runtime in RUNTIMES if runtime.name == manifest.runtime)
    _, validation = training_splits(info.recipe, run.source(data_root))
    model = runtime.load(artifact.model, manifest.outputs)
    pictures = as_sent(validation)
    found = values_in_batches(lambda batch: model(pictures[batch]), len(pictures), manifest)
    made = make_reference(found, validation_of(run))
    put_in_place(artifact, manifest.model_copy(update={"reference": made}), runtime)
    return made


def put_in_place(artifact: Artifact, manifest: Manifest, runtime: Runtime) -> None:
    """Write ``artifact`` with another ``manifest``, unless the model's outputs would change."""
    finished, files = seal(manifest, artifact.model, artifact.golden_pictures)
    images, _ = artifact.golden()
    before = runtime.load(artifact.model, manifest.outputs)(images)
    after = runtime.load(files[manifest.model_file], manifest.outputs)(images)
    if not all(np.array_equal(before[name], after[name]) for name in manifest.outputs):
        raise ParityError("the model's outputs change with the new manifest; nothing was written")
    write_artifact(artifact.folder, finished, files)


def show(made: Reference) -> None:
    """Print the new reference."""
    table = Table("of", "quantity", "bins", "mean", title=f"{made.pictures:,} pictures: {made.dataset}")
    for d in made.distributions:
        table.add_row(d.transform or "the model", d.quantity, str(len(d.shares)), f"{d.mean:.4f}")
    Console().print(table)


if __name__ == "__main__":
    run_command(reference, "python -m export.reference")
