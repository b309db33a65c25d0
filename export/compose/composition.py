"""Compose a straightener and a classifier, compare the result with the two run apart, and write the artifact."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.special import softmax

from export.adopt.adoption import check_normalisation, load
from export.adopt.network import Normalisation
from export.adopt.pictures import read_classes
from export.adopt.scores import Scores, check_classes, needs_softmax
from export.adopt.tracing import quietly
from export.compose.merging import Part, at_opset, join, opset, outputs_only
from export.compose.other import AGAIN, Other, read_other
from export.compose.sampling import Padding, Resampling, View, straightening
from export.exporter import GOLDEN_PICTURES, Destination, finish
from export.format.artifact import GOLDEN, Artifact, claim_version, read_artifact, write_artifact
from export.format.errors import ArtifactError
from export.format.golden import Outputs
from export.format.manifest import Manifest, Transform
from export.graph import PROBABILITIES, Signature
from export.onnx import OPSET, OnnxRuntime
from export.parity import Model, compare
from export.precision import TOLERANCES

MAP, SEEN, RECTIFIED = "map", "seen", "rectified"
TRIED = 8
"""Random pictures with which the meaning of the scores is found out."""


class Request(NamedTuple):
    """A straightener, a classifier, and what is known about the classifier."""

    straightener: Path
    other: Path
    size: tuple[int, int]
    normalisation: Normalisation
    classes: Path
    input: str | None = None
    output: str | None = None
    scores: Scores = Scores.auto
    padding: Padding = "zeros"


class Chain(NamedTuple):
    """Straightener, sampling and classifier."""

    straightener: Artifact
    transform: Transform
    resampling: Resampling
    other: Other
    softmax: bool

    @property
    def interface(self) -> Signature:
        """Input and outputs of the composed model."""
        height, width = self.resampling.view.size
        changes = {"branch": 1, "step": 1, "rectified": RECTIFIED, "height": height, "width": width}
        if self.map == self.transform.theta:
            changes |= {"parameters": self.transform.theta, "parameters_shape": (2, 3)}
        transform = self.transform.model_copy(update=changes)
        names = dict.fromkeys((PROBABILITIES, transform.theta, transform.parameters, RECTIFIED))
        return Signature(self.straightener.manifest.input, (transform,), tuple(names))

    @property
    def map(self) -> str:
        """The straightener's output that holds the whole map."""
        curved = self.transform.kind in ("projective", "tps")
        return self.transform.parameters if curved else self.transform.theta


def compose(request: Request, destination: Destination, say: Callable[[str], None] = lambda _: None) -> Artifact:
    """Write the artifact of a straightener in front of a classifier, and return it.

    Raises:
        ArtifactError: one of them cannot be read or used; nothing is written.
        ParityError: the result differs from the two run apart; nothing is written.
    """
    folder = claim_version(destination.models, destination.name, destination.version, force=destination.force)
    classes = read_classes(request.classes)
    say("reading both models")
    chain = read_chain(request, classes)
    say("joining them")
    runtime, interface = OnnxRuntime(), chain.interface
    outputs = tuple(interface.outputs)
    joined = joined_model(chain, len(classes))
    content = joined.SerializeToString()
    model = load(content, outputs, runtime)
    samples, _ = chain.straightener.golden()
    check_batches(model, samples, chain.other)
    say("comparing them with the two run apart")
    reference = apart(chain)
    parity = compare(reference, model, interface, samples)
    straightener = chain.straightener.manifest
    golden = samples[:GOLDEN_PICTURES]
    answers = reference(golden)
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        runtime=runtime.name,
        opset=opset(joined),
        precision=straightener.precision,
        classes=classes,
        input=interface.input,
        outputs=outputs,
        probabilities=PROBABILITIES,
        transforms=interface.transforms,
        recipe=origin(request, chain),
        accuracy=None,
        parity=parity,
        tolerance=TOLERANCES[straightener.precision],
        versions=straightener.versions | dict(runtime.versions),
        files={},
    )
    finished, files = finish(manifest, content, golden, answers, runtime)
    say(f"writing {folder}")
    write_artifact(folder, finished, files)
    return Artifact(folder, finished, folder / finished.model_file, files[finished.model_file], files[GOLDEN])


def read_chain(request: Request, classes: tuple[str, ...]) -> Chain:
    """Read both models, and find out what the classifier's scores mean."""
    straightener = read_artifact(request.straightener)
    if straightener.manifest.runtime != "onnx":
        raise ArtifactError(
            f"{request.straightener} is {straightener.manifest.runtime}; only ONNX models can be composed: export it "
            "with export.onnx"
        )
    transform = straightening(straightener.manifest)
    other = read_other(request.other, request.input, request.output, request.size)
    check_normalisation(request.normalisation, other.channels)
    view = View(request.size, other.channels, other.last, request.normalisation, request.padding)
    canvas = straightener.manifest.input
    resampling = Resampling(transform, (canvas.height, canvas.width), view).eval()
    noise = np.random.default_rng(0).standard_normal((TRIED, other.channels, *request.size), np.float32)
    scores = other.run(noise)
    if scores.dtype != np.float32 or scores.ndim < 1 or len(scores) != TRIED:
        found = f"{scores.dtype} {scores.shape}"
        raise ArtifactError(
            f"{other.output} of {other.file} is {found} for {TRIED} pictures; scores are float32 (N, K)"
        )
    check_classes(scores.shape[1:], classes)
    return Chain(straightener, transform, resampling, other, needs_softmax(scores, request.scores))


def joined_model(chain: Chain, classes: int) -> onnx.ModelProto:
    """Join straightener, sampling, classifier and softmax."""
    version = max(OPSET, opset(chain.other.model))
    manifest = chain.straightener.manifest
    (transform,) = chain.interface.transforms
    told = list(dict.fromkeys((transform.theta, transform.parameters)))
    first = outputs_only(onnx.load_model_from_string(chain.straightener.model), told)
    other = chain.other
    parts = [
        Part("", at_opset(first, version, str(chain.straightener.model_file)), {}),
        Part(
            "sampling_",
            at_opset(sampling_model(chain), version, "the sampling"),
            {manifest.input.name: manifest.input.name, MAP: chain.map},
        ),
        Part("other_", at_opset(other.model, version, str(other.file)), {other.input: f"sampling_{SEEN}"}),
        Part(
            "",
            ending(f"other_{other.output}", softmax=chain.softmax, version=version),
            {RECTIFIED: f"sampling_{RECTIFIED}"},
        ),
    ]
    described = {value.name: value for value in first.graph.output}
    height, width = transform.height, transform.width
    described[PROBABILITIES] = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["batch", classes])
    described[RECTIFIED] = helper.make_tensor_value_info(
        RECTIFIED, TensorProto.UINT8, ["batch", height, width, manifest.input.channels]
    )
    return join(parts, [described[name] for name in chain.interface.outputs])


def ending(scores: str, version: int, *, softmax: bool) -> onnx.ModelProto:
    """Return the model that converts ``scores`` to probabilities."""
    node = (
        helper.make_node("Softmax", [scores], [PROBABILITIES], axis=1)
        if softmax
        else helper.make_node("Identity", [scores], [PROBABILITIES])
    )
    graph = helper.make_graph([node], "ending", [], [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def sampling_model(chain: Chain) -> onnx.ModelProto:
    """Return the sampling as ONNX."""
    manifest = chain.straightener.manifest
    image = manifest.image()
    shape = manifest.answers()[chain.map].shape
    batch = torch.export.Dim("batch")
    with quietly():
        program = torch.onnx.export(
            chain.resampling,
            (torch.zeros(2, *image.shape, dtype=torch.uint8), torch.zeros(2, *shape)),
            input_names=[image.name, MAP],
            output_names=[SEEN, RECTIFIED],
            opset_version=OPSET,
            dynamic_shapes=({0: batch}, {0: batch}),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ArtifactError("torch.onnx cannot export the sampling")
    found: onnx.ModelProto = program.model_proto
    return found


def check_batches(model: Model, samples: NDArray[np.uint8], other: Other) -> None:
    """Raise `ArtifactError` unless the model takes several pictures at a time."""
    try:
        found = model(samples[np.arange(3) % len(samples)])
    except Exception as error:
        raise ArtifactError(f"{other.file} takes only one picture at a time; {AGAIN}") from error
    if len(found[PROBABILITIES]) != 3:
        raise ArtifactError(f"{other.file} mixes the pictures of a batch; {AGAIN}")


def apart(chain: Chain) -> Model:
    """Return the two models, run one after the other, as a model."""
    straightener = chain.straightener
    (transform,) = chain.interface.transforms
    run = OnnxRuntime().load(straightener.model, straightener.manifest.outputs)
    resampling = deepcopy(chain.resampling).double()

    def model(images: NDArray[np.uint8]) -> Outputs:
        told = run(images)
        seen, rectified = resampling.apart(images, told[chain.map])
        scores = chain.other.run(seen)
        probabilities = softmax(scores, axis=1).astype(np.float32) if chain.softmax else scores
        found = {PROBABILITIES: probabilities, RECTIFIED: rectified}
        return {name: found[name] if name in found else told[name] for name in chain.interface.outputs} | {
            transform.theta: told[transform.theta]
        }

    return model


def origin(request: Request, chain: Chain) -> dict[str, object]:
    """Describe the two models, in the place of a recipe."""
    straightener = chain.straightener.manifest
    return {
        "name": f"{straightener.recipe.get('name', 'a straightener')} before {request.other.name}",
        "composed": True,
        "straightener": straightener.recipe,
        "other": {"file": request.other.name, "sha256": sha256(chain.other.content).hexdigest()},
        "mean": list(request.normalisation.mean),
        "std": list(request.normalisation.std),
        "padding": request.padding,
    }
