"""Localisation networks: from a picture ``(N, C, H, W)`` to the transformer's parameters ``(N, P)``."""

from torch import nn


def zero_head(inputs: int, parameters: int) -> nn.Linear:
    """A regression layer that answers 0 for everything, so that its transformer starts at the identity."""
    head = nn.Linear(inputs, parameters)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class ConvLocalisation(nn.Sequential):
    """``(N, C, H, W)`` -> ``(N, P)``, the P parameters of a transformer.

    The paper's convolutional localisation network on the half-size picture (Jaderberg et al. 2015, appendix A):
    average pooling by 2, two 5x5 convolutions with max pooling between, and a fully connected layer before the
    regression. Batch normalisation is added, before the regression too: without it a few large steps there leave all
    hidden units below zero for every picture, and the transformer answers the same theta for ever.
    """

    def __init__(self, channels: int, size: tuple[int, int], parameters: int, width: int = 32) -> None:
        """For pictures of ``size`` = (height, width); ``width`` is the number of filters and of hidden units."""
        reduced = [side // 2 // 2 // 2 for side in size]
        super().__init__(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, width // 2, 5, padding=2, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width // 2, width, 5, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(width * reduced[0] * reduced[1], width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            zero_head(width, parameters),
        )
