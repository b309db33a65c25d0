"""The rules of the house: who may import whom, how long a module may get, and how many stand in a folder."""

import ast
import os
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("imaging", "training", "export", "service")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
ROOT_MODULES = {
    "service": {"__init__", "__main__", "app", "cli", "configuration", "response_cache", "state"},
    "training": {"__init__", "__main__", "api"},
}
"""Modules of a package's own folder that are nodes of the matrix by themselves. The others are its node `common`."""
SERVICE_CORE = {"service.common", "service", "export.format.artifact"}
TRAINING_CORE = {"training.common"}
MATRIX: dict[str, set[str]] = {
    "imaging": set(),
    # training: from the description of a run to the reports about it
    "training.common": set(),
    "training.recipes": TRAINING_CORE,
    "training.networks": TRAINING_CORE | {"training.recipes"},
    "training.data": TRAINING_CORE | {"training.recipes", "training.networks", "imaging"},
    "training.evaluation": TRAINING_CORE | {"training.recipes", "training.networks", "training.data", "imaging"},
    "training.fitting": TRAINING_CORE
    | {"training.recipes", "training.networks", "training.data", "training.evaluation"},
    "training.search": TRAINING_CORE | {"training.recipes", "training.fitting"},
    "training.reports": TRAINING_CORE
    | {"training.recipes", "training.networks", "training.data", "training.evaluation", "training.fitting"},
    "training.api": TRAINING_CORE | {"training.recipes", "training.evaluation", "training.fitting", "training.reports"},
    "training": {"training.api", "training.networks", "training.recipes", "training.fitting"},
    "training.__main__": TRAINING_CORE
    | {
        "training.recipes",
        "training.data",
        "training.evaluation",
        "training.fitting",
        "training.search",
        "training.reports",
    },
    # export: the contract, and the programs that make artifacts from runs
    "export.format": set(),
    "export": {
        "export.format",
        "training.common",
        "training.recipes",
        "training.networks",
        "training.data",
        "training.evaluation",
        "training.fitting",
    },
    # service: from the schemas to the command line
    "service": set(),
    "service.schemas": set(),
    "service.common": {"service", "service.schemas", "export.format.artifact"},
    "service.metrics": SERVICE_CORE,
    "service.inference": SERVICE_CORE | {"service.metrics", "imaging"},
    "service.repository": SERVICE_CORE | {"export.format.remote", "service.inference", "service.metrics"},
    "service.rollout": SERVICE_CORE | {"service.inference", "service.metrics", "service.repository", "imaging"},
    "service.middleware": SERVICE_CORE | {"service.metrics"},
    "service.response_cache": SERVICE_CORE | {"service.metrics"},
    "service.state": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.repository",
        "service.rollout",
        "service.response_cache",
        "service.middleware",
    },
    "service.api": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.response_cache",
        "service.middleware",
        "service.state",
        "service.schemas",
        "imaging",
    },
    "service.api.open_inference": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.repository",
        "service.rollout",
        "service.middleware",
        "service.state",
        "service.api",
        "service.schemas",
    },
    "service.app": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.response_cache",
        "service.middleware",
        "service.state",
        "service.api",
        "service.api.open_inference",
    },
    "service.grpc": SERVICE_CORE
    | {"service.inference", "service.middleware", "service.state", "service.api.open_inference"},
    "service.server": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.middleware",
        "service.state",
        "service.api",
        "service.app",
        "service.grpc",
        "service.schemas",
    },
    "service.workers": SERVICE_CORE
    | {
        "service.metrics",
        "service.inference",
        "service.repository",
        "service.middleware",
        "service.state",
        "service.app",
        "service.server",
    },
    "service.cli": SERVICE_CORE
    | {
        "service.inference",
        "service.repository",
        "service.middleware",
        "service.app",
        "service.server",
        "service.workers",
    },
    "service.score": SERVICE_CORE
    | {"service.inference", "service.repository", "service.schemas", "export.format.remote", "imaging"},
    "service.client": {"service", "service.schemas"},
    "service.configuration": SERVICE_CORE,
    "service.__main__": {"service.cli", "service.client", "service.middleware", "service.score"},
}
"""For each sub-package, the others that it may import. Nothing may be imported in a circle."""
LEAVES = {"service.errors", "service.settings", "service.api.open_inference.schemas"}
FORMAT = sorted((ROOT / "export" / "format").glob("*.py"))
HEAVY = {"torch", "torchvision", "lightning", "matplotlib", "onnx", "onnxruntime"}


def imports(file: Path) -> set[str]:
    """Full names of the modules that ``file`` imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            base = node.module or ""
            names.update(f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names)
    return names


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return top(name) in PACKAGES and (path.is_dir() or path.with_suffix(".py").exists())


def top(name: str) -> str:
    return name.partition(".")[0]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def node_of(module: str) -> str:
    """The node of the matrix that a module belongs to."""
    module = module.removesuffix(".__init__")
    folder, _, name = module.rpartition(".")
    if module in MATRIX:
        return module
    if folder in ROOT_MODULES:
        return module if name in ROOT_MODULES[folder] else f"{folder}.common"
    while folder and folder not in MATRIX:
        folder = folder.rpartition(".")[0]
    return folder


def ours(file: Path) -> set[str]:
    return {name for name in imports(file) if top(name) in {*PACKAGES, "benchmarks", "tests"}}


@pytest.mark.parametrize("file", MODULES, ids=module_name)
def test_modules_import_only_what_the_matrix_allows(file: Path) -> None:
    node = node_of(module_name(file))
    allowed = MATRIX[node] | {node}
    assert {name for name in ours(file) if node_of(name) not in allowed and name not in allowed} == set()


def test_the_documentation_shows_the_same_matrix() -> None:
    text = (ROOT / "docs" / "extend" / "architecture.md").read_text()
    _, _, *rows = text[text.index("| in `service/` |") :].partition("\n\n")[0].splitlines()
    nodes = [node for node in reversed(MATRIX) if node.startswith("service.") and node not in SERVICE_CORE]
    places = [*nodes, *sorted({place for node in nodes for place in MATRIX[node]} - {*nodes, *SERVICE_CORE})]
    shown = {node: f"`{node.removeprefix('service.').replace('.', '/')}`" for node in places}
    allowed = {node: ", ".join(shown[place] for place in places if place in MATRIX[node]) for node in nodes}
    assert rows == [f"| {shown[node]} | {allowed[node] or 'nothing'} |" for node in nodes]


def test_the_matrix_has_no_circle() -> None:
    graph = {node: {node_of(name) for name in allowed} - {node} for node, allowed in MATRIX.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("service.cli") > order.index("service.inference")


def test_folders_have_at_most_a_dozen_modules() -> None:
    modules = [file for file in MODULES + BENCHMARKS if not file.stem.startswith("__")]
    counts = Counter(str(file.parent.relative_to(ROOT)) for file in modules)
    assert {folder: count for folder, count in counts.items() if count > 12} == {}


@pytest.mark.parametrize("file", FORMAT, ids=lambda file: file.stem)
def test_the_contract_imports_nothing_heavy_and_nothing_of_ours_but_itself(file: Path) -> None:
    found = imports(file)
    assert {top(name) for name in found} & HEAVY == set()
    assert {name for name in found if top(name) in PACKAGES and not name.startswith("export.format.")} == set()


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_of_the_service_import_only_errors(leaf: str) -> None:
    found = imports(ROOT / Path(*leaf.split(".")).with_suffix(".py"))
    assert {name for name in found if top(name) in PACKAGES} <= {"service.errors"}


@pytest.mark.parametrize("file", MODULES + BENCHMARKS, ids=module_name)
def test_modules_stay_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the threads of a process as Linux shows them")
@pytest.mark.parametrize("module", ["service.inference.backends", "export.onnx"])
def test_onnx_runtime_starts_no_thread_that_would_report_what_we_do(module: str) -> None:
    def threads(imported: str, **environment: str) -> int:
        code = f"import {imported}, os; print(len(os.listdir('/proc/self/task')))"
        plain = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=plain | {"OPENBLAS_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(run.stdout)

    assert threads(module) == threads(module, ORT_DISABLE_TELEMETRY="1")
