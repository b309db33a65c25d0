import pytest
import torch

from training.data.splits import Split, held_groups, hold_out
from training.errors import DataError


def pictures(labels: list[int], groups: list[int] | None = None) -> Split:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return Split(images, torch.tensor(labels), None if groups is None else torch.tensor(groups))


def test_a_choice_keeps_all_that_is_known_of_a_picture() -> None:
    boxes = torch.rand(3, 2, 2)
    chosen = pictures([4, 5, 6], [7, 8, 9])._replace(boxes=boxes).at(torch.tensor([2, 0]))
    assert chosen.images.flatten().tolist() == [2, 0]
    assert chosen.labels.tolist() == [6, 4]
    assert chosen.groups is not None
    assert chosen.groups.tolist() == [9, 7]
    assert chosen.boxes is not None
    assert torch.equal(chosen.boxes, boxes[[2, 0]])


def test_held_out_pictures_are_no_longer_trained_on_and_the_same_each_time() -> None:
    whole = pictures([0] * 100)
    train, held = hold_out(whole, 30, "x")
    assert (len(train.labels), len(held.labels)) == (70, 30)
    assert sorted([*train.images.flatten().tolist(), *held.images.flatten().tolist()]) == list(range(100))
    assert torch.equal(held.images, hold_out(whole, 30, "x")[1].images)


def test_groups_stay_together_and_every_class_gives_its_share() -> None:
    labels = [0] * 600 + [1] * 60 + [2] * 40
    groups = [position // 20 for position in range(700)]
    train, held = hold_out(pictures(labels, groups), 140, "x")
    assert train.groups is not None
    assert held.groups is not None
    assert not set(train.groups.tolist()) & set(held.groups.tolist())
    assert held.labels.bincount().tolist() == [120, 20, 20]


def test_a_class_of_one_scene_is_trained_on() -> None:
    labels, groups = torch.tensor([0] * 10 + [1] * 10), torch.tensor([0] * 10 + [1] * 5 + [2] * 5)
    assert held_groups(labels, groups, 0.3).tolist() in ([1], [2])


def test_more_than_there_is_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match=r"x has 3 training pictures.*validation_size"):
        hold_out(pictures([0, 1, 2]), 3, "x")


def test_classes_of_one_scene_each_cannot_be_split() -> None:
    with pytest.raises(DataError, match="one scene"):
        hold_out(pictures([0, 0, 1, 1], [0, 0, 1, 1]), 2, "x")
