"""``python -m service`` on terminals whose encoding lacks characters."""

import os
import subprocess
import sys

import pytest


def run(*arguments: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-X", "utf8=0", *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("command", [["--help"], ["key", "--help"], ["key", "ada"], ["client", "--help"]], ids=" ".join)
def test_a_command_prints_in_any_encoding(command: list[str], encoding: str) -> None:
    done = run("-m", "service", *command, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


@pytest.mark.parametrize("command", [["key", "\u03c6"], ["client", "\u03c6.png"], ["--models", "\u03c6"]], ids=ascii)
def test_a_wrong_argument_in_other_letters_is_one_line_without_a_traceback(command: list[str]) -> None:
    done = run("-m", "service", *command, encoding="ascii")
    assert done.returncode == 1
    assert b"error: " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_character_that_the_terminal_lacks_becomes_an_escape(encoding: str) -> None:
    code = "from service.__main__ import main; import sys; sys.argv = ['', 'key', 'ada']; main(); print('\\u2501')"
    done = run("-c", code, encoding=encoding)
    assert done.returncode == 0
    assert done.stdout.endswith(rb"\u2501" + os.linesep.encode())
