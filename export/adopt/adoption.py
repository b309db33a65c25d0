"""Adopt a network: try it out, trace it, serialise it, compare it with itself, and write the artifact."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from export.adopt.checks import Answer, Chosen, try_out
from export.adopt.errors import quote
from export.adopt.network import AdoptedNetwork, Normalisation, as_input, describe, image_input
from export.adopt.pictures import read_classes, sample_pictures
from export.adopt.reference import untouched
from export.adopt.scores import Scores, check_classes, needs_softmax
from export.adopt.source import load_network
from export.adopt.tracing import quietly, trace
from export.exporter import GOLDEN_PICTURES, Destination, finish
from export.format.artifact import GOLDEN, Artifact, claim_version, write_artifact
from export.format.errors import ArtifactError
from export.format.golden import Outputs
from export.format.manifest import Feature, Manifest, Task, Tolerance
from export.graph import PROBABILITIES, Signature
from export.onnx import OPSET, OnnxRuntime
from export.parity import Model, compare, exact
from export.precision import TOLERANCES

TRIED = 5
"""Number of pictures with which a network is tried out."""


class Request(NamedTuple):
    """A network of a user, and what is known about it."""

    factory: str
    """``module:attribute``, or ``path/to/file.py:attribute``."""
    weights: Path
    size: tuple[int, int]
    """Height and width of the pictures."""
    channels: int
    normalisation: Normalisation
    task: Task
    classes: Path | None
    """A file with the names of the classes."""
    output: str | None = None
    """Name of the output with the scores, if there are several."""
    scores: Scores = Scores.auto
    samples: Path | None = None
    """A folder of pictures."""


class Prepared(NamedTuple):
    """A network that can be served."""

    network: AdoptedNetwork
    reference: Model
    interface: Signature
    classes: tuple[str, ...]
    features: tuple[Feature, ...]


def adopt(request: Request, destination: Destination, say: Callable[[str], None] = lambda _: None) -> Artifact:
    """Write the artifact of a user's network, and return it.

    Raises:
        ArtifactError: something cannot be read, traced or proven; nothing is written.
        DataError: a sample is damaged.
        ParityError: the exported model differs from the network; nothing is written.
    """
    try:
        return adopt_network(request, destination, say)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"artifacts cannot describe this network: {where}: {first['msg']}") from error


def adopt_network(request: Request, destination: Destination, say: Callable[[str], None]) -> Artifact:
    """See `adopt`."""
    folder = claim_version(destination.models, destination.name, destination.version, force=destination.force)
    classes = named_classes(request)
    check_normalisation(request.normalisation, request.channels)
    say(f"importing {request.factory}")
    network = load_network(request.factory, request.weights)
    samples = sample_pictures(request.samples, *request.size, request.channels)
    say("trying it out")
    prepared = prepare(network, request, classes, samples)
    runtime, outputs = OnnxRuntime(), tuple(prepared.interface.outputs)
    say("writing ONNX")
    content = serialise(prepared.network, samples, outputs, runtime)
    say("comparing it with the network")
    model = load(content, outputs, runtime)
    exactly = in_float64(prepared.network, outputs, samples)
    parity = compare(prepared.reference, model, prepared.interface, samples, exactly)
    golden = samples[:GOLDEN_PICTURES]
    answers = prepared.reference(golden)
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        runtime=runtime.name,
        opset=OPSET,
        precision="float32",
        task=request.task,
        classes=prepared.classes,
        input=prepared.interface.input,
        outputs=outputs,
        probabilities=PROBABILITIES if prepared.classes else "",
        features=prepared.features,
        transforms=prepared.interface.transforms,
        recipe=origin(request),
        accuracy=None,
        parity=parity,
        tolerance=tolerance(prepared.features, answers),
        versions={"torch": str(torch.__version__)} | dict(runtime.versions),
        files={},
    )
    finished, files = finish(manifest, content, golden, answers, runtime)
    say(f"writing {folder}")
    write_artifact(folder, finished, files)
    return Artifact(folder, finished, folder / finished.model_file, files[finished.model_file], files[GOLDEN])


def named_classes(request: Request) -> tuple[str, ...]:
    """Return the classes of a classifier; none for other networks."""
    if request.task == "features":
        if request.classes is not None:
            raise ArtifactError("--task features has no classes; leave out --classes")
        if request.scores is not Scores.auto:
            raise ArtifactError("--task features has no scores; leave out --scores")
        return ()
    if request.classes is None:
        raise ArtifactError("a classifier needs --classes FILE; any other network needs --task features")
    return read_classes(request.classes)


def check_normalisation(normalisation: Normalisation, channels: int) -> None:
    """Raise `ArtifactError` unless mean and std are one number for each channel."""
    for name, numbers in normalisation._asdict().items():
        if len(numbers) != channels:
            raise ArtifactError(
                f"--{name} has {len(numbers)} numbers for {channels} channels; give one for each, as in 0.5,0.5,0.5"
            )
        if not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
            raise ArtifactError(f"--{name} {','.join(map(str, numbers))} is out of range; std must be above 0")


def prepare(network: nn.Module, request: Request, classes: tuple[str, ...], samples: NDArray[np.uint8]) -> Prepared:
    """Try the network out, and build what is served and what it is compared with."""
    pixels = as_input(samples, request.normalisation)
    tried = pixels[np.arange(max(TRIED, min(len(pixels), 16))) % len(pixels)]
    answers = chosen_answers(try_out(network, tried), request)
    softmax = False
    if request.task == "classification":
        check_classes(answers[0].values.shape[1:], classes)
        softmax = needs_softmax(answers[0].values.numpy(), request.scores)
    chosen = Chosen(network, {answer.name: answer.axis for answer in answers})
    traced = trace(chosen, tried[:3])
    served = AdoptedNetwork(traced, request.normalisation, softmax=softmax).eval()
    shapes = {raw_name(answer.name): tuple(answer.values.shape[1:]) for answer in answers}
    if len(shapes) < len(answers):
        raise ArtifactError("two outputs have the same name once signs are replaced by _; rename one")
    features = () if classes else tuple(Feature(name=name, shape=shape) for name, shape in shapes.items())
    interface = describe(
        image_input(*request.size, request.channels), traced.places, [feature.name for feature in features]
    )
    reference = untouched(chosen, traced.places, request.normalisation, interface.outputs, softmax=softmax)
    return Prepared(served, reference, interface, classes, features)


def chosen_answers(answers: Sequence[Answer], request: Request) -> list[Answer]:
    """Return the output with the scores of a classifier, and all outputs of other networks unless one is named."""
    known = ", ".join(answer.name for answer in answers)
    if request.output is not None:
        found = [answer for answer in answers if answer.name == request.output]
        if not found:
            raise ArtifactError(f"forward returns no {request.output!r}; --output can be one of {known}")
        return found
    if request.task == "classification" and len(answers) > 1:
        raise ArtifactError(f"forward returns several tensors: {known}; name the one with the scores with --output")
    return list(answers)


def raw_name(name: str) -> str:
    """Return the served name of a raw output, which cannot be that of any other output."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain.startswith("output") else f"output_{plain}"


def serialise(network: nn.Module, samples: NDArray[np.uint8], outputs: tuple[str, ...], runtime: OnnxRuntime) -> bytes:
    """Return the content of ``model.onnx``."""
    try:
        with quietly():
            return runtime.serialise(network, torch.from_numpy(samples[np.arange(2) % len(samples)]), outputs)
    except Exception as error:
        cause = error.__cause__ or error
        raise ArtifactError(
            f"torch.onnx cannot export this network: {quote(cause)}; replace that operation by others"
        ) from error


def load(content: bytes, outputs: tuple[str, ...], runtime: OnnxRuntime) -> Model:
    """Load ``content`` to run on the CPU."""
    try:
        return runtime.load(content, outputs)
    except Exception as error:
        raise ArtifactError(
            f"ONNX Runtime cannot run this network: {quote(error)}; float64 and rare operators are the usual reasons"
        ) from error


def in_float64(network: AdoptedNetwork, outputs: tuple[str, ...], samples: NDArray[np.uint8]) -> Model | None:
    """Return the network in float64, to measure rounding; None if it insists on another precision somewhere."""
    try:
        model = exact(network, outputs)
        model(samples[:1])
    except (RuntimeError, TypeError, ValueError):
        return None
    return model


def tolerance(features: Sequence[Feature], answers: Outputs) -> Tolerance:
    """Return the tolerance of the golden pictures; that of raw outputs grows with their size."""
    usual = TOLERANCES["float32"]
    largest = max([1.0, *(float(np.abs(answers[feature.name]).max()) for feature in features)])
    return usual.model_copy(update={"probabilities": usual.probabilities * largest})


def origin(request: Request) -> dict[str, object]:
    """Describe where the network came from, in the place of a recipe."""
    return {
        "name": request.factory,
        "adopted": True,
        "weights": request.weights.name,
        "mean": list(request.normalisation.mean),
        "std": list(request.normalisation.std),
        "golden": "generated" if request.samples is None else "samples",
    }
