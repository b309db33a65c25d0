"""Add what validation pictures say to an artifact, for drift and reliability: ``python -m export.reference``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.console import run_command
from export.exporter import BATCH, Runtime, as_sent, reliability_of, validation_of, values_in_batches
from export.format.artifact import MANIFEST, Artifact, read_artifact, seal, write_artifact
from export.format.drift import make_reference
from export.format.errors import ArtifactError, ParityError
from export.format.manifest import NO_TRANSFORMER, Manifest
from export.onnx import OnnxRuntime
from export.parity import Model
from export.program import ProgramRuntime
from export.torchscript import TorchScriptRuntime
from training.data.batches import distorted
from training.data.random_streams import Stream
from training.evaluation.reliability import Look, measure_reliability
from training.fitting.runs import Run

RUNTIMES: tuple[Runtime, ...] = (OnnxRuntime(), TorchScriptRuntime(), ProgramRuntime())


def reference(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run that it was exported from.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.  [default: that of the run]")] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of the recipe's backgrounds.  [default: that of the run]")
    ] = None,
) -> None:
    """Run an exported model on the validation pictures of its run, and record what its outputs are like.

    That is their distributions, with which drift is detected, and how reliable the corners are.

    Export does this for all runs that this version evaluated; the command is for older artifacts. Only the manifest
    changes, including its copy in the model file. If the model's outputs would change, nothing is written.

    Examples:

      python -m export.reference models/digits/2 runs/digits

    Exit codes: 0 written, 1 failed, 2 wrong command, 3 the model's outputs would change.
    """
    source = Run(run)
    show(add_reference(artifact, source, source.data_root(data_root), backgrounds))


def add_reference(place: Path, run: Run, data_root: Path, backgrounds: Path | None = None) -> Manifest:
    """Add what ``run``'s validation pictures say to the artifact in the folder ``place``; return its new manifest.

    ``backgrounds`` is the folder on whose pictures they are placed, if it is not that of the run.

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
    _, held_out = run.source(data_root).training()
    model = runtime.load(artifact.model, manifest.outputs)
    pictures = as_sent(distorted(info.recipe, held_out, Stream.VALIDATION))
    found = values_in_batches(lambda batch: model(pictures[batch]), len(pictures), manifest)
    recipe = info.recipe if backgrounds is None else info.recipe.model_copy(update={"backgrounds": backgrounds})
    has_transformer = any(t.kind != NO_TRANSFORMER for t in manifest.transforms)
    is_single = has_transformer and manifest.sequence is None
    measured = measure_reliability(look_with(model, manifest), recipe, held_out) if is_single else None
    made = {
        "reference": make_reference(found, validation_of(run)),
        "reliability": reliability_of(run, measured),
    }
    put_in_place(artifact, manifest.model_copy(update=made), runtime)
    return manifest.model_copy(update=made)


def look_with(model: Model, manifest: Manifest) -> Look:
    """Return what ``model`` sees in pictures, for measures that know nothing of models."""

    def look(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        parts = [model(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
        probabilities, thetas = (
            np.concatenate([part[name] for part in parts])
            for name in (manifest.probabilities, manifest.transforms[manifest.main].theta)
        )
        return probabilities.argmax(axis=1), thetas.astype(np.float64)

    return look


def put_in_place(artifact: Artifact, manifest: Manifest, runtime: Runtime) -> None:
    """Write ``artifact`` with another ``manifest``, unless the model's outputs would change."""
    finished, files = seal(manifest, artifact.model, artifact.golden_pictures)
    images, _ = artifact.golden()
    before = runtime.load(artifact.model, manifest.outputs)(images)
    after = runtime.load(files[manifest.model_file], manifest.outputs)(images)
    if not all(np.array_equal(before[name], after[name]) for name in manifest.outputs):
        raise ParityError("the model's outputs change with the new manifest; nothing was written")
    write_artifact(artifact.folder, finished, files)


def show(manifest: Manifest) -> None:
    """Print what is new in ``manifest``."""
    made, trust = manifest.reference, manifest.reliability
    assert made is not None  # noqa: S101 - it was added
    table = Table("of", "quantity", "bins", "mean", title=f"{made.pictures:,} pictures: {made.dataset}")
    for d in made.distributions:
        table.add_row(d.transform or "the model", d.quantity, str(len(d.shares)), f"{d.mean:.4f}")
    Console().print(table)
    if trust is None:  # there is no transformer, or several objects
        return
    Console().print(
        f"reliability: corners within {trust.within:.0%} of the side have the probability "
        f"1 / (1 + exp({-trust.intercept:.3f} {-trust.slope:+.3f} ln(deviation))); {trust.pictures:,} pictures"
    )


if __name__ == "__main__":
    run_command(reference, "python -m export.reference")
