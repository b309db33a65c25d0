"""Export a run to an artifact for any runtime: build, serialise, reload, compare, write."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from export.format.artifact import GOLDEN, Artifact, claim_version, seal, write_artifact
from export.format.drift import Values, make_reference, values
from export.format.errors import ArtifactError, ParityError, PriceError
from export.format.golden import Outputs, pack_golden
from export.format.manifest import Accuracy, Manifest, Precision, Price, Reference, Reliability, RuntimeName, Worth
from export.format.triton import write_repository
from export.graph import PROBABILITIES, ServedNetwork, Signature, folded, signature
from export.parity import Model, compare, difference, exact, exceeds, measure, trained
from export.precision import TOLERANCES, in_half, measure_price, quantise
from training.data.batches import test_split, training_splits
from training.data.splits import Split
from training.evaluation.reliability import Reliability as MeasuredReliability
from training.evaluation.results import Evaluation
from training.fitting.runs import Run

BATCH = 256
GOLDEN_PICTURES = 4

Say = Callable[[str], None]
"""Receives progress messages."""


class Runtime(Protocol):
    """A model format: how to write and run it."""

    name: RuntimeName
    title: str
    """The format's usual name."""
    versions: Mapping[str, str]
    """Versions of the libraries that write and run it."""
    opset: int | None
    """ONNX opset; None for other formats."""
    folder: str
    """Default folder of its models."""

    def serialise(self, network: nn.Module, example: torch.Tensor, outputs: tuple[str, ...]) -> bytes:
        """Return the content of the model file; ``example`` is ``(N, H, W, C)`` uint8, with any N in the model."""

    def load(self, content: bytes, outputs: tuple[str, ...]) -> Model:
        """Return a function that runs the content of a model file."""


class Destination(NamedTuple):
    """The folder of an artifact: ``models/name/version``; by default the next version."""

    models: Path
    name: str
    version: int | None = None
    force: bool = False
    """Replace the version if it exists."""
    triton: bool = False
    """Write ``models`` as a Triton model repository."""


class Smaller(NamedTuple):
    """A lower precision, and the loss of accuracy that is allowed for it."""

    precision: Precision
    data_root: Path
    """Folder of the data sets: int8 is calibrated on validation pictures, and accuracy measured on test pictures."""
    max_drop: float
    """Largest allowed loss of accuracy."""
    show: Callable[[Price, float, int], None]
    """Receives price, accuracy and size of the smaller model before anything is written."""


def export_run(
    run: Run, runtime: Runtime, destination: Destination, smaller: Smaller | None = None, say: Say = lambda _: None
) -> Artifact:
    """Export the kept checkpoint of ``run``, and return the artifact.

    Raises:
        TrainingError: the run is not trained or not evaluated, or its data set is missing.
        ArtifactError: the version exists and ``force`` is not set, or the folder cannot be written.
        ParityError: the exported model differs from the trained one; nothing is written.
        PriceError: the smaller model loses more accuracy than allowed; nothing is written.
    """
    folder = claim_version(destination.models, destination.name, destination.version, force=destination.force)
    if destination.triton and runtime.name != "onnx":
        raise ArtifactError("a Triton model repository needs ONNX models; leave out --layout or use export.onnx")
    say("reading the run")
    info, evaluation, samples = run.info(), run.evaluation(), run.samples()
    network = ServedNetwork(run.trained_network(), evaluation.temperature).eval()
    interface = signature(info)
    outputs = tuple(interface.outputs)
    reference = trained(network, outputs)
    say(f"writing {runtime.title}")
    content = runtime.serialise(folded(network), torch.from_numpy(samples[:2]), outputs)
    say("comparing it with the trained network")
    model = runtime.load(content, outputs)
    parity = compare(reference, model, interface, samples, exact(network, outputs))
    accuracy = Accuracy(
        dataset=name_pictures(evaluation.dataset, evaluation.distortion),
        pictures=evaluation.pictures,
        accuracy=evaluation.accuracy,
    )
    price, golden_model = None, reference
    if smaller is not None:
        content, price, accuracy = shrink(run, runtime, network, content, smaller, say)
        golden_model = runtime.load(content, outputs)
        parity = measure(reference, golden_model, interface, samples)
    golden = samples[:GOLDEN_PICTURES]
    precision: Precision = "float32" if smaller is None else smaller.precision
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        runtime=runtime.name,
        opset=runtime.opset,
        precision=precision,
        classes=info.classes,
        input=interface.input,
        outputs=outputs,
        sequence=info.recipe.sequence or None,
        probabilities=PROBABILITIES,
        transforms=interface.transforms,
        recipe=info.recipe.model_dump(mode="json") | {"seed": info.seed},
        accuracy=accuracy if len(info.classes) > 1 else None,  # or every answer is right
        worth=worth_of(evaluation),
        reliability=reliability_of(run, evaluation.reliability),
        temperature=evaluation.temperature,
        parity=parity,
        tolerance=TOLERANCES[precision],
        price=price,
        versions=info.versions | dict(runtime.versions),
        files={},
    )
    manifest = manifest.model_copy(update={"reference": reference_of(run, manifest)})
    finished, files = finish(manifest, content, golden, golden_model(golden), runtime)
    say(f"writing {folder}")
    if destination.triton:
        write_repository(folder, finished, force=destination.force)
    write_artifact(folder, finished, files)
    return Artifact(folder, finished, folder / finished.model_file, files[finished.model_file], files[GOLDEN])


def worth_of(evaluation: Evaluation) -> Worth | None:
    """Return what the transformers are worth, as the manifest states it; None if it was not measured."""
    if evaluation.worth is None:
        return None
    names = ("pictures", "accuracy", "mean_theta", "identity", "decoration")
    fields = evaluation.worth.model_dump(include=set(names))
    poses = {} if evaluation.pose is None else evaluation.pose.model_dump(include={"turn_deg", "shift", "size"})
    return Worth.model_validate(fields | poses)


def reliability_of(run: Run, measured: MeasuredReliability | None) -> Reliability | None:
    """Return a run's reliability as the manifest states it; None if it was not measured."""
    if measured is None:
        return None
    fields = measured.model_dump(include=set(Reliability.model_fields))
    return Reliability.model_validate(fields | {"dataset": validation_of(run)})


def finish(
    manifest: Manifest, content: bytes, golden: NDArray[np.uint8], answers: Outputs, runtime: Runtime
) -> tuple[Manifest, dict[str, bytes]]:
    """Seal a model with its golden pictures and the ``answers`` to them, and run it once more.

    Returns:
        The finished manifest and the artifact's files.

    Raises:
        ParityError: the sealed model answers otherwise.
    """
    finished, files = seal(manifest, content, pack_golden(manifest.input.name, golden, answers))
    sealed = runtime.load(files[finished.model_file], finished.outputs)(golden)
    interface = Signature(manifest.input, manifest.transforms, manifest.outputs)
    if gap := exceeds(difference(answers, sealed, interface), finished.tolerance):
        raise ParityError(f"the model file answers otherwise once the manifest is in it ({gap}); nothing was written")
    return finished, files


def reference_of(run: Run, manifest: Manifest) -> Reference | None:
    """Compute the reference from the answers for ``run``'s validation pictures; None if the run has none."""
    said = run.validation()
    if said is None:
        return None
    logits, thetas = said

    def outputs(batch: slice) -> Outputs:
        maps = {t.theta: found for t, found in zip(manifest.transforms, thetas[batch].swapaxes(0, 1), strict=False)}
        return maps | {manifest.probabilities: softmax(logits[batch] / manifest.temperature, axis=-1)}

    return make_reference(values_in_batches(outputs, len(logits), manifest), validation_of(run))


def values_in_batches(outputs: Callable[[slice], Outputs], count: int, manifest: Manifest) -> Values:
    """Return all quantities of ``count`` pictures, whose ``outputs`` are needed for one batch at a time."""
    seen = [values(outputs(slice(at, at + BATCH)), manifest) for at in range(0, count, BATCH)]
    return {name: np.concatenate([each[name] for each in seen]) for name in seen[0]}


def validation_of(run: Run) -> str:
    """Return the name of the validation pictures of ``run``."""
    recipe = run.info().recipe
    return f"{recipe.dataset} validation, {recipe.distortion}"


def shrink(
    run: Run, runtime: Runtime, network: ServedNetwork, content: bytes, smaller: Smaller, say: Say
) -> tuple[bytes, Price, Accuracy]:
    """Return the model in a lower precision, its price and its accuracy; ``content`` is the float32 model.

    Raises:
        ArtifactError: the runtime does not support this precision.
        DataError: the data set is missing.
        PriceError: it loses more accuracy than allowed.
    """
    info, interface = run.info(), signature(run.info())
    outputs = tuple(interface.outputs)
    if smaller.precision == "int8" and runtime.name != "onnx":
        raise ArtifactError("int8 is supported only for ONNX; use --precision fp16 or export.onnx")
    say("reading the test pictures")
    source = run.source(smaller.data_root)
    test = test_split(info.recipe, source)
    pictures = as_sent(test)
    say(f"converting the model to {smaller.precision}")
    if smaller.precision == "int8":
        less = quantise(content, as_sent(training_splits(info.recipe, source)[1]), interface)
    else:
        less = runtime.serialise(in_half(folded(network)), torch.from_numpy(pictures[:2]), outputs)
    say(f"measuring it on {len(pictures):,} test pictures")
    before, after = runtime.load(content, outputs), runtime.load(less, outputs)
    price, found = measure_price(before, after, interface, pictures, test.labels.numpy(), len(content))
    smaller.show(price, found, len(less))
    drop = price.accuracy_before - found
    if drop > smaller.max_drop:
        raise PriceError(
            f"{smaller.precision} loses {drop:.2%} of accuracy, more than the {smaller.max_drop:.2%} of --max-drop; "
            "nothing was written"
        )
    dataset = name_pictures(info.recipe.dataset, info.recipe.distortion)
    return less, price, Accuracy(dataset=dataset, pictures=len(pictures), accuracy=found)


def as_sent(split: Split) -> NDArray[np.uint8]:
    """Return the pictures of a split as a client sends them: ``(N, H, W, C)`` uint8, in the memory of the split."""
    return split.images.permute(0, 2, 3, 1).numpy()


def name_pictures(dataset: str, distortion: str) -> str:
    """Return the name of the test pictures."""
    return f"{dataset} test" if distortion == "none" else f"{dataset} test, {distortion}"
