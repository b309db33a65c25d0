import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.geometry import base_grid
from training.networks.localisation import NETWORKS, Attention, AttentionHead, Coordinates, localisation_network
from training.recipes.contradictions import SMALLEST_PICTURE

OBLONG = (24, 37)
PARAMETERS = 6
every_network = pytest.mark.parametrize("kind", NETWORKS)


def network(kind: str, size: tuple[int, int] = OBLONG, channels: int = 2, **options: bool | float) -> nn.Sequential:
    torch.manual_seed(0)
    coordinates, slope = bool(options.get("coordinates")), float(options.get("slope", 0))
    return localisation_network(kind, channels, size, PARAMETERS, coordinates=coordinates, slope=slope)


def pictures(size: tuple[int, int] = OBLONG, count: int = 4) -> Tensor:
    return torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(1))


def head(localisation: nn.Sequential) -> nn.Linear | nn.Conv2d:
    layer = localisation[-1].predict if isinstance(localisation[-1], AttentionHead) else localisation[-1]
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def test_every_network_has_a_smallest_picture() -> None:
    assert NETWORKS.keys() == SMALLEST_PICTURE.keys()


@every_network
@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_new_network_predicts_zeros_of_the_stated_shape(kind: str, coordinates: bool, training: bool) -> None:
    smallest = SMALLEST_PICTURE[kind]
    for size in ((smallest, smallest), (smallest, smallest + 9), (smallest + 5, smallest), OBLONG, (60, 60)):
        localisation = network(kind, size, coordinates=coordinates).train(training)
        torch.testing.assert_close(localisation(pictures(size)), torch.zeros(4, PARAMETERS), atol=1e-6, rtol=0)


@every_network
@pytest.mark.parametrize("side", ["smallest", "larger"])
def test_one_step_down_the_gradient_brings_it_nearer_to_its_target(kind: str, side: str) -> None:
    size = (SMALLEST_PICTURE[kind],) * 2 if side == "smallest" else OBLONG
    localisation, images = network(kind, size), pictures(size, 16)
    target = images.mean(dim=(1, 2, 3))[:, None] + torch.arange(PARAMETERS)
    optimiser = torch.optim.SGD(localisation.parameters(), lr=1e-2)
    before = functional.mse_loss(localisation(images), target)
    before.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = localisation(images)
    assert functional.mse_loss(after, target) < before
    assert after.abs().max() > 0


@every_network
def test_after_the_first_step_every_layer_learns(kind: str) -> None:
    localisation, images = network(kind), pictures(count=16)
    nn.init.normal_(head(localisation).weight)
    localisation(images).square().sum().backward()
    for name, parameter in localisation.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ["fcn", "cnn", "modern"])
def test_normalised_networks_still_tell_pictures_apart_after_a_violent_step(kind: str) -> None:
    localisation = network(kind)
    nn.init.normal_(head(localisation).weight)
    for parameter in list(localisation.parameters())[:-2]:
        if parameter.dim() > 1:
            parameter.data -= 10 * torch.rand_like(parameter)
    assert localisation(pictures(count=16)).std(dim=0).max() > 0.1


def test_the_tutorial_network_does_not_after_the_same_step() -> None:
    localisation = network("tutorial")
    nn.init.normal_(head(localisation).weight)
    for parameter in list(localisation.parameters())[:-2]:
        parameter.data -= 10 * torch.rand_like(parameter)
    assert localisation(pictures(count=16)).std(dim=0).max() == 0


@pytest.mark.parametrize("count", [1, 3])
def test_coordinates_adds_the_centres_of_the_pixels(count: int) -> None:
    images = torch.rand(count, 2, 4, 6)
    shown = Coordinates((4, 6))(images)
    assert shown.shape == (count, 4, 4, 6)
    assert torch.equal(shown[:, :2], images)
    for item in range(count):
        torch.testing.assert_close(shown[item, 2:].permute(1, 2, 0), base_grid(4, 6)[0])


@every_network
def test_only_with_coordinates_does_a_network_see_them(kind: str) -> None:
    plain, placed = network(kind), network(kind, coordinates=True)
    first = next(p for p in placed.parameters() if p.dim() > 1)
    assert first.numel() == 2 * next(p for p in plain.parameters() if p.dim() > 1).numel()  # 4 channels, not 2
    places = [module for module in placed.modules() if isinstance(module, Coordinates)]
    assert [module.places.shape[2:] for module in places] == [OBLONG]


@every_network
def test_slope_is_that_of_every_activation_below_zero(kind: str) -> None:
    sloped = [module for module in network(kind, slope=0.2).modules() if isinstance(module, nn.LeakyReLU)]
    assert len(sloped) == sum(isinstance(module, nn.ReLU) for module in network(kind).modules()) >= 3
    assert {module.negative_slope for module in sloped} == {0.2}
    assert not any(isinstance(module, nn.ReLU) for module in network(kind, slope=0.2).modules())


@every_network
@pytest.mark.parametrize("coordinates", [False, True])
def test_items_of_a_batch_do_not_touch_each_other_in_evaluation(kind: str, coordinates: bool) -> None:
    localisation, images = network(kind, coordinates=coordinates), pictures(count=5)
    nn.init.normal_(head(localisation).weight)
    localisation(pictures(count=16))  # so that running means are not those of the start
    localisation.eval()
    alone = torch.cat([localisation(image[None]) for image in images])
    torch.testing.assert_close(localisation(images), alone, atol=1e-5, rtol=1e-5)
    assert alone.std(dim=0).min() > 0


def test_attention_tells_where_the_cell_with_the_highest_score_lies() -> None:
    head = AttentionHead(1, (3, 4), (2, 5), PARAMETERS)
    head.predict.weight.data[0] = 50.0
    for row in range(3):
        for column in range(4):
            features = torch.zeros(1, 1, 3, 4)
            features[0, 0, row, column] = 1
            offsets, scores = head(features)
            assert scores.argmax() == 4 * row + column
            expected = torch.tensor([[0, 0, (2 * column + 1) / 4 - 1, 0, 0, (2 * row + 1) / 3 - 1]])
            torch.testing.assert_close(offsets, expected, atol=1e-5, rtol=0)


def test_attention_gives_the_same_offsets_with_and_without_its_scores() -> None:
    localisation = network("attention").eval()
    assert isinstance(localisation, Attention)
    nn.init.normal_(head(localisation).weight)
    offsets, scores = localisation.look(pictures())
    assert torch.equal(offsets, localisation(pictures()))
    assert scores.shape == (4, 3 * 5)


def test_attention_points_to_the_same_place_from_any_start() -> None:
    for side in (0.4, 1.0, 1.3):
        localisation = localisation_network("attention", 2, (48, 48), PARAMETERS, side=side)
        head(localisation).weight.data[0] = 0
        places = localisation[-1].places
        assert isinstance(places, Tensor)
        torch.testing.assert_close(side * places[0, [2, 5]], base_grid(6, 6).view(-1, 2).T)
