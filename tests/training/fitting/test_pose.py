import pytest
import torch
from torch import Tensor

from training.evaluation.poses import targets
from training.fitting.pose import CanonicalPose, attention_loss, pose_loss
from training.networks.geometry import compose

CROP = 0.8


def frames(count: int = 3, **entries: float) -> Tensor:
    """Frames on the canonical crop, with some entries changed."""
    found = targets(None, CROP, torch.zeros(count, 2, 3)).clone()
    for name, value in entries.items():
        row, column = int(name[1]), int(name[2])
        found[:, row, column] += value
    return found


def rotated(angle_deg: float, side: float = CROP) -> Tensor:
    angle = torch.deg2rad(torch.tensor(angle_deg))
    return side * torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]])


def test_the_target_is_the_box_where_there_is_one_and_else_the_crop() -> None:
    boxes = torch.tensor([[[-0.5, -0.2], [0.7, 0.4]]])
    torch.testing.assert_close(targets(boxes, CROP, frames(1)), torch.tensor([[[0.6, 0, 0.1], [0, 0.3, 0.1]]]))
    torch.testing.assert_close(targets(None, CROP, frames(2)), torch.tensor([[[0.8, 0, 0], [0, 0.8, 0]]] * 2))


def test_a_frame_on_its_target_costs_nothing() -> None:
    assert pose_loss(frames(), frames()) == 0


@pytest.mark.parametrize("change", ["e02", "e12", "e00", "e11", "e01", "e10"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_entry_counts_in_either_direction(change: str, sign: int) -> None:
    assert pose_loss(frames(3, **{change: sign * 0.1}), frames()) > 0.01


def test_the_same_error_in_shares_of_the_side_costs_the_same_at_every_size() -> None:
    small = torch.tensor([0.25, 0.25, 0.25])
    moved, turned = frames(1, e02=0.2), rotated(10)
    for frame in (moved, turned):
        torch.testing.assert_close(pose_loss(frame * small, frames(1) * small), pose_loss(frame, frames(1)))


def test_a_wrong_place_does_not_hide_a_wrong_rotation() -> None:
    far = torch.tensor([[[0.0, 0, 0.9], [0, 0, 0.9]]])
    turned = pose_loss(rotated(12) + far, frames(1)) - pose_loss(rotated(0) + far, frames(1))
    torch.testing.assert_close(turned, pose_loss(rotated(12), frames(1)))


def test_attention_is_drawn_to_the_cell_of_the_object() -> None:
    place = torch.tensor([[[0.5, 0, 0.3], [0, 0.5, -0.6]]])  # of the frame on the canvas
    known = torch.tensor([[[1.6, 0, -0.48], [0, 1.6, 0.96]]])  # takes it to the crop on the picture
    torch.testing.assert_close(compose(known, place), frames(1))
    scores = torch.zeros(1, 4 * 6, requires_grad=True)
    attention_loss(scores, (4, 6), known, frames(1)).backward()  # type: ignore[no-untyped-call]
    row, column = 0, 3  # y = -0.6 of 4 rows, x = 0.3 of 6 columns
    assert scores.grad is not None
    assert scores.grad[0].argmin() == 6 * row + column


def test_attention_for_a_centre_beyond_the_canvas_goes_to_the_nearest_cell() -> None:
    known = torch.tensor([[[1.0, 0, -3], [0, 1.0, 3]]])
    scores = torch.zeros(1, 9, requires_grad=True)
    attention_loss(scores, (3, 3), known, frames(1)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[0].argmin() == 2


def test_only_the_mean_of_a_class_is_held() -> None:
    pose = CanonicalPose(2, CROP)
    balanced = torch.cat([rotated(-20), rotated(20)])
    balanced[:, :, :2] /= torch.cos(torch.deg2rad(torch.tensor(20.0)))  # so that their mean is the crop
    assert pose(balanced, torch.zeros(2, dtype=torch.int64)) < 1e-10
    assert pose(rotated(20).expand(2, 2, 3), torch.ones(2, dtype=torch.int64)) > 1e-4


def test_each_class_has_a_mean_of_its_own() -> None:
    pose = CanonicalPose(2, CROP)
    leaning = torch.cat([rotated(-20), rotated(20)])
    leaning[:, :, :2] /= torch.cos(torch.deg2rad(torch.tensor(20.0)))
    assert pose(leaning, torch.tensor([0, 1])) > 1e-4


def test_the_gradient_follows_the_mean_over_batches() -> None:
    pose = CanonicalPose(1, CROP)
    for _ in range(50):
        pose(frames(4, e02=0.3), torch.zeros(4, dtype=torch.int64))
    now = frames(4).requires_grad_()
    pose(now, torch.zeros(4, dtype=torch.int64)).backward()
    assert now.grad is not None
    assert (now.grad[:, 0, 2] > 0).all()  # the batch is right, the mean of the last ones is too far to the right


def test_gradient_descent_on_the_mean_brings_leaning_classes_upright() -> None:
    pose = CanonicalPose(1, CROP)
    found = rotated(25).repeat(8, 1, 1).requires_grad_()
    optimiser = torch.optim.SGD([found], lr=1.0)
    for _ in range(300):
        optimiser.zero_grad()
        pose(found, torch.zeros(8, dtype=torch.int64)).backward()
        optimiser.step()
    torch.testing.assert_close(found.detach(), frames(8), atol=0.02, rtol=0)


def test_without_frames_the_canonical_pose_costs_nothing() -> None:
    pose = CanonicalPose(2, CROP)
    before = pose.means.clone()
    assert pose(frames(0), torch.zeros(0, dtype=torch.int64)) == 0
    assert torch.equal(pose.means, before)
