"""Networks with spatial transformers as people write them, from the descriptions of tutorials, studies and threads.

Few people annotate them, and neither do these.
"""

# mypy: disable-error-code="no-any-return, operator, arg-type, untyped-decorator"

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor, nn
from torch.nn.functional import affine_grid as grid_of
from torch.nn.functional import grid_sample as sample_at

IDENTITY = torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float)


def regression(inputs: int) -> nn.Linear:
    """A layer that predicts theta, starting at the identity."""
    layer = nn.Linear(inputs, 6)
    layer.weight.data.zero_()
    layer.bias.data.copy_(IDENTITY)
    return layer


class CoordConv(nn.Conv2d):
    """A convolution that also reads where it is."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs + 2, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        ys = torch.linspace(-1, 1, h, device=x.device).view(1, 1, h, 1).expand(n, 1, h, w)
        xs = torch.linspace(-1, 1, w, device=x.device).view(1, 1, 1, w).expand(n, 1, h, w)
        return super().forward(torch.cat([x, xs, ys], dim=1))


def localisation(channels: int, left: int, convolution: type[nn.Module], activation: type[nn.Module]) -> nn.ModuleList:
    """The tutorial's localisation network, whose last feature map has ``left`` cells."""
    features = nn.Sequential(
        convolution(channels, 8, 7), nn.MaxPool2d(2, stride=2), activation(),
        convolution(8, 10, 5), nn.MaxPool2d(2, stride=2), activation(),
    )  # fmt: skip
    return nn.ModuleList([features, nn.Sequential(nn.Linear(10 * left, 32), activation(), regression(32))])


class Tutorial(nn.Module):
    """PyTorch's tutorial: 28x28 digits, log-softmax, ``align_corners`` left out."""

    left = 9

    def __init__(self, convolution: type[nn.Module] = nn.Conv2d, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)
        self.localization, self.fc_loc = localisation(1, self.left, convolution, activation)

    def stn(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.localization(x).view(x.size(0), -1)).view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, x.size()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stn(x)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.view(-1, 320)))
        x = F.dropout(x, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def leaky_tutorial() -> nn.Module:
    """The tutorial with CoordConv and LeakyReLU in the localisation network."""
    return Tutorial(CoordConv, nn.LeakyReLU)


class Cluttered(Tutorial):
    """60x60 pictures of which 28x28 pixels are cut out; functions imported by name, raw logits."""

    left = 121

    def stn(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.localization(x).flatten(1)).view(-1, 2, 3)
        return sample_at(x, grid_of(theta, [x.size(0), 1, 28, 28], align_corners=True), align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(self.stn(x)), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Transformer(nn.Module):
    """A transformer of a feature map, as a layer."""

    def __init__(self, channels: int, size: int, padding: str) -> None:
        super().__init__()
        self.padding = padding
        self.look = nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2),
            nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * (size // 4) ** 2, 32), nn.ReLU(), regression(32),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.look(x).view(-1, 2, 3), list(x.shape), align_corners=True)
        return F.grid_sample(x, grid, padding_mode=self.padding, align_corners=False)


class Signs(nn.Module):
    """Traffic signs of 43 classes: a transformer of the picture, and one of the features; softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Transformer(3, 32, "border")
        self.conv1 = nn.Sequential(nn.Conv2d(3, 24, 5), nn.BatchNorm2d(24), nn.LeakyReLU(), nn.MaxPool2d(2))
        self.second = Transformer(24, 14, "zeros")
        self.conv2 = nn.Sequential(nn.Conv2d(24, 32, 3), nn.BatchNorm2d(32), nn.LeakyReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 6 * 6, 43))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv2(self.second(self.conv1(self.first(x))))).softmax(dim=-1)


class Cifar(nn.Module):
    """CIFAR-10 with 145,104 parameters: dilated, depthwise and grouped convolutions; a grid built by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 7), nn.MaxPool2d(2, 2), nn.ReLU(True),
            nn.Conv2d(8, 10, 5), nn.MaxPool2d(2, 2), nn.ReLU(True),
        )  # fmt: skip
        self.fc_loc = nn.Sequential(nn.Linear(90, 32), nn.ReLU(True), regression(32))

        def block(i: int, o: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> list[nn.Module]:
            convolution = nn.Conv2d(i, o, 3, stride, dilation, dilation, groups, bias=False)
            return [convolution, nn.BatchNorm2d(o), nn.ReLU(), nn.Dropout(0.1)]

        self.body = nn.Sequential(
            *block(3, 24), *block(24, 24), *block(24, 24, 2, 2), nn.Conv2d(24, 24, 1, bias=False),
            *block(24, 24), *block(24, 24, groups=24), *block(24, 24, 2, 2, 12), nn.Conv2d(24, 48, 1, bias=False),
            *block(48, 48, dilation=2), *block(48, 48, 1, 2, 48), nn.Conv2d(48, 96, 1, bias=False),
            *block(96, 96), *block(96, 96, groups=12), nn.Conv2d(96, 10, 1, bias=False), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.features(x).view(-1, 90)).view(-1, 2, 3)
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
        points = torch.stack([xs, ys, torch.ones_like(xs)], dim=-1).view(1, -1, 3).expand(x.size(0), -1, -1)
        grid = torch.bmm(points, theta.transpose(1, 2)).view(-1, 32, 32, 2)
        return self.body(F.grid_sample(x, grid, align_corners=True)).view(x.size(0), 10)


class Plates(nn.Module):
    """A licence-plate recogniser: a transformer before a network that reads 18 characters out of 68."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.MaxPool2d(2, 2), nn.ReLU(True),
            nn.Conv2d(32, 32, 5), nn.MaxPool2d(3, 3), nn.ReLU(True),
        )  # fmt: skip
        self.fc_loc = nn.Sequential(nn.Linear(32 * 14 * 2, 32), nn.ReLU(True), regression(32))
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1)), nn.Conv2d(32, 64, (1, 4), (1, 5)),
            nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(64, 68, (12, 1)),
        )  # fmt: skip

    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def straighten(self, x: Tensor, theta: Tensor) -> Tensor:
        grid = F.affine_grid(theta, list(x.size()), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.localization(x).view(-1, 32 * 14 * 2)).view(-1, 2, 3)
        return self.backbone(self.straighten(x, theta))[:, :, 0, :18]
