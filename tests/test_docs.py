"""The documentation is true: its examples run as they stand there, and its links and paths lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from export.format.artifact import read_artifact
from service.errors import RequestError
from service.schemas.answers import Prediction
from service.schemas.options import PredictOptions
from tests.conftest import Service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLIENTS = (ROOT / "docs" / "use" / "clients.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", README + CLIENTS, re.DOTALL)
"""Programs that use the client, each with its output where the page shows it."""
CURL = re.findall(r"^curl .*predict.*", CLIENTS, re.MULTILINE)
PROGRAM = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "use" / "artifacts.md").read_text(), re.DOTALL)[0]
FOREIGN = "\nprint(sorted({'torch', 'onnx', 'export', 'service', 'training', 'PIL', 'pydantic'} & set(sys.modules)))"


@pytest.mark.parametrize("version", ["2", "3"])
def test_the_twenty_lines_run_a_lone_model_file_with_onnx_runtime_and_numpy_alone(version: str, tmp_path: Path) -> None:
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 20
    artifact = read_artifact(ROOT / "models" / "digits" / version)
    (tmp_path / "model.onnx").write_bytes(artifact.model)
    command = [sys.executable, "-c", PROGRAM + FOREIGN, "model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    *answers, gap, foreign = done.stdout.splitlines()
    _, golden = artifact.golden()
    best = golden[artifact.manifest.probabilities].argmax(axis=1)
    assert [line.split()[0] for line in answers] == [artifact.manifest.classes[index] for index in best]
    assert re.fullmatch(r"differs .* by (0\.0e\+00|1\.0e\+00|\d\.\de-\d\d) at most", gap)
    assert foreign == "[]"


OPEN_INFERENCE = re.findall(
    r"```(?:python|sh)\n(.*?)```\n\n```(?:json)?\n(.*?)```",
    (ROOT / "docs" / "use" / "open-inference.md").read_text(),
    re.DOTALL,
)


@pytest.mark.parametrize(("program", "shown"), OPEN_INFERENCE, ids=["tritonclient", "curl"])
def test_the_examples_of_the_open_inference_protocol_print_what_is_shown(
    server: Service, program: str, shown: str
) -> None:
    address = server.url.removeprefix("http://")
    assert "127.0.0.1:8000" in program
    here = program.replace("127.0.0.1:8000", address)
    command = [sys.executable, "-c", here] if "import" in program else ["bash", "-c", here]
    if command[0] == "bash" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert digits_rounded(done.stdout) == digits_rounded(shown)


def digits_rounded(text: str) -> str:
    """Numbers to four places and without blanks, since another processor rounds the last ones otherwise."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.4f}", "".join(text.split()))


def at(folder: Path, program: Sequence[str]) -> str:
    """What ``program`` prints in a folder with the pictures that the examples name."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, cwd=folder, env=environment, check=True
    ).stdout


def test_the_answer_in_the_readme_is_that_of_the_service_rounded_and_shortened(server: Service) -> None:
    (query, text), *_ = re.findall(r"curl -F image=@\S+ '\S*\?(.*?)'\n```\n\n```\n(.*?)```", README, re.DOTALL)
    shown = json.loads(text.replace(", …}", "}"), parse_float=str)
    with (ROOT / "docs/pictures/digit.png").open("rb") as picture:
        answer = server.client.post(f"/predict?{query}", files={"image": picture}).json()
    check_shown(shown, {name: answer[name] for name in shown})
    assert len(shown) < len(answer), "the mark of omission stands for nothing"


def check_shown(shown: Any, found: Any) -> None:
    """Compare a shown value with the real one, up to the places that are shown and marks of omission."""
    if isinstance(shown, dict):
        assert shown.keys() == found.keys()
        for name, value in shown.items():
            check_shown(value, found[name])
    elif isinstance(shown, list):
        for one, other in zip(shown, found, strict=True):
            check_shown(one, other)
    elif isinstance(found, float):
        assert float(shown) == pytest.approx(found, abs=10.0 ** -len(shown.partition(".")[2]))
    elif isinstance(found, str) and shown.endswith("…"):
        assert found.startswith(shown.removesuffix("…"))
    else:
        assert shown == found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURL)
def test_the_requests_on_the_page_for_clients_are_answered(command: str, server: Service) -> None:
    here = command.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, cwd=ROOT, check=True)
    answer = json.loads(done.stdout)
    first = answer["results"][0] if "results" in answer else answer
    assert first["predictions"][0]["label"] == "7"


def test_the_page_for_clients_lists_every_error_and_option() -> None:
    codes = {kind.code for kind in RequestError.__subclasses__()}
    documented = set(re.findall(r"`(\w+)`", CLIENTS))
    assert codes - {"load_failed", "conflict", "unsupported_encoding"} <= documented
    assert {*PredictOptions.model_fields, *Prediction.model_fields} <= documented


@pytest.mark.parametrize("program", [program for program, _ in EXAMPLES], ids=range(len(EXAMPLES)))
def test_the_programs_for_the_client_run_and_print_what_is_shown(program: str, server: Service, tmp_path: Path) -> None:
    shown = dict(EXAMPLES)[program]
    assert "http://127.0.0.1:8000" in program
    printed = at(tmp_path, ["-c", program.replace("http://127.0.0.1:8000", server.url)])
    assert printed
    assert not shown or printed == shown


def test_there_are_programs_for_both_clients() -> None:
    assert {" Client(" in program or "AsyncClient(" in program for program, _ in EXAMPLES} == {True}
    assert {"AsyncClient(" in program for program, _ in EXAMPLES} == {True, False}


def test_the_command_line_in_the_readme_says_what_it_shows(server: Service, tmp_path: Path) -> None:
    arguments = re.findall(r"    python (-m service client .*)", README)[0].split()
    (shown,) = re.findall(r"```\n(docs/pictures/digit.png: .*?)```", README, re.DOTALL)
    picture = tmp_path / "digit.png"
    picture.write_bytes((ROOT / "docs" / "pictures" / "digit.png").read_bytes())
    words = [str(picture) if word.endswith(".png") else word for word in arguments]
    printed = at(tmp_path, [*words, "--url", server.url]).replace(f"{tmp_path}", "docs/pictures")
    time = re.compile(r"[\d.]+ ms")
    assert time.sub("ms", printed) == time.sub("ms", shown)


def test_the_readme_fits_on_one_screen_before_its_first_line() -> None:
    """The picture is as high as about 13 lines of text."""
    first = README.partition("\n---\n")[0]
    assert len(first.splitlines()) + 13 <= 48
    for part in ("<img ", "make serve", "make test", "curl ", '"predictions"'):
        assert part in first


PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "models" / "README.md"})
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.*)", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for found in LINK.findall(FENCED.sub("", page.read_text())):
        target, _, anchor = "".join(found).partition("#")
        if target.startswith(("http:", "https:")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file), f"{target or page.name} has no heading #{anchor}"


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} <= listed


FOLDERS = ("docs", "imaging", "training", "export", "service", "tests", "benchmarks", "deploy")
NAMED = re.compile(rf"(?<!\./)\b(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:md|py|yml|js|json)\b")
TEXTS = [
    file
    for folder in FOLDERS
    for kind in ("md", "py", "yml", "yaml", "js")
    for file in ROOT.glob(f"{folder}/**/*.{kind}")
]
TEXTS += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docker-compose.yml")]


def test_every_file_that_a_text_names_exists() -> None:
    missing = {
        f"{file.relative_to(ROOT)} names {path}"
        for file in TEXTS
        for path in NAMED.findall(file.read_text())
        if not (ROOT / path).exists()
    }
    assert not missing


MODULE = re.compile(r"`(?:[\w/]+/)?(\w+\.(?:py|js))`")
MODULES = {file.name for folder in FOLDERS for kind in ("py", "js") for file in (ROOT / folder).rglob(f"*.{kind}")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text() if page.name != "CHANGELOG.md" else ""
    assert set(MODULE.findall(text)) <= MODULES


def test_the_table_of_refusals_names_every_module_that_makes_one() -> None:
    text = (ROOT / "docs" / "extend" / "architecture.md").read_text()
    table = text.partition("### Who refuses with 429\n")[2].partition("\n### ")[0]
    makes = re.compile(r"\b(?:raise|return) (?:QueueFull|RateLimited)Error\(|limiter\.full\(|maximum_concurrent_rpcs")
    made = [file for file in (ROOT / "service").rglob("*.py") if makes.search(file.read_text())]
    assert len(made) > 3
    assert [file.name for file in made if f"`{file.relative_to(ROOT / 'service')}`" not in table] == []


IMPORT = re.compile(r"^ *from ((?:training|export|service)[\w.]*) import (.+)$", re.MULTILINE)
IMPORTS = sorted({found for page in PAGES for found in IMPORT.findall(page.read_text())})


@pytest.mark.parametrize(("module", "names"), IMPORTS)
def test_what_a_program_on_a_page_imports_exists(module: str, names: str) -> None:
    found = import_module(module)
    assert all(hasattr(found, name) for name in names.split(", "))


EMBEDDING = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "use" / "embedding.md").read_text(), re.DOTALL)


def test_the_engine_answers_in_the_ten_lines_that_are_shown() -> None:
    program = EMBEDDING[0]
    statements = [line for line in program.splitlines() if line.strip() and "import" not in line]
    assert len(statements) <= 10
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.fullmatch(r"\d 0\.\d\d\n|\d 1\.00\n", done.stdout.splitlines(keepends=True)[-1])


@pytest.mark.parametrize("lifespan", [EMBEDDING[1:2], EMBEDDING[1:3]], ids=["its own", "within another"])
def test_the_application_works_inside_another_as_is_shown(lifespan: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for program in lifespan:
        exec(program, names)
    with TestClient(names["app"]) as client:
        picture = (ROOT / "docs" / "pictures" / "digit.png").read_bytes()
        assert client.post("/ml/predict", content=picture).json()["model"]["name"] == "digits"


def test_the_route_that_is_shown_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for program in (EMBEDDING[1], EMBEDDING[3]):
        exec(program, names)
    with TestClient(names["service"]) as client:
        assert client.get("/mine").json() == {"hello": "from a route of your own"}
