"""Untrained networks as artifacts: how fast a model is does not depend on what it has learnt.

    python -m benchmarks.inference.artifacts FOLDER

- light/1: a small localisation network and the classifier of PyTorch's STN tutorial, on 42x42 grey pictures. Its
  inference is so short that a server's own work decides.
- signs/1: a convolutional transformer and classifier on 48x48 RGB pictures, for 43 traffic signs.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from export.exporter import Destination, export_run
from export.onnx import OnnxRuntime
from training.evaluation.results import Evaluation
from training.fitting.runs import Run
from training.networks.network import SpatialTransformerClassifier
from training.recipes.digits import MNIST_RTS
from training.recipes.photographs import GTSRB_SMALL
from training.recipes.recipe import change_recipe

LIGHT: dict[str, object] = {
    "canvas": (42, 42),
    "rectified": (20, 20),
    "localisation": "fcn",
    "classifier": "tutorial",
}
SIGNS: dict[str, object] = {
    "canvas": (48, 48),
    "rectified": (48, 48),
    "localisation": "fcn",
    "classifier": "tutorial",
    "classifier_stages": 2,
}
REACH = 0.25
"""Size of the offsets that the untrained transformers answer with."""


class Untrained(Run):
    """A run as it would be after no training at all."""

    def evaluation(self) -> Evaluation:
        facts = {"dataset": "no", "distortion": "of an untrained network", "pictures": 1, "accuracy": 0.0}
        return Evaluation.model_construct(temperature=1.0, **facts)  # type: ignore[arg-type]

    def trained_network(self) -> SpatialTransformerClassifier:
        torch.manual_seed(self.info().seed)
        network = self.info().network().eval()
        for localisation in network.localisation_networks():
            head = localisation[-1]  # type: ignore[index]
            nn.init.uniform_(head.weight, -REACH, REACH)
            head.weight.data /= head.in_features**0.5
            nn.init.uniform_(head.bias, -REACH, REACH)
        return network

    def samples(self) -> NDArray[np.uint8]:
        info = self.info()
        shape = (8, *info.recipe.canvas, len(info.recipe.mean))
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def main(models: Path) -> None:
    """Write both to ``models``, unless they are there."""
    recipes = {"light": change_recipe(MNIST_RTS, LIGHT), "signs": change_recipe(GTSRB_SMALL, SIGNS)}
    for name, recipe in recipes.items():
        if not (models / name / "1").exists():
            classes = tuple(str(number) for number in range(10 if name == "light" else 43))
            with tempfile.TemporaryDirectory() as folder:
                run = Untrained.create(Path(folder) / name, recipe, 0, classes, Path(folder))
                export_run(run, OnnxRuntime(), Destination(models, name, 1))


def write_photograph(file: Path) -> Path:
    """A JPEG of about the size of a photograph for the web: smooth areas, edges and noise, always the same."""
    generator = np.random.default_rng(0)
    smooth = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8)).resize(
        (480, 360), Image.Resampling.BICUBIC
    )
    noise = generator.normal(0, 14, (360, 480, 3))
    picture = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(file, quality=80)
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]))
