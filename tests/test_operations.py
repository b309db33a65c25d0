"""The commands of docs/operate/operations.md that change what is served, run as they stand there, one after another."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Service, start_service
from tests.service.answers import PICTURE

PAGE = (REPOSITORY / "docs" / "operate" / "operations.md").read_text()
KEY = "stn_operator"
SWAP = re.findall(r"^    (.*)", PAGE.partition("## Swap a model")[2].partition("\n## ")[0], re.MULTILINE)
"""The commands of that section: put in place, load, index, take away, load, ask."""

Run = Callable[[str], str]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with one version of the digits, and beside it another that is to be the new one."""
    shutil.copytree(REPOSITORY / "models" / "digits" / "2", tmp_path / "models" / "digits" / "2")
    shutil.copytree(REPOSITORY / "models" / "digits" / "3", tmp_path / "new")
    return tmp_path / "models"


@pytest.fixture
def service(models: Path) -> Iterator[Service]:
    with start_service("--models", models, "--admin-keys", f"operator:{sha256(KEY.encode()).hexdigest()}") as started:
        yield started


@pytest.fixture
def run(service: Service, models: Path) -> Run:
    """Runs a command of the page in a shell that has its variables."""

    def one(command: str) -> str:
        shell = ["bash", "-euo", "pipefail", "-c", command]
        environment = os.environ | {"URL": service.url, "MODELS": str(models), "ADMIN_KEY": KEY}
        done = subprocess.run(shell, cwd=models.parent, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout

    return one


def answering(service: Service) -> int:
    """The version that answers who names none."""
    version: int = service.client.post("/predict", content=PICTURE).json()["model"]["version"]
    return version


def test_a_version_is_swapped_and_rolled_back(service: Service, run: Run) -> None:
    put, load, index, take_away, load_again, _ = SWAP
    assert answering(service) == 2
    run(put)
    assert answering(service) == 2
    run(load)
    assert answering(service) == 4
    assert run(index).count('"READY"') == 2
    run(take_away)
    assert answering(service) == 4
    run(load_again)
    assert answering(service) == 2


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_the_index_says_why(
    service: Service, run: Run, models: Path
) -> None:
    put, load, index, *_ = SWAP
    model = models.parent / "new" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    run(put)
    with pytest.raises(AssertionError, match="400"):
        run(load)
    assert answering(service) == 2
    assert re.search(r'"version":"4","state":"UNAVAILABLE","reason":"[^"]+', run(index))
