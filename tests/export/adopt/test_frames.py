"""The frame of a feature map says what the centre of each feature sees, which gradients confirm."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.adopt.checks import Chosen
from export.adopt.network import conversion
from export.adopt.tracing import Place, trace

LAYERS: dict[str, list[nn.Module]] = {
    "no padding": [nn.Conv2d(1, 1, 5), nn.AvgPool2d(2), nn.Conv2d(1, 1, 5), nn.AvgPool2d(2)],
    "padding": [nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, padding="same")],
    "strides": [nn.Conv2d(1, 1, 4, stride=2, padding=1), nn.Conv2d(1, 1, 3, stride=2)],
    "dilation": [nn.Conv2d(1, 1, 3, dilation=2), nn.Conv2d(1, 1, (1, 3), padding=(0, 2), dilation=(1, 2))],
    "valid": [nn.Conv2d(1, 1, 3, padding="valid"), nn.AvgPool2d(3, 2, 1), nn.LeakyReLU(), nn.BatchNorm2d(1)],
}


class Featured(nn.Module):
    """Samples a feature map at a fixed theta."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.fill_(1)
                assert layer.bias is not None
                layer.bias.data.fill_(0)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layers(x) + 0.0 * self.layers(x)
        theta = torch.eye(2, 3).expand(x.size(0), 2, 3)
        shape = [x.size(0), 1, features.size(2), features.size(3)]
        return functional.grid_sample(features, functional.affine_grid(theta, shape, align_corners=False))


def place_of(layers: list[nn.Module], side: int = 24) -> tuple[Place, nn.Module]:
    network = Featured(layers).eval()
    return trace(Chosen(network, {"output": 0}), torch.rand(3, 1, side, side)).places[0], network.layers


@pytest.mark.parametrize("name", LAYERS)
def test_a_feature_sees_what_its_gradient_comes_from(name: str) -> None:
    place, layers = place_of(LAYERS[name])
    picture = torch.rand(1, 1, 24, 24, requires_grad=True)
    features = layers(picture)
    height, width = features.shape[2:]
    for y, x in ((height // 2, width // 2), (height // 2 - 1, width // 2)):
        (gradient,) = torch.autograd.grad(features[0, 0, y, x], picture, retain_graph=True)
        weight = gradient[0, 0] / gradient.sum()
        centre = [float((weight.sum(dim=1 - axis) * torch.arange(24)).sum()) for axis in (0, 1)]
        expected = [place.frame.y.offset + place.frame.y.stride * y, place.frame.x.offset + place.frame.x.stride * x]
        assert centre == pytest.approx(expected, abs=1e-3)


def test_a_trimmed_feature_map_covers_the_middle_of_the_picture() -> None:
    place, _ = place_of(LAYERS["no padding"], side=32)
    assert place.read == (5, 5)
    found = conversion(place)  # the centres 7.5, 11.5, ... 23.5 of 32 pixels are seen, so the map spans 20 of them
    assert found.rows == pytest.approx((20 / 32, 20 / 32))
    assert found.shift == pytest.approx((0, 0))
