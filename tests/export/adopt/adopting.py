"""Adopt the networks of these tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from export.adopt.adoption import Request, adopt
from export.adopt.network import Normalisation
from export.adopt.scores import Scores
from export.exporter import Destination
from export.format.artifact import Artifact
from export.format.golden import Outputs
from export.onnx import OnnxRuntime
from tests.export.adopt import networks


class Example(NamedTuple):
    """A network of `networks`, and what its user knows about it."""

    size: tuple[int, int]
    channels: int
    classes: int
    """0 if it is not a classifier."""


EXAMPLES = {
    "Tutorial": Example((28, 28), 1, 10),
    "leaky_tutorial": Example((28, 28), 1, 10),
    "Cluttered": Example((60, 60), 1, 10),
    "Signs": Example((32, 32), 3, 43),
    "Cifar": Example((32, 32), 3, 10),
    "Plates": Example((24, 94), 3, 0),
}


TINY = {"Cifar": {"scores": Scores.logits}}
"""Untrained scores are too small to be told from those of a sigmoid."""
Adopted = Callable[[str], Artifact]
"""The name of an example -> its artifact."""


def stirred(network: nn.Module, reach: float = 0.3) -> nn.Module:
    """Let every localisation network answer with another theta for each picture, and scores differ."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.out_features == 6:
            nn.init.uniform_(module.weight, -reach, reach)
            module.bias.data += torch.empty(6).uniform_(-reach, reach) / 2
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def write_weights(folder: Path, network: nn.Module) -> Path:
    """The file of its weights."""
    file = folder / "net.pt"
    torch.save(network.state_dict(), file)
    return file


def write_classes(folder: Path, count: int) -> Path:
    """The file of as many classes."""
    file = folder / "classes.txt"
    file.write_text("".join(f"class {number}\n" for number in range(count)))
    return file


def request(folder: Path, name: str, **changes: Any) -> Request:
    """The request to adopt an example, whose weights and classes are written to ``folder``."""
    example = EXAMPLES[name]
    weights = write_weights(folder, stirred(getattr(networks, name)()))
    return Request(
        factory=f"tests.export.adopt.networks:{name}",
        weights=weights,
        size=example.size,
        channels=example.channels,
        normalisation=Normalisation((0.3,) * example.channels, (0.4,) * example.channels),
        task="classification" if example.classes else "features",
        classes=write_classes(folder, example.classes) if example.classes else None,
    )._replace(**changes)


def adopt_in(folder: Path, wanted: Request) -> Artifact:
    """Adopt into ``folder``."""
    return adopt(wanted, Destination(folder / "models", "mine"))


def adopt_class(folder: Path, network: type[nn.Module] | Callable[[], nn.Module], **changes: Any) -> Artifact:
    """Adopt a class or function of a test module, for 28x28 pictures of one channel and ten classes."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = Request(
        factory=f"{network.__module__}:{network.__name__}",
        weights=write_weights(folder, network()),
        size=(28, 28),
        channels=1,
        normalisation=Normalisation((0.0,), (1.0,)),
        task="classification",
        classes=write_classes(folder, 10),
    )
    return adopt_in(folder, wanted._replace(**changes))


def answers(artifact: Artifact, images: NDArray[np.uint8]) -> Outputs:
    """What the model file answers."""
    return OnnxRuntime().load(artifact.model, artifact.manifest.outputs)(images)


def sampled(
    images: NDArray[np.uint8], theta: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The pictures under theta as the convention defines it ``(N, h, w, C)``, and which pixels lie within them."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    grid = functional.affine_grid(torch.from_numpy(theta), [len(images), pixels.shape[1], *size], align_corners=False)
    found = functional.grid_sample(pixels, grid, align_corners=False).round().clamp(0, 255).byte()
    within = (grid.abs() < 1 - 2 / min(pixels.shape[2:])).all(dim=3, keepdim=True).expand(-1, -1, -1, pixels.shape[1])
    return np.asarray(found.permute(0, 2, 3, 1).numpy()), np.asarray(within.numpy())
