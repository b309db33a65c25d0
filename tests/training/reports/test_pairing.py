import shutil
from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.errors import RunError
from training.fitting.runs import Run
from training.reports.pairing import comparison_facts


@pytest.fixture
def worse(trained_run: Run, tmp_path: Path) -> Run:
    """A copy of the trained run that answers 20 of its right answers wrong."""
    run = Run(Path(shutil.copytree(trained_run.folder, tmp_path / "worse")))
    with np.load(run.answers_file) as arrays:
        logits, labels = arrays["logits"].copy(), arrays["labels"]
    right = np.flatnonzero(logits.argmax(axis=1) == labels)[:20]
    logits[right, (labels[right] + 1) % 10] = 1e3
    np.savez(run.answers_file, logits=logits, labels=labels)
    return run


def test_two_runs_are_compared_picture_by_picture(
    trained_run: Run, worse: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = comparison_facts(trained_run, worse)
    assert found["difference"].startswith("+10.00 points (95% interval +")
    assert found["accuracy of the first run"].endswith(" of 200 pictures")
    assert found["right in the first run alone"] == "20 pictures"
    assert found["right in the second run alone"] == "0 pictures"
    assert found["McNemar's exact test"] == "p < 0.0001"
    assert main(["compare", str(worse.folder), str(trained_run.folder)]) == 0
    assert "-10.00 points" in capsys.readouterr().out


def test_a_run_does_not_differ_from_itself(trained_run: Run) -> None:
    assert comparison_facts(trained_run, trained_run)["McNemar's exact test"] == "p = 1"


def test_runs_on_different_pictures_are_not_compared(trained_run: Run, worse: Run) -> None:
    with np.load(worse.answers_file) as arrays:
        np.savez(worse.answers_file, logits=arrays["logits"], labels=arrays["labels"][::-1])
    with pytest.raises(RunError, match=r"different pictures .*split\.csv"):
        comparison_facts(trained_run, worse)
    text = worse.evaluation_file.read_text()
    worse.evaluation_file.write_text(text.replace('"distortion": "rts"', '"distortion": "r"'))
    with pytest.raises(RunError, match=r"different pictures .distortion: rts and r.; compare runs of one data set"):
        comparison_facts(trained_run, worse)
