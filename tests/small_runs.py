"""A small real data set, and a run trained on it.

The process that hands out the tests loads this module too, so what imports torch is imported where it is used.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.recipes.digits import MNIST_RTS, MNIST_SEQUENCE
from training.recipes.recipe import Recipe, change_recipe

if TYPE_CHECKING:
    from training.fitting.runs import Run

SMALL_MNIST = Path(__file__).parent / "data" / "mnist-small.npz"


def write_idx(file: Path, array: NDArray[Any]) -> None:
    """The format of MNIST's files: magic number, sizes, bytes."""
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that torchvision's MNIST class reads: the first 800 training and 200 test digits."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with np.load(SMALL_MNIST) as digits:
        for split, prefix in (("train", "train"), ("test", "t10k")):
            write_idx(raw / f"{prefix}-images-idx3-ubyte", digits[f"{split}_images"])
            write_idx(raw / f"{prefix}-labels-idx1-ubyte", digits[f"{split}_labels"])
    return root


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """A recipe that takes a second."""
    changes: dict[str, object] = {"epochs": 2, "validation_size": 160, "batch_size": 64, "classifier_width": 4}
    return change_recipe(MNIST_RTS, changes)


def begin(folder: Path, recipe: Recipe, seed: int = 0, data_root: Path | None = None) -> "Run":
    """A new run of ``recipe``."""
    from training.fitting.runs import DATA_ROOT, begin_run

    return begin_run(folder, recipe, seed, data_root or DATA_ROOT)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, small_recipe: Recipe, data_root: Path) -> "Run":
    """A run of the small recipe, trained and evaluated."""
    from training.fitting.trainer import fit
    from training.reports.evaluation import evaluate

    run = begin(tmp_path_factory.mktemp("runs") / "small", small_recipe, data_root=data_root)
    fit(run, data_root, progress=False)
    evaluate(run, data_root)
    return run


@pytest.fixture(scope="session")
def sequence_run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> "Run":
    """A run on pictures of two digits in a row, trained and evaluated."""
    from training.fitting.trainer import fit
    from training.reports.evaluation import evaluate

    changes: dict[str, object] = {
        "sequence": 2,
        "canvas": (40, 64),
        "localisation_size": (20, 32),
        "rectified": (14, 16),
        "classifier_width": 4,
        "epochs": 2,
        "validation_size": 160,
        "batch_size": 64,
    }
    run = begin(
        tmp_path_factory.mktemp("runs") / "sequence", change_recipe(MNIST_SEQUENCE, changes), data_root=data_root
    )
    fit(run, data_root, progress=False)
    evaluate(run, data_root)
    return run
