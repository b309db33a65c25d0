"""Isolation of training: ignore the environment of cluster launchers, and restore all global state afterwards."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

CLUSTER = re.compile(
    r"(SLURM|SRUN|TORCHELASTIC|OMPI|PMI|PMIX|MPI|MV2|PBS|LSB|JSM|KUBERNETES|PL)_.*"
    r"|(LOCAL_|GROUP_|NODE_|ROLE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)"
)
"""Environment variables by which clusters and launchers configure the processes of a job, and Lightning's defaults."""


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch and hide the cluster's variables; at the end, restore random states, environment and settings."""
    environment, rank = dict(os.environ), rank_zero_only.rank  # type: ignore[attr-defined]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    for name in filter(CLUSTER.fullmatch, environment):
        del os.environ[name]
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):  # type: ignore[no-untyped-call]
            torch.manual_seed(seed)
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
