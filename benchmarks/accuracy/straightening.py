"""What a straightener in front of a plain classifier is worth: ``python -m export.compose``, measured.

    python -m benchmarks.accuracy.straightening --data-root data [--straightener models/digits/2] [--epochs 3]
        [--keep FOLDER]

A plain CNN is trained on MNIST's training digits as they are, 28x28 and upright, and exported to ONNX. It is then asked
about the test digits: as they are; turned, scaled and moved on the straightener's canvas, resized to 28x28; and those
same pictures through the composed model. The straightener and the CNN share no weights and were trained apart.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from export.adopt.network import Normalisation
from export.adopt.tracing import quietly
from export.compose.composition import Request, compose
from export.exporter import Destination, as_sent
from export.format.artifact import Artifact
from export.onnx import OPSET, OnnxRuntime
from training.data.batches import test_split
from training.data.sources import open_source
from training.data.splits import Split
from training.recipes.catalogue import find_recipe

MEAN, STD = 0.1307, 0.3081
SIDE = 28
BATCH = 128
RATE = 0.002


def main() -> None:
    """Train, compose, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--straightener", type=Path, default=Path("models/digits/2"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the CNN and the composed model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = find_recipe("mnist-rts-affine")
    source = open_source(recipe, options.data_root)
    network = train(source.training()[0], options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        artifact = composed(network, options.straightener, options.keep or Path(folder))
        show(network, artifact, source.test(), test_split(recipe, source))


def plain() -> nn.Sequential:
    """Build the CNN: three convolutions, without a transformer."""
    layers: list[nn.Module] = []
    inputs = 1
    for outputs in (16, 32, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 10))


def normalised(images: Tensor) -> Tensor:
    """Convert uint8 pictures ``(N, 1, H, W)`` to the CNN's input."""
    return (images.float() / 255 - MEAN) / STD


def train(split: Split, epochs: int) -> nn.Sequential:
    """Train the CNN on upright digits."""
    torch.manual_seed(0)
    network = plain()
    steps = epochs * (len(split.labels) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(split.labels))[: steps // epochs * BATCH].view(-1, BATCH):
            loss = functional.cross_entropy(network(normalised(split.images[chosen])), split.labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()


def composed(network: nn.Module, straightener: Path, folder: Path) -> Artifact:
    """Export the CNN, and compose it with the straightener, as a user would."""
    folder.mkdir(parents=True, exist_ok=True)
    with quietly():
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, SIDE, SIDE),),
            folder / "plain.onnx",
            input_names=["pixels"],
            output_names=["scores"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    classes = folder / "classes.txt"
    classes.write_text("".join(f"{digit}\n" for digit in range(10)))
    request = Request(
        straightener, folder / "plain.onnx", (SIDE, SIDE), Normalisation((MEAN,), (STD,)), classes, "pixels"
    )
    return compose(request, Destination(folder, "straightened"))


def answers(network: nn.Module, images: Tensor) -> NDArray[np.int64]:
    """Return the classes that the CNN alone names."""
    with torch.inference_mode():
        found = [network(normalised(part)).argmax(dim=1) for part in images.chunk(len(images) // BATCH)]
    return np.asarray(torch.cat(found).numpy())


def show(network: nn.Module, artifact: Artifact, test: Split, moved: Split) -> None:
    """Print the accuracies."""
    labels = test.labels.numpy()
    resized = functional.interpolate(moved.images.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
    model = OnnxRuntime().load(artifact.model, artifact.manifest.outputs)
    parts = np.array_split(as_sent(moved), len(labels) // BATCH)
    through = np.concatenate([model(part)["probabilities"].argmax(axis=1) for part in parts])
    table = Table("test digits", "read by", "accuracy", title=f"{len(labels):,} pictures")
    for pictures, reader, found in (
        ("upright", "the plain CNN", answers(network, test.images)),
        ("turned, scaled and moved", "the plain CNN", answers(network, resized.round())),
        ("turned, scaled and moved", "the straightener and the plain CNN", through),
    ):
        table.add_row(pictures, reader, f"{(found == labels).mean():.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
