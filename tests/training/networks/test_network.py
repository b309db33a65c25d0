"""The whole network of a recipe, in the order: identity, shape, known values, gradient, independence in a batch."""

import pytest
import torch
from torch import Tensor, nn

from export.graph import transforms
from tests.networks import CANVAS, RECTIFIED, build, heads, randomised, small
from training.networks.geometry import affine_points, base_grid, compose
from training.networks.localisation import Coordinates
from training.networks.network import Output, SpatialTransformerClassifier, transformer
from training.networks.recurrent import row
from training.networks.samplers import Sampler, sample
from training.networks.spatial import centre, tiles
from training.recipes.catalogue import RECIPES
from training.recipes.contradictions import DIGITS, SHIFTED
from training.recipes.recipe import Recipe
from training.recipes.studies import TRAP

OF_DIGITS = [recipe for recipe in RECIPES.values() if recipe.dataset in DIGITS]
COMPOSITIONS: dict[str, dict[str, object]] = {
    "one": {},
    "rotation": {"transformer": "rotation"},
    "tps": {"transformer": "tps", "control_points": 3, "samples": 2},
    "steps": {"steps": 3, "padding": 0.5},
    "shared steps": {"steps": 2, "shared_steps": True, "transformer": "projective"},
    "parallel": {"parallel": 3, "tile": 0.5},
    "parallel steps": {"parallel": 2, "steps": 2, "transformer": "similarity"},
    "features": {"feature_stage": 1},
    "features of stage 2": {"feature_stage": 2, "steps": 2, "transformer": "similarity", "padding": "border"},
    "shared stage": {"shared_stage": True, "localisation": "cnn"},
    "before": {"normalise": "before", "coordinates": True, "slope": 0.1},
    "none": {"transformer": "none"},
}
every_composition = pytest.mark.parametrize("name", COMPOSITIONS)


def pictures(count: int = 3, recipe: Recipe | None = None) -> Tensor:
    channels, size = (len(recipe.mean), recipe.canvas) if recipe else (1, CANVAS)
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(5))


def made(name: str) -> SpatialTransformerClassifier:
    """The composition in evaluation mode, looking far from the identity."""
    return randomised(build(small(**COMPOSITIONS[name])))


def committed(recipe: Recipe) -> SpatialTransformerClassifier:
    torch.manual_seed(0)
    return SpatialTransformerClassifier(recipe, 19 if recipe.distortion == "addition" else 10, len(recipe.mean))


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def localisation_size(**changes: object) -> int:
    return sum(size(network) for network in build(small(**changes)).localisation_networks())


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("training", [True, False])
def test_a_new_network_of_every_recipe_looks_at_its_canonical_crop(recipe: Recipe, training: bool) -> None:
    network, images = committed(recipe).train(training), pictures(2, recipe)
    warps = network(images).warps
    starts = tiles(recipe.parallel, recipe.tile) if recipe.parallel > 1 else [centre(recipe.crop)] * recipe.branches
    if recipe.recurrent:
        starts = row(recipe.sequence, recipe.tile)
    assert len(warps) == len(starts) * recipe.steps
    for position, warp in enumerate(warps):
        is_last = (position + 1) % recipe.steps == 0
        start = starts[position // recipe.steps] * (1.0 if is_last else torch.tensor([recipe.margin] * 2 + [1.0]))
        made = recipe.rectified if is_last else recipe.view or recipe.canvas
        grid = affine_points(start[None], base_grid(*made))
        sampler = Sampler(made, recipe.padding, pyramid=recipe.pyramid and is_last)
        whole = network.as_picture(sampler(images, grid.expand(2, -1, -1, -1)))
        torch.testing.assert_close(warp.delta, torch.zeros_like(warp.delta), atol=1e-6, rtol=0)
        torch.testing.assert_close(warp.theta, start.expand(2, 2, 3), atol=1e-5, rtol=0)
        if recipe.normalise != "before" and not (is_last and recipe.points > 1):
            torch.testing.assert_close(warp.rectified, whole, atol=1e-4, rtol=0)


@every_composition
def test_a_new_network_of_every_composition_starts_with_zero_deltas(name: str) -> None:
    recipe = small(**COMPOSITIONS[name])
    warps = build(recipe)(pictures()).warps
    starts = tiles(recipe.parallel, recipe.tile) if recipe.parallel > 1 else [torch.eye(2, 3)]
    expected = [start for start in starts for _ in range(recipe.steps)] + [torch.eye(2, 3)] * bool(recipe.feature_stage)
    for warp, theta in zip(warps, expected[: len(warps)], strict=True):
        assert warp.delta.abs().max() == 0
        torch.testing.assert_close(warp.theta, theta.expand(3, 2, 3), atol=1e-5, rtol=0)


def test_the_trap_has_the_63_200_parameters_that_the_tutorial_and_its_canvas_give() -> None:
    assert size(committed(TRAP)) == 63_200


@pytest.mark.parametrize("recipe", OF_DIGITS, ids=lambda recipe: recipe.name)
def test_every_recipe_of_digits_has_at_most_400_000_parameters(recipe: Recipe) -> None:
    assert size(committed(recipe)) <= 400_000


@pytest.mark.parametrize(
    ("name", "classes", "most"),
    [
        ("gtsrb-small", 43, 1_500_000),
        ("gtsrb", 43, 20_000_000),
        ("gtsrb-cnn", 43, 20_000_000),
        ("cifar10", 10, 150_000),
        ("cifar10-cnn", 10, 150_000),
    ],
)
def test_recipes_of_photographs_keep_to_their_number_of_parameters(name: str, classes: int, most: int) -> None:
    assert size(SpatialTransformerClassifier(RECIPES[name], classes, 3)) <= most


@every_composition
def test_outputs_have_the_shapes_and_the_order_that_the_export_states(name: str) -> None:
    recipe = small(**COMPOSITIONS[name])
    output: Output = made(name)(pictures(4))
    assert (output.logits.shape, output.logits.dtype) == ((4, 10), torch.float32)
    stated = [stated for stated in transforms(recipe) if stated.kind != "none"]
    assert [warp.rectified.shape for warp in output.warps] == [(4, 1, t.height, t.width) for t in stated]
    assert [warp.grid.shape for warp in output.warps] == [(4, t.height, t.width, 2) for t in stated]
    assert {warp.theta.shape for warp in output.warps} <= {(4, 2, 3)}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"parallel": 2, "steps": 2}, ["branch1_step1", "branch1_step2", "branch2_step1", "branch2_step2"]),
        ({"steps": 2, "feature_stage": 1}, ["step1", "step2", "features"]),
    ],
)
def test_warps_come_branch_by_branch_and_step_by_step_and_features_last(
    changes: dict[str, object], names: list[str]
) -> None:
    recipe = small(**changes)
    network = build(recipe)
    every = [*network.transforms, *([network.feature_transform] if network.feature_transform is not None else [])]
    for number, localisation in enumerate(step for each in every for step in each.localisations):
        nn.init.constant_(localisation[-1].bias, number / 100)  # type: ignore[index]
    with torch.no_grad():
        deltas = [round(float(warp.delta[0, 0]), 4) for warp in network(pictures()).warps]
    assert deltas == [number / 100 for number in range(len(names))]
    assert [transform.name for transform in transforms(recipe)] == names


@pytest.mark.parametrize("kind", ["affine", "similarity", "rotation", "attention"])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_warp_of_features_on_the_picture_is_both_maps_one_after_the_other(kind: str, stage: int) -> None:
    network = randomised(build(small(transformer=kind, feature_stage=stage, samples=2)))
    images = pictures()
    first, last = network(images).warps
    assert network.feature_transform is not None
    theta = compose(first.theta, network.feature_transform.transformer.solve(last.delta))
    torch.testing.assert_close(last.theta, theta, atol=1e-5, rtol=0)
    sampler = Sampler(RECTIFIED, samples=2)
    torch.testing.assert_close(last.rectified, sampler(images, affine_points(theta, sampler.fine)), atol=1e-4, rtol=0)
    assert (last.theta - first.theta).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["similarity", "rotation"])
@pytest.mark.parametrize("rectified", [(16, 16), (12, 16)])
def test_features_are_turned_in_their_own_aspect_and_not_in_the_pictures(kind: str, rectified: tuple[int, int]) -> None:
    network = randomised(build(small(transformer=kind, feature_stage=2, rectified=rectified)))
    assert network.feature_transform is not None
    theta = network.feature_transform.transformer.solve(network(pictures()).warps[-1].delta)
    in_pixels = torch.diag(torch.tensor([rectified[1] / rectified[0], 1.0]))
    turn = in_pixels @ theta[:, :, :2] @ in_pixels.inverse()
    torch.testing.assert_close(turn[:, 0, 1], -turn[:, 1, 0])
    assert turn[:, 0, 1].abs().min() > 1e-3


def test_features_are_read_where_their_transformer_looks() -> None:
    network = randomised(build(small(feature_stage=1)))
    first, last = network(pictures()).warps
    classifier, mean, std = network.classifier, 0.2, 0.4
    features = classifier.stages[0]((first.rectified - mean) / std)
    delta = network.localisation_networks()[-1](features)
    torch.testing.assert_close(last.delta, delta, atol=1e-5, rtol=0)
    theta = torch.eye(2, 3) + delta.view(-1, 2, 3)
    moved = sample(features, affine_points(theta, base_grid(*RECTIFIED)))
    expected = classifier.head(classifier.stages[2](classifier.stages[1](moved)))
    torch.testing.assert_close(network(pictures()).logits, expected, atol=1e-4, rtol=0)


def test_the_classifier_reads_the_images_of_all_branches() -> None:
    network = made("parallel")
    output = network(pictures())
    views = torch.cat([(warp.rectified - 0.2) / 0.4 for warp in output.warps], dim=1)
    torch.testing.assert_close(output.logits, network.classifier(views), atol=1e-5, rtol=0)


def test_without_a_transformer_the_classifier_reads_the_whole_picture() -> None:
    network = made("none")
    output = network(pictures())
    assert output.warps == ()
    assert network.localisation_networks() == []
    torch.testing.assert_close(output.logits, network.classifier((pictures() - 0.2) / 0.4), atol=1e-5, rtol=0)


def test_pictures_of_several_channels_are_normalised_each_by_its_own_mean_and_spread() -> None:
    recipe = small(distortion="addition", transformer="none", mean=(0.1, 0.6), std=(0.2, 0.3))
    network, images = build(recipe).eval(), pictures(3, recipe)
    shown = torch.stack([(images[:, 0] - 0.1) / 0.2, (images[:, 1] - 0.6) / 0.3], dim=1)
    torch.testing.assert_close(network(images).logits, network.classifier(shown), atol=1e-5, rtol=0)


def zoomed_out(normalise: str, **changes: object) -> tuple[SpatialTransformerClassifier, Tensor]:
    """A network that sees all of a white picture and as much around it, and its first rectified image."""
    network = build(small(normalise=normalise, transformer="attention", **changes)).eval()
    nn.init.constant_(heads(network)[0].bias[:1], 1.0)
    with torch.no_grad():
        return network, network(torch.ones(1, 1, *CANVAS)).warps[0].rectified


def test_outside_stays_black_where_the_picture_is_normalised_after_the_sampler() -> None:
    network, rectified = zoomed_out("after")
    assert (float(rectified.min()), float(rectified.max())) == (0, 1)
    assert torch.equal(network.as_picture(rectified), rectified)


def test_outside_turns_grey_where_it_is_normalised_before() -> None:
    network, rectified = zoomed_out("before")
    picture = network.as_picture(rectified)
    assert float(picture.min()) == pytest.approx(0.2)  # the mean, not black
    assert float(picture.max()) == pytest.approx(1)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("padding", "darkest"), [("zeros", 0), ("border", 1), ("reflection", 1), (0.4, 0.4)])
def test_what_lies_outside_is_as_the_recipe_says_in_every_step(padding: object, darkest: float, steps: int) -> None:
    _, rectified = zoomed_out("after", padding=padding, steps=steps)
    assert float(rectified.min()) == pytest.approx(darkest)


@pytest.mark.parametrize("steps", [1, 2])
def test_coordinates_and_slope_are_those_of_the_recipe(steps: int) -> None:
    networks = build(small(coordinates=True, slope=0.2, steps=steps, feature_stage=1)).localisation_networks()
    assert len(networks) == steps + 1
    for network in networks:
        assert any(isinstance(module, Coordinates) for module in network.modules())
        assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_shared_steps_have_one_network_and_others_one_each() -> None:
    single = localisation_size()
    assert localisation_size(steps=3, shared_steps=True) == single
    assert localisation_size(steps=3) == 3 * single
    assert localisation_size(parallel=2, steps=3) == 6 * single


@every_composition
def test_localisation_networks_are_those_that_predict_each_once(name: str) -> None:
    network = build(small(**COMPOSITIONS[name]))
    called: list[nn.Module] = []
    for localisation in network.localisation_networks():
        localisation.register_forward_hook(lambda module, arguments, delta: called.append(module))
    network(pictures())
    assert len(set(map(id, network.localisation_networks()))) == len(network.localisation_networks())
    assert {id(module) for module in called} == {id(module) for module in network.localisation_networks()}
    assert [module[-1] for module in dict.fromkeys(called) if isinstance(module, nn.Sequential)] == heads(network)


def test_localisation_sees_the_classifiers_first_stage_where_they_share_it() -> None:
    network = randomised(build(small(shared_stage=True)))
    (localisation,) = network.localisation_networks()
    expected = localisation(network.classifier.stages[0]((pictures() - 0.2) / 0.4))
    torch.testing.assert_close(network(pictures()).warps[0].delta, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["similarity", "rotation"])
def test_rotations_are_true_in_the_pixels_of_the_recipes_picture(kind: str) -> None:
    made_by_recipe = transformer(small(transformer=kind), CANVAS)
    delta = torch.zeros(1, made_by_recipe.parameter_count)
    delta[0, :2] = torch.tensor([-0.4, 0.8])  # (0.6, 0.8) has length 1
    unit = torch.diag(torch.tensor([CANVAS[1] / 2, CANVAS[0] / 2]))
    linear = unit @ made_by_recipe.solve(delta)[0, :, :2] @ unit.inverse()
    torch.testing.assert_close(linear, torch.tensor([[0.6, -0.8], [0.8, 0.6]]))


@pytest.mark.parametrize("kind", ["affine", "similarity", "attention", "translation", "rotation", "projective", "tps"])
def test_the_recipe_names_its_transformer(kind: str) -> None:
    found = transformer(small(transformer=kind, **({"control_points": 3} if kind == "tps" else {})), CANVAS)
    assert found.kind == kind
    assert kind != "tps" or found.parameter_count == 6 + 2 * 9


@pytest.mark.parametrize("kind", SHIFTED)
def test_attention_gives_every_kind_that_shifts_its_place(kind: str) -> None:
    network = build(small(transformer=kind, localisation="attention", canvas=(24, 24)))
    assert network(torch.rand(3, 1, 24, 24)).warps[0].delta.shape == (
        3,
        network.transforms[0].transformer.parameter_count,
    )


@every_composition
def test_the_loss_reaches_every_parameter(name: str) -> None:
    network = randomised(build(small(**COMPOSITIONS[name]))).train()
    network(pictures(16)).logits.square().sum().backward()
    unreached = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert unreached == set()


@every_composition
def test_items_of_a_batch_do_not_touch_each_other_in_evaluation(name: str) -> None:
    network, images = made(name), pictures(4)
    together = network(images)
    for item in range(4):
        alone = network(images[item : item + 1])
        torch.testing.assert_close(alone.logits[0], together.logits[item], atol=1e-4, rtol=1e-4)
        for one, all_ in zip(alone.warps, together.warps, strict=True):
            torch.testing.assert_close(one.theta[0], all_.theta[item], atol=1e-5, rtol=0)
            torch.testing.assert_close(one.rectified[0], all_.rectified[item], atol=1e-4, rtol=0)
    assert together.logits.std(dim=0).max() > 1e-3
    if together.warps:
        assert together.warps[0].theta.std(dim=0).max() > 1e-3


@pytest.mark.parametrize("normalise", ["after", "before", "each"])
def test_rectified_images_have_the_grey_levels_of_the_picture(normalise: str) -> None:
    recipe = small(normalise=normalise, padding="border")
    network, images = build(recipe).eval(), pictures(2, recipe)
    warp, sampler = network(images).warps[-1], network.transforms[0].samplers[-1]
    expected = sampler(images, warp.map(sampler.fine))
    torch.testing.assert_close(network.as_picture(warp.rectified), expected, atol=1e-4, rtol=0)
