import io

import torch

from tests.networks import CANVAS, build, small
from training.reports.confusions import MOST_CLASSES, confused_figure, confusion_figure, most_confused
from training.reports.outlines import rectified_figure


def test_the_commonest_mistakes_come_first_with_all_their_pictures() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    predicted = torch.tensor([1, 0, 1, 1, 0, 2, 1])
    found = most_confused(torch.eye(3)[predicted], labels)
    assert found[0] == (0, 1, (0, 2))
    assert {(c.true, c.predicted, c.pictures) for c in found[1:]} == {(1, 0, (4,)), (2, 1, (6,))}


def test_answers_without_a_mistake_have_no_commonest_one() -> None:
    assert most_confused(torch.eye(3), torch.arange(3)) == []


def test_a_row_is_drawn_for_each_mistake_with_its_count() -> None:
    images = torch.randint(0, 256, (6, 1, *CANVAS), dtype=torch.uint8)
    mistakes = most_confused(torch.eye(10)[torch.tensor([1, 1, 1, 1, 1, 0])], torch.tensor([0, 0, 0, 0, 0, 1]))
    figure = confused_figure(mistakes, images, build(small()).eval(), tuple("abcdefghij"))
    titles = [row.get_suptitle() for row in figure.subfigs]
    assert titles == ["a mistaken for b: 5", "b mistaken for a: 1"]


def test_class_names_are_drawn_as_they_are_written_not_as_mathematics() -> None:
    names = ("$5_$", *"bcdefghij")
    images = torch.randint(0, 256, (1, 1, *CANVAS), dtype=torch.uint8)
    network = build(small()).eval()
    for figure in (
        confused_figure(most_confused(torch.eye(10)[[1]], torch.tensor([0])), images, network, names),
        confusion_figure([(label, label, 1) for label in range(10)], names),
        rectified_figure(images, network, ("$5_$",) * 10, 1.0),
    ):
        figure.savefig(io.BytesIO())


def test_many_classes_leave_room_for_their_names() -> None:
    names = tuple(f"class {number}" for number in range(43))
    small_one, large = (
        confusion_figure([(label, label, 1) for label in range(3)], tuple("abc")),
        confusion_figure([(label, label, 1) for label in range(43)], names),
    )
    assert large.get_figwidth() > small_one.get_figwidth()
    assert [label.get_text() for label in large.axes[0].get_yticklabels()] == list(names)
    assert len(large.axes[0].texts) == 0
    assert len(small_one.axes[0].texts) == 3


def test_of_very_many_classes_those_that_are_confused_most_are_drawn() -> None:
    names = tuple(f"class {number}" for number in range(5000))
    cells = [(label, label, 9) for label in range(5000)] + [(4000 + n, 4100 + n, 2) for n in range(40)] + [(7, 3, 1)]
    figure = confusion_figure(cells, names)
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == MOST_CLASSES
    assert shown == sorted(shown)
    assert {f"class {4000 + n}" for n in range(30)} <= set(shown)
    assert "class 3" not in shown
    assert axes.images[0].get_size() == (MOST_CLASSES, MOST_CLASSES)
    assert figure.get_suptitle() == "the 60 most confused of 5,000 classes"
    assert max(figure.get_size_inches() * figure.dpi) < 2000
