import pytest
import torch

from training.data.distortions import Distorted
from training.fitting.objective import Measure, Objective, Shown
from training.networks.network import Output, SpatialTransformerClassifier
from training.recipes.catalogue import find_recipe
from training.recipes.recipe import Recipe, change_recipe

SQUARE = torch.tensor([[[-0.8, -0.8], [0.8, 0.8]]])
LABELS = torch.tensor([0, 1, 2, 0])


def signs(**changes: object) -> Recipe:
    """A recipe for traffic signs without any loss but the classifier's."""
    basis = {"upright": 0.0, "area": 0.0, "classifier_widths": [4, 4], "localisation": "fcn"}
    return change_recipe(find_recipe("gtsrb-small"), basis | changes)


def looked(recipe: Recipe, versions: int = 1) -> tuple[Output, Shown]:
    """What an untrained network answers to four pictures with boxes, and what it was shown."""
    pictures = torch.zeros(4, 3, 48, 48)
    version = Distorted(pictures, LABELS, torch.eye(2, 3).expand(4, -1, -1))
    network = SpatialTransformerClassifier(recipe, 3, 3).eval()
    output = network(pictures.repeat(versions, 1, 1, 1))
    return output, Shown([version] * versions, pictures, SQUARE.expand(4, -1, -1))


def frame_loss(objective: Objective) -> float:
    output, shown = looked(objective.recipe)
    return objective.frame_loss(output.warps, shown, {}).item()


def test_known_boxes_do_not_exempt_from_the_canonical_pose_where_none_is_told() -> None:
    objective = Objective(signs(canonical=1.0), 3)
    assert objective.canonical_pose is not None
    objective.canonical_pose.means[:, 0, 2] = 0.3
    assert frame_loss(objective) > 0.01


def test_only_steps_before_the_last_are_told_a_wider_frame() -> None:
    steps = {"pose": 1.0, "crop": 0.8, "steps": 2, "margin": 1.25}
    assert frame_loss(Objective(signs(**steps), 3)) < 1e-3
    # the features' frame lies on that of the last step
    assert frame_loss(Objective(signs(**steps, feature_stage=1), 3)) < 1e-3


def measured(**changes: object) -> tuple[float, dict[str, Measure]]:
    """The loss of an untrained network on two versions of four pictures, and what is recorded."""
    torch.manual_seed(0)
    recipe = signs(crop=0.5, **changes)
    objective = Objective(recipe, 3)
    if objective.canonical_pose is not None:
        objective.canonical_pose.means[:, 0, 2] = 0.3
    output, shown = looked(recipe, versions=2)
    moved = tuple(warp._replace(delta=warp.delta + 0.1) for warp in output.warps)
    loss, measures = objective(output._replace(warps=moved), shown)
    return loss.item(), measures


def test_without_other_losses_only_the_classifier_is_trained() -> None:
    loss, measures = measured()
    assert measures.keys() == {"train_loss", "outside", "theta_distance"}
    assert measures["train_loss"].value.item() == loss


@pytest.mark.parametrize(
    ("basis", "field", "recorded"),
    [
        ({}, "pose", {"pose_loss"}),
        ({}, "canonical", {"canonical_loss"}),
        ({}, "identity_penalty", set()),
        ({"upright": 1.0}, "area", set()),
    ],
)
def test_each_chosen_loss_is_added_by_its_weight(basis: dict[str, object], field: str, recorded: set[str]) -> None:
    plain, without = measured(**basis)
    once, measures = measured(**basis, **{field: 1.0})
    twice, _ = measured(**basis, **{field: 2.0})
    assert measures.keys() - without.keys() == recorded
    assert once - plain > 1e-4
    assert twice - plain == pytest.approx(2 * (once - plain), rel=1e-3)
    for name in recorded:
        assert once - plain == pytest.approx(measures[name].value.item(), rel=1e-3)


def test_upright_is_weighted_and_recorded() -> None:
    torch.manual_seed(0)
    recipe = signs(upright=2.0)
    output, shown = looked(recipe, versions=2)
    turned = torch.tensor([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0]]).expand(4, -1, -1)
    shown = shown._replace(versions=[shown.versions[0], shown.versions[1]._replace(maps=turned)])
    measures: dict[str, Measure] = {}
    loss = Objective(recipe, 3).map_loss(output.warps, shown, measures)
    assert measures["upright_loss"].value.item() > 0.1
    assert loss.item() == pytest.approx(2 * measures["upright_loss"].value.item())


def test_each_picture_is_told_its_own_box_in_all_versions() -> None:
    objective = Objective(signs(pose=1.0), 3)
    output, shown = looked(objective.recipe, versions=2)
    sizes = torch.tensor([0.2, 0.5, 0.8, 1.0])
    shown = shown._replace(boxes=SQUARE * sizes[:, None, None])
    on_boxes = 0.8 * sizes.repeat(2)[:, None, None] * torch.eye(2, 3)
    assert objective.frame_loss((output.warps[0]._replace(theta=on_boxes),), shown, {}).item() < 1e-6
    assert objective.frame_loss((output.warps[0]._replace(theta=on_boxes.flip(0)),), shown, {}).item() > 0.01
