"""The rules of the house: who may import whom, how long a module may get, and how many stand in a folder."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("imaging", "training", "export", "service")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
ALLOWED = {
    "imaging": {"imaging"},
    "training": {"training", "imaging"},
    "export": {"export", "training"},
    "service": {"service", "imaging", "export.format.artifact"},
}
LEAVES = {
    "service.errors",
    "service.settings",
    "service.schemas",
    "service.api.open_inference.schemas",
}
MATRIX = {
    "workers": {"server", "middleware", "repository", "inference", "metrics"},
    "server": {"api", "middleware", "inference", "metrics"},
    "api": {"middleware", "repository", "inference", "metrics"},
    "middleware": {"metrics"},
    "repository": {"inference"},
    "inference": {"metrics", "repository.version_policy"},
    "metrics": set(),
    "client": set(),
}
"""The folders of the service, and for each the folders, or the single modules, that it may import."""
FORMAT = sorted((ROOT / "export" / "format").glob("*.py"))
FOLDERS = sorted({file.parent for file in MODULES})
MOST_MODULES = 12
CROWDED = {"service": 13}
"""Folders that still have more modules, and how many; they may only lose some."""
HEAVY = {"torch", "torchvision", "lightning", "matplotlib", "onnx", "onnxruntime"}


def imports(file: Path) -> set[str]:
    """Full names of all that ``file`` imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return names


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_packages_import_only_what_they_may(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    ours = {name for name in imports(file) if top(name) in PACKAGES}
    assert {name for name in ours if top(name) not in ALLOWED[package] and name not in ALLOWED[package]} == set()


@pytest.mark.parametrize("file", FORMAT, ids=lambda file: file.stem)
def test_the_contract_imports_nothing_heavy_and_nothing_of_ours_but_itself(file: Path) -> None:
    found = imports(file)
    assert {top(name) for name in found} & HEAVY == set()
    assert {name for name in found if top(name) in PACKAGES and not name.startswith("export.format.")} == set()


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_of_the_service_import_only_errors(leaf: str) -> None:
    found = imports(ROOT / Path(*leaf.split(".")).with_suffix(".py"))
    assert {name for name in found if top(name) in PACKAGES} <= {"service.errors"}


def test_the_client_knows_of_the_service_only_what_it_answers() -> None:
    found = {name for file in (ROOT / "service" / "client").glob("*.py") for name in imports(file)}
    ours = {name for name in found if top(name) in PACKAGES and not name.startswith("service.client")}
    assert ours <= {"service", "service.schemas"}


def test_the_matrix_has_every_folder_of_the_service() -> None:
    folders = {file.parent.relative_to(ROOT / "service").parts[0] for file in (ROOT / "service").glob("*/**/*.py")}
    assert folders == MATRIX.keys()


@pytest.mark.parametrize("folder", MATRIX)
def test_folders_of_the_service_import_only_what_the_matrix_allows(folder: str) -> None:
    found = {name for file in (ROOT / "service" / folder).rglob("*.py") for name in imports(file)}
    modules = {name.removeprefix("service.") for name in found if name.startswith("service.")}
    others = {name for name in modules if top(name) in MATRIX.keys() - {folder}}
    assert {name for name in others if top(name) not in MATRIX[folder] and name not in MATRIX[folder]} == set()


def test_the_documentation_shows_the_same_matrix() -> None:
    text = (ROOT / "docs" / "extend" / "architecture.md").read_text()
    table = text[text.index("| | `") :].partition("\n\n")[0]
    header, _, *rows = table.splitlines()
    columns = re.findall(r"`(\w+)`", header)
    shown = {}
    for row in rows:
        folder, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        shown[folder.strip("`")] = {
            column if cell == "yes" else f"{column}.{cell.split('`')[1]}"
            for column, cell in zip(columns, cells, strict=True)
            if cell
        }
    assert shown == MATRIX


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_stay_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_has_at_most_a_dozen_modules(folder: Path) -> None:
    modules = [file for file in folder.glob("*.py") if not file.stem.startswith("__")]
    assert len(modules) <= CROWDED.get(str(folder.relative_to(ROOT)), MOST_MODULES)


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
