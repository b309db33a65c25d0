"""Distorted pictures are what their parameters say, and the parameters what the paper says."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.distortions import (
    FRAGMENT,
    Addition,
    Cluttered,
    Elastic,
    InRow,
    Placed,
    Projected,
    convex,
    homographies,
    make_distortion,
    similarity_maps,
)
from training.data.random_streams import Stream, seeded
from training.networks.geometry import (
    affine_points,
    base_grid,
    corner_points,
    projective_points,
    thin_plate_points,
    thin_plate_solver,
)

SIZE = (28, 28)
CANVASES = {
    "none": (28, 28),
    "r": (28, 28),
    "rot": (28, 28),
    "rts": (42, 42),
    "p": (42, 42),
    "e": (28, 28),
    "tc": (60, 60),
    "tc84": (84, 84),
    "addition": (42, 42),
    "sequence": (60, 100),
}
AFFINE = ("none", "r", "rot", "rts", "tc", "tc84")
RTS = Placed((42, 42), 45, (0.7, 1.2))


def blob(count: int = 1) -> Tensor:
    """A digit-sized square in the middle of 28x28 pictures."""
    images = torch.zeros(count, 1, 28, 28)
    images[..., 4:24, 4:24] = 255
    return images


def strokes(count: int) -> Tensor:
    """Pictures that differ from one another: a bar in another place each, and nothing at the border."""
    images = torch.zeros(count, 1, 28, 28)
    for index in range(count):
        images[index, :, 6 + index % 10 : 12 + index % 10, 5 + index % 7 : 20] = 60 + 10 * (index % 19)
    return images


def centre(image: Tensor) -> NDArray[np.float64]:
    """Of the ink, in pixels as (x, y): ``(H, W)``."""
    pixels = image.numpy()
    rows, columns = np.indices(pixels.shape) + 0.5
    place: NDArray[np.float64] = np.array([(columns * pixels).sum(), (rows * pixels).sum()]) / pixels.sum()
    return place


@pytest.mark.parametrize("name", CANVASES)
def test_the_same_seed_gives_the_same_pictures_and_another_does_not(name: str) -> None:
    how = make_distortion(name, CANVASES[name], 3)
    labels = torch.arange(6)

    def pictures(seed: int) -> Tensor:
        return how.apply(strokes(6), labels, how.draw(6, SIZE, seeded(Stream.TEST, seed))).images

    assert torch.equal(pictures(7), pictures(7))
    if name != "none":
        assert not torch.equal(pictures(7), pictures(8))


@pytest.mark.parametrize("name", CANVASES)
def test_pictures_have_the_size_of_the_canvas_and_the_range_of_the_originals(name: str) -> None:
    how = make_distortion(name, CANVASES[name], 3)
    changed = how.apply(blob(5), torch.arange(5), how.draw(5, SIZE, seeded(Stream.TEST)))
    assert changed.images.shape == (5, 2 if name == "addition" else 1, *CANVASES[name])
    assert changed.images.amin() >= 0
    assert changed.images.amax() <= 255 + 1e-3
    assert changed.images.flatten(1).amax(dim=1).min() > 200, "no picture is empty"


@pytest.mark.parametrize("name", CANVASES)
def test_applying_draws_nothing(name: str) -> None:
    how = make_distortion(name, CANVASES[name], 3)
    parameters = how.draw(4, SIZE, seeded(Stream.TEST))
    first, again = (how.apply(strokes(4), torch.arange(4), parameters).images for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", CANVASES)
def test_the_map_is_told_where_the_distortion_is_an_affine_one(name: str) -> None:
    how = make_distortion(name, CANVASES[name], 3)
    maps = how.apply(blob(3), torch.arange(3), how.draw(3, SIZE, seeded(Stream.TEST))).maps
    assert (maps is not None) == (name in AFFINE)


def test_rts_rotates_and_scales_within_the_stated_ranges() -> None:
    (maps,) = RTS.draw(2000, SIZE, seeded(Stream.TEST))
    linear = maps[:, :, :2] * 28 / 42  # in pixels
    scale = 1 / torch.linalg.det(linear).sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 0, 0]))
    torch.testing.assert_close(linear[:, 0, 0], linear[:, 1, 1])
    torch.testing.assert_close(linear[:, 0, 1], -linear[:, 1, 0])
    for values, low, high in ((scale, 0.7, 1.2), (angle, -45, 45)):
        assert low - 1e-4 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-4


def test_rts_puts_digits_all_over_the_canvas_and_keeps_them_on_it() -> None:
    (maps,) = parameters = RTS.draw(1000, SIZE, seeded(Stream.TEST, 1))
    images = RTS.apply(blob(1000), torch.zeros(1000), parameters).images / 255
    scale = 42 / 28 / torch.linalg.det(maps[:, :, :2]).sqrt()
    assert (images.sum((1, 2, 3)) > 0.93 * 400 * scale.square()).all(), (
        "a corner of the largest turned squares may leave"
    )
    x = torch.tensor([centre(image[0])[0] for image in images])
    assert x.min() < 14
    assert x.max() > 28


@pytest.mark.parametrize(("name", "farthest"), [("r", 90), ("rot", 180)])
def test_r_turns_by_up_to_90_degrees_about_the_centre_and_rot_by_any_angle_and_they_do_nothing_else(
    name: str, farthest: int
) -> None:
    (maps,) = make_distortion(name, SIZE).draw(2000, SIZE, seeded(Stream.TEST))
    angle = torch.rad2deg(torch.atan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert -farthest <= angle.min() < -farthest + 2
    assert farthest - 2 < angle.max() <= farthest
    quarters = torch.histc(angle, 4, -farthest, farthest)
    assert (quarters - 500).abs().max() < 100, "no angle is more likely than another"
    torch.testing.assert_close(torch.linalg.det(maps[:, :, :2]), torch.ones(2000))
    assert maps[:, :, 2].abs().max() < 1e-6


def test_a_known_map_turns_a_picture_clockwise_about_its_place() -> None:
    angle, scale, shift = math.radians(30), 0.8, np.array([5.0, -3.0])
    image = torch.zeros(1, 1, 28, 28)
    image[..., 13:15, 20:22] = 1  # 7 pixels to the right of the centre
    maps = similarity_maps(
        torch.tensor([angle]), torch.tensor([scale]), torch.tensor(shift[None]).float(), SIZE, RTS.canvas
    )
    moved = RTS.apply(image, torch.zeros(1), (maps,)).images[0, 0]
    expected = 21 + shift + 7 * scale * np.array([math.cos(angle), math.sin(angle)])
    np.testing.assert_allclose(centre(moved), expected, atol=0.15)


def test_homographies_take_four_points_to_four_others() -> None:
    origins = corner_points().expand(5, -1, -1)
    targets = origins + 0.3 * torch.randn(5, 4, 2, generator=seeded(Stream.TEST))
    torch.testing.assert_close(projective_points(homographies(origins, targets), origins), targets, atol=1e-4, rtol=0)


def test_p_moves_the_corners_by_normal_noise_of_five_pixels() -> None:
    (maps,) = Projected((42, 42)).draw(4000, SIZE, seeded(Stream.TEST))
    ends = torch.cat([corner_points(), torch.ones(1, 4, 1)], dim=-1).double()  # homogeneous
    moved = ends @ torch.linalg.inv(maps.double()).transpose(1, 2)
    corners = (moved[..., :2] / moved[..., 2:] * 21).float()  # on the canvas, in pixels from its centre
    usable = corners[(corners.abs() < 60).all(dim=(1, 2))]  # all but those that rounding spoils
    assert len(usable) > 3990
    offsets = usable - usable.mean(dim=0)
    scale_spread = 14 * 0.25 / math.sqrt(12)
    assert offsets.std().item() == pytest.approx(math.hypot(5, scale_spread), rel=0.1), "folded ones were drawn again"
    torch.testing.assert_close(usable.mean(dim=0), corner_points()[0] * 14 * 0.875, atol=0.4, rtol=0)


def test_e_bends_by_noise_of_one_and_a_half_pixels_and_is_the_spline_it_says() -> None:
    how = Elastic((28, 28))
    (targets,) = parameters = how.draw(3000, SIZE, seeded(Stream.TEST))
    spread = (targets - targets.mean(dim=0)) * 14
    inner = spread[:, [5, 6, 9, 10]]  # scale hardly moves these
    assert inner.std().item() == pytest.approx(1.5 / 0.87, rel=0.12)
    images = strokes(3000)[:2]
    found = how.apply(images, torch.zeros(2), (targets[:2],)).images
    grid = thin_plate_points(thin_plate_solver(how.control) @ targets[:2], how.control, base_grid(28, 28))
    expected = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(found, expected)
    assert parameters[0].shape == (3000, 16, 2)


def test_tc_keeps_the_digit_sharp_and_adds_six_fragments_of_other_digits() -> None:
    how = Cluttered((60, 60), 6)
    digits = strokes(40)
    parameters = how.draw(40, SIZE, seeded(Stream.TEST))
    changed = how.apply(digits, torch.arange(40), parameters).images
    corners = affine_points(parameters[0], torch.tensor([[[-1.0, -1.0]]]))
    for index in range(40):
        left, top = (-(corners[index, 0] + 1) * 14).round().long().tolist()  # of the digit's frame on the canvas
        frame = changed[index, :, top : top + 28, left : left + 28]
        assert (frame >= digits[index] - 1e-3).all(), "the digit is whole"
        covered = (changed[index, 0] > 1).sum() - (digits[index, 0] > 1).sum()
        assert covered <= 6 * FRAGMENT**2


def test_fragments_are_never_of_the_digit_itself() -> None:
    how = Cluttered((60, 60), 6)
    digits = torch.zeros(3, 1, 28, 28)
    digits[0] = 255
    parameters = how.draw(3, SIZE, seeded(Stream.TEST))
    images = how.apply(digits, torch.arange(3), parameters).images
    assert (images[0] > 1).sum() == 28 * 28, "the others are black"
    assert images[1:].amax() == 255


def test_addition_shows_two_digits_and_names_their_sum() -> None:
    how = Addition(RTS)
    labels = torch.arange(10)
    digits = torch.stack([torch.full((1, 28, 28), 10.0 * (label + 1)) for label in range(10)])
    changed = how.apply(digits, labels, how.draw(10, SIZE, seeded(Stream.TEST)))
    shown = (changed.images.flatten(2).amax(dim=2) / 10 - 1).round().long()  # (N, 2): the digit in each channel
    assert torch.equal(shown[:, 0], labels)
    assert torch.equal(changed.labels, shown.sum(dim=1))


def test_a_sequence_shows_its_digits_from_left_to_right_in_the_order_of_its_labels() -> None:
    how = InRow((60, 100), 3, fragments=0)
    digits = torch.stack([torch.full((1, 28, 28), 10.0 * (label + 1)) for label in range(10)])
    places, *_ = parameters = how.draw(10, SIZE, seeded(Stream.TEST))
    changed = how.apply(digits, torch.arange(10), parameters)
    assert changed.labels.shape == (10, 3)
    assert torch.equal(changed.labels[:, 0], torch.arange(10))
    for image, frames, labels in zip(changed.images, places.long().tolist(), changed.labels.tolist(), strict=True):
        for (top, left), label in zip(frames, labels, strict=True):
            assert (image[0, top : top + 28, left : left + 28] == 10 * (label + 1)).all()
        assert (image > 0).sum() == 3 * 28 * 28, "and nothing else"


def test_digits_of_a_sequence_stand_side_by_side_on_a_rising_or_falling_line_all_over_the_canvas() -> None:
    places, others, *_ = InRow((100, 100), 3).draw(4000, SIZE, seeded(Stream.TEST))
    top, left = places.unbind(dim=2)
    assert (left.diff(dim=1) == 28).all()
    for edge in (left, top):
        assert edge.min() == 0
        assert edge.max() == 100 - 28
    assert top.diff(dim=1).abs().max() <= 14 + 1
    assert top.diff(dim=1).max() > 10
    assert top.diff(dim=1).min() < -10
    assert others.shape == (4000, 2)


def test_fragments_of_a_sequence_hide_no_digit() -> None:
    how = InRow((100, 100), 3)
    digits = strokes(40)
    places, others, sources, corners = how.draw(40, SIZE, seeded(Stream.TEST))
    alone = InRow((100, 100), 3, fragments=0).apply(
        digits, torch.arange(40), (places, others, sources[:, :0], corners[:, :0])
    )
    changed = how.apply(digits, torch.arange(40), (places, others, sources, corners)).images
    added = changed - alone.images
    assert added.min() == 0
    assert 0 < (added > 0).flatten(1).sum(dim=1).max() <= 8 * 9**2


def test_p_folds_no_picture_and_shows_nothing_beyond_the_horizon() -> None:
    how = Projected((42, 42))
    (maps,) = how.draw(3000, SIZE, seeded(Stream.TEST))
    assert (torch.linalg.det(maps) > 0).all()
    folded = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-3, 0, 1]]]) * torch.tensor([[[0.1], [0.1], [1]]])
    looked = projective_points(folded, torch.tensor([[[0.5, 0.3], [0.0, 0.3]]]))
    assert (looked[0, 0].abs() > 1).all()
    torch.testing.assert_close(looked[0, 1], torch.tensor([0.0, 0.03]))


def test_convex_quadrilaterals_are_told_from_folded_and_dented_ones() -> None:
    square = corner_points()
    folded, dented = square.clone(), square.clone()
    folded[0, [0, 1]] = square[0, [1, 0]]
    dented[0, 0] = torch.tensor([0.5, 0.5])
    mirrored = square * torch.tensor([-1.0, 1.0])
    assert convex(torch.cat([square, folded, dented, mirrored])).tolist() == [True, False, False, False]
