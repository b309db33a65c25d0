"""Join ONNX models to one: straightener, sampling, classifier and softmax."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx
from onnx import helper
from onnx.compose import add_prefix
from onnx.utils import Extractor
from onnx.version_converter import convert_version

from export.adopt.errors import quote
from export.format.errors import ArtifactError
from export.onnx import strip_traces

DEFAULT_DOMAINS = ("", "ai.onnx")


class Part(NamedTuple):
    """A model of the chain."""

    name: str
    """Prefix of its names, unless it is the first part."""
    model: onnx.ModelProto
    reads: Mapping[str, str]
    """For each of its inputs, a full name in an earlier part."""

    def full(self, name: str) -> str:
        """Return the name in the joined model."""
        return f"{self.name}{name}"


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators in ``model``."""
    versions: dict[str, int] = {entry.domain: entry.version for entry in model.opset_import}
    return next(versions[domain] for domain in DEFAULT_DOMAINS if domain in versions)


def at_opset(model: onnx.ModelProto, version: int, what: str) -> onnx.ModelProto:
    """Convert ``model`` to a newer opset.

    Raises:
        ArtifactError: that is not possible.
    """
    if opset(model) == version:
        return model
    try:
        return convert_version(model, version)
    except Exception as error:
        raise ArtifactError(
            f"{what} has opset {opset(model)} and cannot be converted to {version} ({quote(error)}); export it again "
            f"with opset_version={version}"
        ) from error


def outputs_only(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return ``model`` without the nodes that only other outputs need."""
    inputs = [value.name for value in model.graph.input]
    return Extractor(model).extract_model(inputs, list(names))


def join(parts: Sequence[Part], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """Join ``parts``, each of which reads from earlier ones; the first one's inputs are those of the whole.

    ``outputs`` describe the outputs of the whole, by their full names.
    """
    graph = helper.make_graph([], "composed", parts[0].model.graph.input, outputs)
    domains: dict[str, int] = {}
    functions = []
    for part in parts:
        model = add_prefix(part.model, part.name) if part.name else part.model
        for name, source in part.reads.items():
            graph.node.append(helper.make_node("Identity", [source], [part.full(name)], name=f"{part.full(name)}_from"))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{part.name}node_{number}"
        graph.node.extend(model.graph.node)
        graph.initializer.extend(model.graph.initializer)
        graph.sparse_initializer.extend(model.graph.sparse_initializer)
        functions += model.functions
        for entry in model.opset_import:
            domain = "" if entry.domain in DEFAULT_DOMAINS else entry.domain
            domains[domain] = max(domains.get(domain, 0), entry.version)
    joined = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
        functions=functions,
        ir_version=max(part.model.ir_version for part in parts),
    )
    strip_traces(joined)
    return joined
