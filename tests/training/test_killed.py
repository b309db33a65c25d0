"""A training that is killed, as a machine that loses its power would, and then resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.__main__ import main
from training.fitting.runs import Run

KILLS = 2
CHANGES = ("validation_size=160", "batch_size=32", "epochs=3", "classifier=tutorial")
"""The tutorial's classifier drops units, so the state of the random numbers has to come back too."""


def command(data_root: Path, out: Path) -> list[str]:
    changes = [argument for change in CHANGES for argument in ("--set", change)]
    return ["run", "mnist-rts", "--data-root", str(data_root), "--out", str(out), *changes]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_a_run_killed_again_and_again_ends_with_the_weights_of_an_unbroken_one(data_root: Path, tmp_path: Path) -> None:
    unbroken, killed = Run(tmp_path / "unbroken"), Run(tmp_path / "killed")
    assert main(command(data_root, unbroken.folder)) == 0
    arguments = command(data_root, killed.folder)
    for kill in range(KILLS):
        process = subprocess.Popen([sys.executable, "-m", "training", *arguments], start_new_session=True)
        deadline = time.monotonic() + 120
        seen = killed.metrics_file.read_text() if killed.metrics_file.exists() else ""
        while not (killed.metrics_file.exists() and killed.metrics_file.read_text() != seen):
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.04 * kill)  # from the writing of the checkpoint into the next epoch
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        arguments = ["run", "--resume", str(killed.folder)]
    assert main(arguments) == 0
    ends = [run.trained_network().state_dict() for run in (unbroken, killed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert killed.metrics_file.read_text() == unbroken.metrics_file.read_text()
    assert killed.evaluation() == unbroken.evaluation()
