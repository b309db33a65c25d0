"""Benchmarks print their rows on any terminal."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_row_with_characters_that_the_terminal_lacks_is_printed_with_escapes(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", "import benchmarks; print('\\u00b1 \\u2501')"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split()[1] == rb"\u2501"
