"""Fitting leaves the process as it was, and heeds nothing that a cluster says of processes of its own."""

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
"""Variables by which clusters and launchers tell a process which of several it is, and Lightning its defaults."""


@contextmanager
def fenced(seed: int) -> Iterator[None]:
    """Seed torch, and hide what a cluster says in the environment; at the end, restore both and torch's settings."""
    environment, rank = dict(os.environ), rank_zero_only.rank  # type: ignore[attr-defined]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    for name in filter(CLUSTER.fullmatch, environment):
        del os.environ[name]
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
