"""What bfloat16 brings to a training step, as a ratio within one run.

    python -m benchmarks.training.precision [--recipe mnist-r-affine] [--rounds 5] [--threads 1]

Rounds of both precisions are interleaved and medians are taken; only the ratio means anything on another machine.
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional

from training.fitting.trainer import Training
from training.networks.network import SpatialTransformerClassifier
from training.recipes.catalogue import find_recipe
from training.recipes.recipe import change_recipe

STEPS = 4
PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist-r-affine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trainings = {precision: training(options.recipe, precision) for precision in PRECISIONS}
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(options.rounds + 1):
        for precision, module in trainings.items():
            seconds[precision].append(steps(module))
    medians = {precision: statistics.median(measured[1:]) for precision, measured in seconds.items()}  # 1st: warm-up
    for precision, median in medians.items():
        print(f"{precision}: {1000 * median / STEPS:.0f} ms a step of {2 * trainings[precision].recipe.batch_size}")
    print(f"bf16 is {medians['float32'] / medians['bf16']:.2f} times as fast")


def training(name: str, precision: str) -> Training:
    """A network in training, as the recipe says but for its precision."""
    recipe = change_recipe(find_recipe(name), {"precision": precision})
    classes = 10
    made = Training(SpatialTransformerClassifier(recipe, classes, len(recipe.mean)), recipe, seed=0, classes=classes)
    made.setup("fit")
    return made


def steps(module: Training) -> float:
    """Seconds that `STEPS` forward and backward passes take, on twice the batch as with `upright`."""
    images = torch.rand(2 * module.recipe.batch_size, len(module.recipe.mean), *module.recipe.canvas) * 255
    labels = torch.arange(len(images)) % 10
    started = time.perf_counter()
    for _ in range(STEPS):
        module.zero_grad()
        functional.cross_entropy(module(images).logits, labels).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
