"""The folder that workers share goes with its supervisor, at the latest when another one starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import StartError
from service.workers.shared_folder import PREFIX, SharedFolder

DIE = """
import os, sys
from pathlib import Path
from service.workers.shared_folder import SharedFolder
folder = SharedFolder(Path(sys.argv[1]))
(folder.path / "0.json").write_text("counts")
os.kill(os.getpid(), 9)
"""


def test_it_is_there_until_it_is_removed(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_one_whose_supervisor_was_killed_is_removed_at_the_next_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    folder = SharedFolder(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.remove()


def test_one_in_use_and_what_is_not_ours_are_left_alone(tmp_path: Path) -> None:
    used = SharedFolder(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("a file")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    folder = SharedFolder(tmp_path)
    folder.remove()
    names = {used.path.name, "other", f"{PREFIX}file", f"{PREFIX}link"}
    assert {entry.name for entry in tmp_path.iterdir()} == names
    used.remove()


def test_its_lock_is_no_file_descriptor_of_other_programs(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as heir:
        folder.remove()
        again = SharedFolder(tmp_path)
        os.close(again._lock)  # as if its supervisor had died
        last = SharedFolder(tmp_path)
        assert not again.path.exists()
        last.remove()
        heir.kill()


def test_where_none_can_be_made_the_service_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="free space"):
        SharedFolder(tmp_path / "gone")
