"""The way from a run to an artifact, whatever the runtime: build, serialise, load again, compare, put in place."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from export.artifact import (
    GOLDEN,
    MODEL_FILES,
    Accuracy,
    Artifact,
    Manifest,
    Outputs,
    RuntimeName,
    claim_version,
    pack_golden,
    record,
    write_artifact,
)
from export.graph import INPUT, PROBABILITIES, ServedNetwork, signature
from export.parity import Model, compare
from training.runs import Run

GOLDEN_PICTURES = 4


class Runtime(Protocol):
    """A model format: how to write it and how to run what was written."""

    name: RuntimeName
    title: str
    """The format's name as people write it."""
    versions: Mapping[str, str]
    """Of the libraries that write and run it."""

    def serialise(self, network: ServedNetwork, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """The content of the model file; ``example`` is ``(N, H, W, C)`` uint8 and the batch stays free."""

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """A function that runs the content of a model file."""


def export_run(run: Run, runtime: Runtime, models: Path, name: str, version: int | None, *, force: bool) -> Artifact:
    """Write ``models/name/version`` (the next version when none is given).

    Raises:
        RunError: the run is not trained or not evaluated.
        ArtifactError: the version exists and ``force`` is not set, or the folder cannot be written.
        ParityError: the exported model differs from the trained one; nothing is written.
    """
    folder = claim_version(models, name, version, force=force)
    info, evaluation, samples = run.info(), run.evaluation(), run.samples()
    network = ServedNetwork(run.trained_network()).eval()
    interface = signature(info)
    outputs = tuple(interface.outputs)

    def reference(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            answers = network(torch.from_numpy(images))
        return {output: answer.numpy() for output, answer in zip(outputs, answers, strict=True)}

    content = runtime.serialise(network, torch.from_numpy(samples[:2]), outputs)
    parity = compare(reference, runtime.load(content, outputs), interface, samples)
    golden = samples[:GOLDEN_PICTURES]
    files = {MODEL_FILES[runtime.name]: content, GOLDEN: pack_golden(INPUT, golden, reference(golden))}
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        runtime=runtime.name,
        classes=info.classes,
        input=interface.input,
        outputs=outputs,
        probabilities=PROBABILITIES,
        transforms=interface.transforms,
        recipe=info.recipe.model_dump(mode="json") | {"seed": info.seed},
        accuracy=Accuracy(
            dataset=f"{evaluation.dataset} test, {evaluation.distortion}",
            pictures=evaluation.pictures,
            accuracy=evaluation.accuracy,
        ),
        parity=parity,
        versions=info.versions | dict(runtime.versions),
        files={file: record(body) for file, body in files.items()},
    )
    write_artifact(folder, manifest, files)
    return Artifact(folder, manifest)
