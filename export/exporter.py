"""The way from a run to an artifact, whatever the runtime: build, serialise, load again, compare, put in place."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch

from export.artifact import GOLDEN, Artifact, claim_version, seal, write_artifact
from export.golden import pack_golden
from export.graph import INPUT, PROBABILITIES, ServedNetwork, signature
from export.manifest import Accuracy, Manifest, RuntimeName, Tolerance
from export.parity import Model, compare, exact, trained
from training.runs import Run

GOLDEN_PICTURES = 4
TOLERANCE = Tolerance(probabilities=1e-3, parameters=1e-3, rectified=2)
"""How far the golden answers may be from those recorded, on any device."""

Say = Callable[[str], None]
"""Told what is being done, for work that takes long."""


class Runtime(Protocol):
    """A model format: how to write it and how to run what was written."""

    name: RuntimeName
    title: str
    """The format's name as people write it."""
    versions: Mapping[str, str]
    """Of the libraries that write and run it."""
    opset: int | None
    """Of ONNX."""

    def serialise(self, network: ServedNetwork, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """The content of the model file; ``example`` is ``(N, H, W, C)`` uint8 and the batch stays free."""

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """A function that runs the content of a model file."""


def export_run(
    run: Run, runtime: Runtime, models: Path, name: str, version: int | None, *, force: bool, say: Say = lambda _: None
) -> Artifact:
    """Write ``models/name/version`` (the next version when none is given).

    Raises:
        RunError: the run is not trained or not evaluated.
        ArtifactError: the version exists and ``force`` is not set, or the folder cannot be written.
        ParityError: the exported model differs from the trained one; nothing is written.
    """
    folder = claim_version(models, name, version, force=force)
    say("reading the run")
    info, evaluation, samples = run.info(), run.evaluation(), run.samples()
    network = ServedNetwork(run.trained_network()).eval()
    interface = signature(info)
    outputs = tuple(interface.outputs)
    reference = trained(network, outputs)
    say(f"writing {runtime.title}")
    content = runtime.serialise(network, torch.from_numpy(samples[:2]), outputs)
    say("comparing it with the trained network")
    parity = compare(reference, runtime.load(content, outputs), interface, samples, exact(network, outputs))
    golden = samples[:GOLDEN_PICTURES]
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        runtime=runtime.name,
        opset=runtime.opset,
        precision="float32",
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
        tolerance=TOLERANCE,
        versions=info.versions | dict(runtime.versions),
        files={},
    )
    finished, files = seal(manifest, content, pack_golden(INPUT, golden, reference(golden)))
    write_artifact(folder, finished, files)
    return Artifact(folder, finished, folder / finished.model_file, files[finished.model_file], files[GOLDEN])
