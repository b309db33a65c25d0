"""Where nodes run: sessions are really made, on the CPU, which every machine has; on a GPU where there is one."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from export.check import CPU, Node, Provider, Report, judge, make_report, shape_arithmetic
from export.format.artifact import Artifact, read_artifact
from export.format.errors import CheckError
from export.format.manifest import Parity
from service.inference.backends import cuda_obstacle
from tests.export.commands import Export, one_line

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "models" / "digits" / "2"
NO_GAP = Parity(probabilities=0, parameters=0, rectified=0, within_one_level=1)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    """A bundled model."""
    return read_artifact(BUNDLED)


def test_every_node_of_the_bundled_model_is_placed_and_answers_alike(artifact: Artifact) -> None:
    report = make_report(artifact, Provider.cpu)
    nodes = onnx.load_from_string(artifact.model).graph.node
    assert {node.operator for node in report.nodes} >= {"Conv", "GridSample", "Gemm"}
    assert len(report.nodes) >= len([node for node in nodes if node.op_type in ("Conv", "Gemm", "GridSample")])
    assert {node.provider for node in report.nodes} == {CPU}
    assert report.fallbacks == []
    assert report.parity == NO_GAP
    assert all(ratio > 0 for ratio in report.speed.values())
    judge(report, artifact)


def test_a_node_that_fell_back_fails_the_check_and_is_named(artifact: Artifact) -> None:
    fallen = Node("look/grid", "AffineGrid", CPU)
    report = Report("CUDAExecutionProvider", [fallen], [fallen], NO_GAP, {})
    with pytest.raises(CheckError, match=r"AffineGrid \(look/grid\), which fell back to the CPU"):
        judge(report, artifact)


@pytest.mark.parametrize("gap", [{"probabilities": 0.1}, {"parameters": 0.1}, {"rectified": 9}])
def test_answers_beyond_the_tolerance_fail_the_check(gap: dict[str, float], artifact: Artifact) -> None:
    report = Report("CUDAExecutionProvider", [], [], NO_GAP.model_copy(update=gap), {})
    with pytest.raises(CheckError, match=next(iter(gap))):
        judge(report, artifact)


def test_only_what_computes_shapes_alone_may_stay_on_the_cpu() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], "shape"),
        helper.make_node("Gather", ["size", "first"], ["batch"], "gather"),
        helper.make_node("Concat", ["batch", "rest"], ["target"], "concat", axis=0),
        helper.make_node("Expand", ["one", "target"], ["ones"], "expand"),
        helper.make_node("Add", ["x", "ones"], ["y"], "add"),
        helper.make_node("Neg", ["one"], ["minus"], "neg"),
    ]
    constants = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], [0]) for name in ("first", "rest", "one")]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], constants))
    assert shape_arithmetic(model) == {"shape", "gather", "concat"}


def test_the_command_says_where_nodes_run_as_text_and_as_json(export: Export) -> None:
    text = export("check", BUNDLED)
    assert text.returncode == 0, text.stderr
    assert "GridSample 1" in " ".join(text.stdout.split())
    assert "fallbacks to the CPU: none" in text.stdout
    report = json.loads(export("check", BUNDLED / "model.onnx", "--json").stdout)
    assert report["provider"] == CPU
    assert report["fallbacks"] == []
    assert set(report["speed"]) == {"1", "64"}


@pytest.mark.skipif(cuda_obstacle() is None, reason="there is a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_one_clear_line(provider: str, export: Export) -> None:
    done = export("check", BUNDLED, "--provider", provider)
    assert done.stdout == ""
    assert "cannot be used here" in one_line(done)


@pytest.mark.skipif(cuda_obstacle() is not None, reason="there is no GPU")
def test_cuda_runs_every_node_of_the_bundled_model(artifact: Artifact) -> None:
    report = make_report(artifact, Provider.cuda)
    judge(report, artifact)
    assert "CUDAExecutionProvider" in {node.provider for node in report.nodes}
