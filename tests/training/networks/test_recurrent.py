"""A recurrent transformer starts side by side, remembers what it has passed, and shows each object by itself."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tests.networks import build, heads, randomised
from training.evaluation.worth import measure_worth
from training.networks.network import SpatialTransformerClassifier
from training.networks.recurrent import Recurrence, RecurrentTransformer, recurrent, row
from training.networks.samplers import Sampler
from training.networks.transformers import AffineTransformer
from training.recipes.digits import MNIST_SEQUENCE
from training.recipes.recipe import Recipe, change_recipe

CANVAS = (32, 84)


def small(**changes: object) -> Recipe:
    fields: dict[str, object] = {"canvas": CANVAS, "localisation_size": (16, 42), "rectified": (12, 16)}
    return change_recipe(MNIST_SEQUENCE, fields | {"classifier_width": 4, "classifier_stages": 2} | changes)


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 1, *CANVAS, generator=torch.Generator().manual_seed(3))


def made(**changes: object) -> SpatialTransformerClassifier:
    return randomised(build(small(**changes)))


@pytest.mark.parametrize(("share", "places"), [(0.4, [-0.6, 0.0, 0.6]), (1.0, [0.0, 0.0, 0.0])])
def test_before_training_the_crops_lie_side_by_side_from_left_to_right(share: float, places: list[float]) -> None:
    warps = build(small(tile=share))(pictures()).warps
    for warp, x in zip(warps, places, strict=True):
        expected = torch.tensor([[share, 0.0, x], [0.0, share, 0.0]])
        torch.testing.assert_close(warp.theta, expected.expand(3, 2, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["affine", "similarity", "translation", "projective", "tps"])
def test_every_kind_gives_a_warp_and_logits_for_each_object(kind: str) -> None:
    output = made(transformer=kind, control_points=4)(pictures(5))
    assert output.logits.shape == (5, 3, 10)
    assert [warp.rectified.shape for warp in output.warps] == [(5, 1, 12, 16)] * 3


@pytest.mark.parametrize("changes", [{"transformer": "none", "localisation_size": None}, {}], ids=["cnn", "crop"])
def test_without_a_gru_one_classifier_answers_for_all_objects(changes: dict[str, object]) -> None:
    network = build(small(recurrent=False, tile=0.5, **changes)).eval()
    output = network(pictures(2))
    assert output.logits.shape == (2, 3, 10)
    assert len(output.warps) == (0 if changes else 1)


def test_a_classifier_of_all_objects_knows_where_things_are() -> None:
    head = made(recurrent=False, tile=0.5, transformer="none", localisation_size=None).classifier.head
    features = torch.rand(1, 8, CANVAS[0] // 2, CANVAS[1] // 2, generator=torch.Generator().manual_seed(0))
    swapped = features.clone()
    swapped[:, :, 3, [5, 30]] = features[:, :, 3, [30, 5]]  # with the same mean
    assert (head(features) - head(swapped)).abs().max() > 1e-4


def test_the_gru_runs_as_torchs_own_does_when_it_is_shown_the_same_features_in_every_step() -> None:
    recurrence = Recurrence(6, 4, 5)
    whole = nn.GRU(6, 5, batch_first=True)
    whole.load_state_dict({f"{name}_l0": value for name, value in recurrence.cell.state_dict().items()})
    features = torch.rand(3, 6)
    torch.testing.assert_close(recurrence(features), whole(features[:, None].expand(-1, 4, -1))[0])


def test_the_picture_is_encoded_once_for_all_objects() -> None:
    network = made()
    calls = []
    network.transforms[0].localisations[0][0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index]
    network(pictures())
    assert len(calls) == 1


def test_a_deltas_object_is_told_by_its_place_in_the_sequence() -> None:
    deltas = [warp.delta for warp in made()(pictures()).warps]
    assert (deltas[0] - deltas[1]).abs().max() > 1e-3
    assert (deltas[1] - deltas[2]).abs().max() > 1e-3


def test_each_object_is_classified_from_its_own_crop_alone() -> None:
    network = made()
    output = network(pictures())
    assert network.std is not None
    for position, warp in enumerate(output.warps):
        alone = network.classifier((warp.rectified - network.mean) / network.std)
        torch.testing.assert_close(output.logits[:, position], alone, atol=1e-5, rtol=1e-4)


def test_gradients_of_every_object_reach_the_gru_and_the_encoder() -> None:
    for position in range(3):
        network = made().train()
        network(pictures()).logits[:, position].square().sum().backward()
        (localisation,) = network.localisation_networks()
        assert all(parameter.grad is not None for parameter in localisation.parameters())
        assert all(head.weight.grad is not None and head.weight.grad.abs().max() > 0 for head in heads(network))


def test_pictures_of_a_batch_do_not_touch_one_another() -> None:
    network, images = made(), pictures()
    together, alone = network(images).logits, network(images[:1]).logits
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


def test_a_network_without_a_regression_of_features_is_refused() -> None:
    with pytest.raises(TypeError, match="no regression"):
        recurrent(nn.Sequential(nn.Conv2d(1, 1, 3)), 3)


def test_the_last_layer_moves_every_crop_from_its_own_start() -> None:
    localisation = recurrent(nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, 6)), 2, units=4)
    nn.init.constant_(localisation[-1].bias, 0.5)  # type: ignore[arg-type]
    place = RecurrentTransformer(AffineTransformer(), localisation, Sampler((8, 8)), row(2, 0.5))
    first, second = place(torch.rand(1, 1, 8, 8), lambda view: view)
    moved = torch.tensor([[[0.75, 0.25, 0.25], [0.25, 0.75, 0.25]]])  # half of (identity + 0.5)
    for warp, x in ((first, -0.5), (second, 0.5)):
        torch.testing.assert_close(warp.theta, moved + torch.tensor([[[0.0, 0.0, x], [0.0, 0.0, 0.0]]]))


def test_the_worth_of_theta_is_that_of_the_crops_of_all_objects() -> None:
    network = randomised(build(small()), reach=1.0)
    images = (pictures(40) * 255).to(torch.uint8)
    with torch.inference_mode():
        wanted = network(images / 255).logits.argmax(dim=2)
    found = measure_worth(network, images, wanted)
    assert found.accuracy == 1
    assert network.std is not None
    whole = torch.stack([network.classifier((whole_picture(network, images) - network.mean) / network.std)] * 3, dim=1)
    assert found.identity == pytest.approx(float((whole.argmax(dim=2) == wanted).double().mean()), abs=1e-6)


def whole_picture(network: SpatialTransformerClassifier, images: Tensor) -> Tensor:
    """The pictures as a crop of the whole of them would show them."""
    sampler = network.transforms[0].samplers[0]
    return cast(Tensor, sampler(images / 255, sampler.fine.expand(len(images), -1, -1, -1)))
