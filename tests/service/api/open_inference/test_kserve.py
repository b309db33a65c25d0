"""KServe's own client. It wants older packages than ours, so it has an environment of its own: ``make test-kserve``."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export.format.artifact import GOLDEN
from tests.conftest import REPOSITORY, Service
from tests.service.api.open_inference.exchange import golden
from tests.service.pictures import ARTIFACT, GOLDEN_ANSWERS, difference

PYTHON = REPOSITORY / ".venv" / "kserve" / "bin" / "python"
PROGRAM = Path(__file__).with_name("kserve_client.py")
WAYS = ["tensor", "binary tensor", "binary outputs", "files"]


@pytest.mark.skipif(not PYTHON.exists(), reason="kserve is not installed; `make test-kserve` installs it and runs this")
def test_kserves_client_is_answered_in_every_way_it_asks(server: Service, tmp_path: Path) -> None:
    out = tmp_path / "told.json"
    command = [PYTHON, PROGRAM, server.url, ARTIFACT.folder / GOLDEN, out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    assert (told["live"], told["ready"], told["model ready"]) == (True, True, [True, False])
    for way in WAYS:
        assert told[way].pop("id") == way
        golden({name: np.array(values, GOLDEN_ANSWERS[name].dtype) for name, values in told[way].items()})
    assert told["one output"].keys() == {"theta", "id"}
    assert difference(np.array(told["one output"]["theta"]), GOLDEN_ANSWERS["theta"]) < 1e-3
    assert told["error"].startswith("no model is called 'nobody'; there are: digits, signs, '404 Not Found'")
