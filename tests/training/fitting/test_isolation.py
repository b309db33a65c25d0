import os
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from tests.small_runs import begin
from training.fitting.isolation import isolated
from training.fitting.runs import Run
from training.fitting.trainer import fit

CLUSTERS = {
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_JOB_NAME": "train",
    "TORCHELASTIC_RUN_ID": "1",
    "RANK": "3",
    "LOCAL_RANK": "3",
    "WORLD_SIZE": "8",
    "NODE_RANK": "1",
    "MASTER_ADDR": "nowhere",
    "MASTER_PORT": "1",
    "OMPI_COMM_WORLD_RANK": "3",
    "PMI_RANK": "3",
    "PBS_JOBID": "1",
    "LSB_JOBID": "1",
    "JSM_NAMESPACE_RANK": "3",
    "PL_TRAINER_MAX_STEPS": "1",
    "KUBERNETES_PORT": "1",
}


def test_variables_of_a_cluster_are_hidden_inside_and_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CLUSTERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    before = dict(os.environ)
    with isolated(0):
        assert not CLUSTERS.keys() & os.environ.keys()
        assert rank_zero_only.rank == 0  # type: ignore[attr-defined]
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    assert dict(os.environ) == before
    assert rank_zero_only.rank == 3  # type: ignore[attr-defined]


def test_a_run_in_a_cluster_is_the_run_of_one_process(
    trained_run: Run, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CLUSTERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    run = begin(tmp_path / "run", trained_run.info().recipe, data_root=data_root)
    fit(run, data_root, progress=False)
    assert run.metrics_file.read_text() == trained_run.metrics_file.read_text()
    assert any((run.folder / "tensorboard").iterdir())


def test_torch_is_left_as_it_was() -> None:
    state = torch.get_rng_state()
    with isolated(5):
        torch.use_deterministic_algorithms(True, warn_only=True)
        drawn = torch.rand(3)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))
