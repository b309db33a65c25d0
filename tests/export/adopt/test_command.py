"""``python -m export.adopt`` as its users run it, in the folder of their module."""

import json
import os
import subprocess
import sys
from pathlib import Path

from export.format.artifact import read_artifact
from tests.export.adopt.adopting import write_classes, write_weights
from tests.export.adopt.networks import Tutorial
from tests.export.commands import ROOT, Export, one_line

MODULE = """
from tests.export.adopt.networks import Tutorial

print("loading the data set")


class Net(Tutorial):
    def forward(self, x):
        print(x.shape)
        return super().forward(x)
"""


def adopt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export.adopt", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=folder, env=environment
    )


def test_a_module_in_this_folder_is_adopted_and_json_is_all_that_is_printed(export: Export, tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text(MODULE)
    write_weights(tmp_path, Tutorial())
    write_classes(tmp_path, 10)
    usual = ["my_module:Net", "--weights", "net.pt", "--size", "28x28", "--channels", "1", "--mean", "0.1307"]
    usual += ["--std", "0.3081", "--classes", "classes.txt", "--name", "mine", "--json"]
    done = adopt(tmp_path, *usual)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == "models/mine/1"
    assert read_artifact(tmp_path / "models" / "mine" / "1").manifest.classes[9] == "class 9"
    refused = export("adopt", *usual, "--version", "1", folder=tmp_path)
    assert refused.stdout == ""
    assert "--force" in one_line(refused)
    wrong = export("adopt", *usual, "--size", "28", folder=tmp_path)
    assert wrong.returncode == 2
    assert "HEIGHTxWIDTH" in wrong.stderr
