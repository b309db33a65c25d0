"""Classifiers: from an image ``(N, C, H, W)`` to logits ``(N, K)``, in stages whose features others can use."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from training.networks.dropout import Dropout

HIDDEN = 128
"""Hidden units of a conv classifier that knows positions."""


class Classifier(nn.Module):
    """Stages that produce feature maps, and a head that classifies the last one."""

    def __init__(self, stages: Sequence[nn.Module], widths: list[int], head: nn.Module) -> None:
        """``widths`` are the numbers of channels that the stages produce."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.widths = widths
        self.head = head
        self.frozen: tuple[nn.Module, ...] = ()
        """Modules that stay in evaluation mode in training too (see `training.networks.depth`)."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules that are not frozen."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> logits ``(N, K)``."""
        for stage in self.stages:
            images = stage(images)
        logits: Tensor = self.head(images)
        return logits


def conv_classifier(
    channels: int, classes: int, widths: Sequence[int], size: tuple[int, int] | None = None
) -> Classifier:
    """Build stages of two 3x3 convolutions with batch normalisation, followed by global average pooling.

    ``widths`` are the filters of each stage; each further stage works at half the size. With the ``size`` = (height,
    width) of the input, fully connected layers on all positions take the place of the pooling, so that the classes
    depend on where things are.
    """
    stages: list[nn.Module] = []
    inputs = channels
    for outputs in widths:
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        stages.append(nn.Sequential(*layers))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    if size is not None:
        cells = (size[0] >> len(widths) - 1) * (size[1] >> len(widths) - 1)
        hidden = [nn.Linear(inputs * cells, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
        head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(HIDDEN, classes))
    return Classifier(stages, list(widths), head)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, section 3); ``stride`` 2 halves the size."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride > 1:  # averaged first, because a strided 1x1 convolution would skip pixels
            mix = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), mix, nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, outputs, H / stride, W / stride)``, rounded up."""
        return nn.functional.relu(self.body(images) + self.shortcut(images))


def residual_classifier(channels: int, classes: int, width: int, blocks: Sequence[int]) -> Classifier:
    """Build one stage per entry of ``blocks`` (He et al. 2016, section 4.2), followed by global average pooling.

    The first stage has ``width`` filters; each further stage has twice as many, at half the size.
    """
    widths = [width << stage for stage in range(len(blocks))]
    stages: list[nn.Module] = []
    inputs = width
    for outputs, count in zip(widths, blocks, strict=True):
        layers: list[nn.Module] = []
        if not stages:
            layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        for number in range(count):
            layers.append(ResidualBlock(inputs, outputs, stride=2 if stages and number == 0 else 1))
            inputs = outputs
        stages.append(nn.Sequential(*layers))
    return Classifier(stages, widths, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)))


def tutorial_classifier(channels: int, classes: int, size: tuple[int, int]) -> Classifier:
    """Build PyTorch's tutorial network: 5x5 convolutions with 10 and 20 filters, 50 hidden units, dropout.

    ``size`` is the height and width of the input.
    """
    left = [((side - 4) // 2 - 4) // 2 for side in size]
    stages = [
        nn.Sequential(nn.Conv2d(channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(10, 20, 5), Dropout(channels=True), nn.MaxPool2d(2), nn.ReLU()),
    ]
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(20 * left[0] * left[1], 50), nn.ReLU(), Dropout(), nn.Linear(50, classes)
    )
    return Classifier(stages, [10, 20], head)


def cifar_classifier(channels: int, classes: int, dropout: float = 0.1) -> Classifier:
    """Build the classifier of a CIFAR-10 study, with 136,032 parameters: dilated, depthwise and grouped convolutions.

    Four stages end in 1x1 convolutions. The first two halve the size; the last one has a channel for each class.
    """

    def block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            Dropout(dropout),
        ]

    def mix(inputs: int, outputs: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, 1, bias=False)

    stages = [
        nn.Sequential(*block(channels, 24), *block(24, 24), *block(24, 24, stride=2, dilation=2), mix(24, 24)),
        nn.Sequential(
            *block(24, 24), *block(24, 24, groups=24), *block(24, 24, stride=2, dilation=2, groups=12), mix(24, 48)
        ),
        nn.Sequential(*block(48, 48, dilation=2), *block(48, 48, dilation=2, groups=48), mix(48, 96)),
        nn.Sequential(*block(96, 96), *block(96, 96, groups=12), mix(96, classes)),
    ]
    return Classifier(stages, [24, 48, 96, classes], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
