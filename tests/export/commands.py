"""The commands of `export` within the process of the tests, since starting Python and importing torch takes seconds."""

import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command leaves behind."""

    returncode: int
    stdout: str
    stderr: str


Export = Callable[..., Done]
"""The name of a command and its arguments -> what it leaves behind."""


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Export:
    """Run ``python -m export.COMMAND ARGUMENTS`` in the repository, or in ``folder``."""

    def run(command: str, *arguments: object, folder: Path = ROOT) -> Done:
        capfd.readouterr()
        code: object = 0
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*sys.modules", category=RuntimeWarning)  # the tests import them
            patch.chdir(folder)
            patch.setattr(sys, "argv", [command, *map(str, arguments)])
            patch.setattr(sys, "path", [*sys.path])
            try:
                runpy.run_module(f"export.{command}", run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
        assert isinstance(code, int)
        return Done(code, *capfd.readouterr())

    return run


def one_line(done: Done, code: int = 1) -> str:
    """What a command says that failed."""
    assert done.returncode == code, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr
