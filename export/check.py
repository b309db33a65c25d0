"""Check that an artifact runs on an execution provider: ``python -m export.check ARTIFACT --provider cuda``.

A session is created, and ONNX Runtime reports the provider of each node. A node that the provider does not support
falls back to the CPU, with costly transfers, and fails the check. Nodes that only compute shapes do not count, because
ONNX Runtime assigns them to the CPU on purpose.
"""

import statistics
import time
from collections import Counter
from contextlib import redirect_stdout
from enum import StrEnum
from io import StringIO
from json import dumps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.console import run_command
from export.format.artifact import Artifact, read_artifact
from export.format.errors import ArtifactError, CheckError
from export.format.golden import Outputs
from export.format.manifest import Parity
from export.graph import Signature
from export.parity import Model, difference, exceeds

BATCHES = (1, 64)
ROUNDS = 15
SILENT = 4
CPU = "CPUExecutionProvider"
CURES = {
    "cuda": "install the `cuda` extra and an NVIDIA driver for CUDA 13",
    "tensorrt": "install TensorRT 10's libraries beside the `cuda` extra and an NVIDIA driver for CUDA 13",
    "cpu": "install onnxruntime",
}
SHAPE_OPERATORS = {"Shape", "Size"}
TENSOR_MAKERS = {"Expand", "ConstantOfShape"}
"""Operators whose only input is a shape, but whose output is not."""


class Provider(StrEnum):
    """Values of ``--provider``."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"


PROVIDERS: dict[Provider, list[tuple[str, dict[str, Any]]]] = {
    Provider.cpu: [(CPU, {})],
    Provider.cuda: [("CUDAExecutionProvider", {"use_tf32": 0}), (CPU, {})],
    Provider.tensorrt: [("TensorrtExecutionProvider", {}), ("CUDAExecutionProvider", {"use_tf32": 0}), (CPU, {})],
}
"""Execution providers of a session: the requested one, then those for its fallbacks."""


class Node(NamedTuple):
    """A node and the provider that ONNX Runtime assigned it to."""

    name: str
    operator: str
    provider: str


class Report(NamedTuple):
    """The result of the check."""

    provider: str
    nodes: list[Node]
    fallbacks: list[Node]
    """Nodes on the CPU that compute more than shapes."""
    parity: Parity
    """Difference from the CPU's outputs for the golden pictures."""
    speed: dict[int, float]
    """Speed relative to the CPU, by batch size."""


def check(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An ONNX artifact's folder, or its model file.")],
    provider: Annotated[Provider, typer.Option(help="The execution provider.")] = Provider.cpu,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the model on PROVIDER; report the placement of its nodes, differences from the CPU, and speed.

    Examples:

      python -m export.check models/digits/2 --provider cuda

      python -m export.check model.onnx --provider tensorrt --json

    Exit codes: 0 passed, 1 cannot be checked (no such provider), 2 wrong command, 3 a node fell back or outputs differ.
    """
    found = read_artifact(artifact)
    if found.manifest.runtime != "onnx":
        raise ArtifactError(f"{artifact} is {found.manifest.runtime}; only ONNX models run on execution providers")
    with Console(stderr=True).status(f"checking {artifact} on {provider}"):
        report = make_report(found, provider)
    if json:
        typer.echo(dumps(as_json(report)))
    else:
        show(report, found)
    judge(report, found)


def make_report(artifact: Artifact, provider: Provider) -> Report:
    """Run ``artifact`` on ``provider`` and on the CPU, and compare.

    Raises:
        ArtifactError: the provider is not available, or the model cannot be loaded.
    """
    session, baseline = open_session(artifact.model, provider), open_session(artifact.model, Provider.cpu)
    nodes = placement(session)
    names = [provider for provider, _ in PROVIDERS[provider]]
    shapes = shape_arithmetic(onnx.load_from_string(artifact.model))
    fallbacks = [node for node in nodes if node.provider not in names[: max(1, len(names) - 1)]]
    images, _ = artifact.golden()
    manifest = artifact.manifest
    signature = Signature(manifest.input, manifest.transforms, manifest.outputs)
    there, here = as_model(session, artifact), as_model(baseline, artifact)
    speed = {}
    for size in BATCHES:
        speed[size] = ratio(here, there, images[np.arange(size) % len(images)])
    return Report(
        names[0],
        nodes,
        [node for node in fallbacks if node.name not in shapes],
        difference(here(images), there(images), signature),
        speed,
    )


def open_session(model: bytes, provider: Provider) -> onnxruntime.InferenceSession:
    """Create a session on ``provider`` that records the placement of its nodes.

    Raises:
        ArtifactError: the provider is not available, or the model cannot be loaded.
    """
    name = PROVIDERS[provider][0][0]
    refusal = f"{name} cannot be used here ({{}}); {CURES[provider]}, or check --provider cpu"
    if name not in onnxruntime.get_available_providers():
        raise ArtifactError(refusal.format("this ONNX Runtime was built without it"))
    onnxruntime.set_default_logger_severity(SILENT)  # the errors below say the same
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        with redirect_stdout(StringIO()):  # ONNX Runtime prints failures to load and fallbacks
            if provider is not Provider.cpu:
                onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(model, options, providers=PROVIDERS[provider])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != name:
        raise ArtifactError(refusal.format("ONNX Runtime could not start it"))
    return session


def placement(session: onnxruntime.InferenceSession) -> list[Node]:
    """Return each node of the model with its provider."""
    return [
        Node(node.name, node.op_type, part.ep_name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def shape_arithmetic(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that only compute shapes: their inputs come from Shape and constants."""
    known = {tensor.name for tensor in model.graph.initializer}
    shapes: set[str] = set()
    for node in model.graph.node:  # in the order of the data flow
        fed = {name for name in node.input if name} - known
        of_shapes = bool(fed) and fed <= shapes and node.op_type not in TENSOR_MAKERS
        if node.op_type in SHAPE_OPERATORS or of_shapes:
            shapes.update(node.output)
        elif node.op_type == "Constant":
            known.update(node.output)
    return {node.name for node in model.graph.node if node.output[0] in shapes}


def as_model(session: onnxruntime.InferenceSession, artifact: Artifact) -> Model:
    """Return a function that runs ``session``."""
    outputs, image = list(artifact.manifest.outputs), artifact.manifest.input.name

    def run(images: NDArray[np.uint8]) -> Outputs:
        return dict(zip(outputs, session.run(outputs, {image: images}), strict=True))

    return run


def ratio(here: Model, there: Model, images: NDArray[np.uint8]) -> float:
    """Return the speed of ``there`` relative to ``here``: medians of interleaved rounds."""
    seconds: dict[Model, list[float]] = {here: [], there: []}
    for _ in range(ROUNDS + 2):  # the first two warm up
        for model, taken in seconds.items():
            started = time.perf_counter()
            model(images)
            taken.append(time.perf_counter() - started)
    before, after = (statistics.median(taken[2:]) for taken in seconds.values())
    return before / after


def judge(report: Report, artifact: Artifact) -> None:
    """Raise `CheckError` if a node fell back, or outputs differ by more than the artifact's tolerance."""
    if report.fallbacks:
        named = ", ".join(f"{node.operator} ({node.name})" for node in report.fallbacks)
        raise CheckError(f"{report.provider} does not run {named}, which fell back to the CPU")
    if gap := exceeds(report.parity, artifact.manifest.tolerance):
        raise CheckError(f"{report.provider} differs from the CPU by more than the tolerance: {gap}")


def as_json(report: Report) -> dict[str, object]:
    """Return the report as a JSON document."""
    return {
        "provider": report.provider,
        "nodes": [node._asdict() for node in report.nodes],
        "fallbacks": [node._asdict() for node in report.fallbacks],
        "parity": report.parity.model_dump(exclude_none=True),
        "speed": report.speed,
    }


def show(report: Report, artifact: Artifact) -> None:
    """Print the report."""
    table = Table("provider", "nodes", "operators", title=f"{artifact.model_file} on {report.provider}")
    for provider, count in Counter(node.provider for node in report.nodes).items():
        operators = Counter(node.operator for node in report.nodes if node.provider == provider)
        table.add_row(provider, str(count), ", ".join(f"{op} {n}" for op, n in sorted(operators.items())))
    console = Console()
    console.print(table)
    fallen = ", ".join(f"{node.operator} ({node.name})" for node in report.fallbacks) or "none"
    console.print(f"fallbacks to the CPU: {fallen}")
    parity = report.parity
    console.print(
        f"differs from the CPU by: probabilities {parity.probabilities:.1e}, theta and parameters "
        f"{parity.parameters:.1e}, rectified {parity.rectified} grey levels"
    )
    for size, times in report.speed.items():
        console.print(f"batches of {size}: {times:.2f} times as fast as the CPU")


if __name__ == "__main__":
    run_command(check, "python -m export.check")
