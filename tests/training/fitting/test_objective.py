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


def test_each_chosen_loss_is_added_by_its_weight_and_recorded_without_it() -> None:
    def measured(**changes: object) -> tuple[float, dict[str, Measure]]:
        torch.manual_seed(0)
        recipe = signs(crop=0.5, **changes)
        loss, measures = Objective(recipe, 3)(*looked(recipe, versions=2))
        return loss.item(), measures

    plain, without = measured()
    assert without.keys() == {"train_loss", "outside", "theta_distance"}
    assert without["train_loss"].value.item() == plain
    for weight in (1.0, 2.0):
        loss, measures = measured(pose=weight)
        assert measures.keys() - without.keys() == {"pose_loss"}
        pose = measures["pose_loss"].value.item()
        assert pose > 0.01
        assert loss == pytest.approx(plain + weight * pose)
    assert measured(upright=1.0)[1].keys() - without.keys() == {"upright_loss"}
    assert measured(upright=1.0, area=1.0)[0] > measured(upright=1.0)[0]
