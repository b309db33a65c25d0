"""The page's modules are what their JSDoc types say."""

import os
import shutil
import subprocess

import pytest

from service.api.ui import FOLDER


def test_the_modules_are_what_their_types_say() -> None:
    tsc = os.environ.get("TSC") or shutil.which("tsc")
    if tsc is None:
        message = "no tsc: install TypeScript (Debian: apt-get install node-typescript), or name it with TSC=/path"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run([tsc, "-p", FOLDER / "jsconfig.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
