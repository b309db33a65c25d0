"""What ``import training`` gives, the example in its docstring, and a newcomer's first contribution."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import training

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_package_runs(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training.__doc__ is not None
    blocks = re.findall(r"(?:^    .*\n|^\n)+", training.__doc__, re.MULTILINE)
    code = textwrap.dedent(max(blocks, key=len))
    assert len(code.strip().splitlines()) <= 10
    (tmp_path / "data").symlink_to(data_root)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {})
    assert re.fullmatch(r"\d+\.\d%", capsys.readouterr().out.splitlines()[-1])


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, training; print([name for name in ('torch', 'lightning', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_that_the_package_promises_is_there() -> None:
    for name in training.__all__:
        assert getattr(training, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = training.nothing


def test_a_new_transformer_works_as_contributing_says() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), made)
    network = made["network"]
    assert isinstance(network, training.SpatialTransformer)
    images = torch.rand(2, 1, 28, 28)
    (warp,) = network(images, lambda view: view)
    torch.testing.assert_close(warp.rectified, images)
    assert isinstance(made["Shift"], type)
