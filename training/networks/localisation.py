"""Localisation networks: from a picture ``(N, C, H, W)`` to the offsets delta ``(N, P)`` of a transformer."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from training.networks.geometry import base_grid

Size = tuple[int, int]
Activation = Callable[[], nn.Module]


def zero_head(inputs: int, parameters: int) -> nn.Linear:
    """Return a regression layer that predicts 0 at first, so that its transformer starts at the identity."""
    head = nn.Linear(inputs, parameters)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class Coordinates(nn.Module):
    """Adds two channels with each pixel's x and y: ``(N, C, H, W)`` -> ``(N, C + 2, H, W)`` (Liu et al. 2018)."""

    places: Tensor

    def __init__(self, size: Size) -> None:
        """``size`` is the (height, width) of the pictures."""
        super().__init__()
        self.register_buffer("places", base_grid(*size).permute(0, 3, 1, 2).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Append the coordinates."""
        return torch.cat([images, self.places + torch.zeros_like(images[:, :1])], dim=1)  # expand() would fix N


def halved(size: Size, times: int) -> int:
    """Return the number of pixels of a picture after halving its sides ``times`` times."""
    return (size[0] >> times) * (size[1] >> times)


def fcn(channels: int, size: Size, parameters: int, activation: Activation) -> nn.Sequential:
    """Build three fully connected layers of 32 units (Jaderberg et al. 2015, appendix A, ST-FCN).

    Batch normalisation is added for the reason given in `cnn`.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = channels * size[0] * size[1]
    for _ in range(3):
        layers += [nn.Linear(inputs, 32, bias=False), nn.BatchNorm1d(32), activation()]
        inputs = 32
    return nn.Sequential(*layers, zero_head(inputs, parameters))


def cnn(channels: int, size: Size, parameters: int, activation: Activation, width: int = 32) -> nn.Sequential:
    """Build the paper's convolutional network on the half-size picture (Jaderberg et al. 2015, appendix A, ST-CNN).

    It has average pooling by 2, two 5x5 convolutions with max pooling, and a fully connected layer before the
    regression. Batch normalisation is added, also before the regression: without it, a few large steps can leave all
    hidden units below zero for every picture, and theta then never changes again.
    """
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(channels, width // 2, 5, padding=2, bias=False),
        nn.BatchNorm2d(width // 2),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(width // 2, width, 5, padding=2, bias=False),
        nn.BatchNorm2d(width),
        activation(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * halved(size, 3), width, bias=False),
        nn.BatchNorm1d(width),
        activation(),
        zero_head(width, parameters),
    )


def tutorial(channels: int, size: Size, parameters: int, activation: Activation) -> nn.Sequential:
    """Build PyTorch's tutorial network: 7x7 and 5x5 convolutions without padding, and 32 hidden units.

    It has no normalisation. It serves for comparison, and shows why the collapse guard is needed.
    """
    left = [((side - 6) // 2 - 4) // 2 for side in size]
    return nn.Sequential(nn.Conv2d(channels, 8, 7), *tutorial_end(left, parameters, activation))


def tutorial_end(left: Sequence[int], parameters: int, activation: Activation) -> list[nn.Module]:
    """Build the layers after the first convolutions; ``left`` is the (height, width) after the last pooling."""
    return [
        nn.MaxPool2d(2),
        activation(),
        nn.Conv2d(8, 10, 5),
        nn.MaxPool2d(2),
        activation(),
        nn.Flatten(),
        nn.Linear(10 * left[0] * left[1], 32),
        activation(),
        zero_head(32, parameters),
    ]


def cifar(channels: int, size: Size, parameters: int, activation: Activation) -> nn.Sequential:
    """Build the localisation network of a CIFAR-10 study: the tutorial's with two more convolutions."""
    left = [((side - 10) // 2 - 4) // 2 for side in size]
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 7), *tutorial_end(left, parameters, activation)
    )


def modern(channels: int, size: Size, parameters: int, activation: Activation, width: int = 32) -> nn.Sequential:
    """Build four strided 3x3 convolutions and a regression on all positions of the last feature map."""
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in (width // 2, width, 2 * width, 2 * width):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), activation()]
        inputs = outputs
    cells = -(-size[0] // 16) * -(-size[1] // 16)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(inputs * cells, 2 * width, bias=False),
        nn.BatchNorm1d(2 * width),
        activation(),
        zero_head(2 * width, parameters),
    )


def fine(channels: int, size: Size, parameters: int, activation: Activation, width: int = 16) -> nn.Sequential:
    """Build five 3x3 convolutions, three of them strided, and a regression on all positions of the last feature map.

    It has the resolution and the width to correct what an earlier step has found.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for factor, stride in ((1, 2), (2, 1), (3, 2), (3, 1), (4, 2)):
        outputs = factor * width
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), activation()]
        inputs = outputs
    cells = -(-size[0] // 8) * -(-size[1] // 8)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(inputs * cells, 64, bias=False),
        nn.BatchNorm1d(64),
        activation(),
        zero_head(64, parameters),
    )


class AttentionHead(nn.Module):
    """Predicts a score and a transform in each cell of a feature map, and returns the transforms' weighted mean.

    The weights are the softmax of the scores over all cells (a spatial soft-argmax; Finn et al. 2016). The last two
    parameters are the shift: in each cell, it is relative to the cell's centre, so a cell only tells where the object
    lies as seen from there. All weights are 0 at first, so that the transform is the identity.
    """

    places: Tensor

    def __init__(self, inputs: int, cells: Size, shift: tuple[int, int], parameters: int) -> None:
        """Set the feature map's channels and size; ``shift`` are the positions of x and y among the ``parameters``."""
        super().__init__()
        self.cells = cells[0] * cells[1]
        self.predict = nn.Conv2d(inputs, 1 + parameters, 1)
        for parameter in self.predict.parameters():
            nn.init.zeros_(parameter)
        places = torch.zeros(1, parameters, self.cells)
        places[0, list(shift)] = base_grid(*cells).view(-1, 2).T
        self.register_buffer("places", places, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, inputs, *cells)`` -> ``(N, parameters)``, and the scores ``(N, cells)``, row by row."""
        predicted = self.predict(features).flatten(2).float()  # (N, 1 + parameters, cells)
        weights = predicted[:, :1].softmax(dim=2)
        return ((predicted[:, 1:] + self.places) * weights).sum(dim=2), predicted[:, 0]


class Attention(nn.Sequential):
    """Convolutions followed by an `AttentionHead`: ``(N, C, H, W)`` -> ``(N, P)``."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the offsets only."""
        return self.look(images)[0]

    def start_on(self, side: float) -> Self:
        """Measure the cells' places in units of the region with this ``side`` in the centre, where theta starts."""
        head = self[-1]
        if isinstance(head, AttentionHead):
            head.places /= side
        return self

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offsets ``(N, P)``, and the score of each cell ``(N, cells)``."""
        features = images
        for layer in self[:-1]:
            features = layer(features)
        offsets, scores = self[-1](features)
        return offsets, scores


def attention(channels: int, size: Size, parameters: int, activation: Activation, width: int = 16) -> Attention:
    """Build five convolutions to cells of 8x8 pixels, and an `AttentionHead`, to find small objects on large canvases.

    The last layers are dilated, so that each cell sees about 90 pixels.
    """
    layers: list[nn.Module] = []
    inputs = channels
    plan = ((1, 5, 2, 1), (2, 3, 2, 1), (4, 3, 2, 1), (4, 3, 1, 2), (4, 3, 1, 3))
    for factor, side, stride, dilation in plan:
        outputs = factor * width
        padding = dilation * (side // 2)
        layers += [
            nn.Conv2d(inputs, outputs, side, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
        ]
        inputs = outputs
    cells = -(-size[0] // 8), -(-size[1] // 8)
    return Attention(*layers, AttentionHead(inputs, cells, SHIFTS[parameters], parameters))


SHIFTS = {8: (2, 5), 6: (2, 5), 4: (2, 3), 3: (1, 2), 2: (0, 1)}
"""Positions of the shift (x, y) among the parameters of projective, affine, similarity, attention and translation."""

NETWORKS: dict[str, Callable[[int, Size, int, Activation], nn.Sequential]] = {
    "fcn": fcn,
    "cnn": cnn,
    "tutorial": tutorial,
    "cifar": cifar,
    "modern": modern,
    "fine": fine,
    "attention": attention,
}


def localisation_network(
    kind: str,
    channels: int,
    size: Size,
    parameters: int,
    *,
    coordinates: bool = False,
    slope: float = 0.0,
    side: float = 1.0,
) -> nn.Sequential:
    """Build a network of ``kind`` for pictures of ``size`` = (height, width) that predicts ``parameters`` numbers.

    Args:
        kind: a key of `NETWORKS`.
        channels: channels of the picture.
        size: size of the picture.
        parameters: number of outputs; all are 0 before training.
        coordinates: add each pixel's x and y to the input (CoordConv).
        slope: negative slope of the activation; 0 is ReLU.
        side: side of the region where the transformer starts, as a share of the picture's. Shifts are in units of it.
    """

    def activation() -> nn.Module:
        return nn.LeakyReLU(slope) if slope else nn.ReLU()

    network = NETWORKS[kind](channels + 2 * coordinates, size, parameters, activation)
    if isinstance(network, Attention):
        network.start_on(side)
    return type(network)(Coordinates(size), *network) if coordinates else network
