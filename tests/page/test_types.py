"""The page's modules are what their JSDoc types say."""

import os
import re
import shutil
import subprocess

import pytest

from service.api.ui import FOLDER

FOLDERS = {
    "lib": {"lib"},
    "stage": {"stage", "lib"},
    "inputs": {"inputs", "lib"},
    "views": {"views", "lib"},
    "export": {"export", "inputs", "stage", "lib"},
}
"""The folders from which the modules of each may import."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_they_may_and_stay_small(folder: str) -> None:
    modules = sorted((FOLDER / folder).glob("*.js"))
    assert 1 < len(modules) <= 12
    found = {
        (module.parent / path).resolve().relative_to(FOLDER).parent.as_posix()
        for module in modules
        for path in re.findall(r'^import .* from "(.*)";', module.read_text(), re.MULTILINE)
    }
    assert found <= FOLDERS[folder]


def test_the_modules_are_what_their_types_say() -> None:
    tsc = os.environ.get("TSC") or shutil.which("tsc")
    if tsc is None:
        message = "no tsc: install TypeScript (Debian: apt-get install node-typescript), or name it with TSC=/path"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run([tsc, "-p", FOLDER / "jsconfig.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
