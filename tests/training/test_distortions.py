import math

import numpy as np
import torch

from training.data import Stream, seeded
from training.distortions import RTS, similarity_maps

DISTORT = RTS((42, 42))
SIZE = (28, 28)


def blob() -> torch.Tensor:
    """A digit-sized square in the middle of a 28x28 picture."""
    image = torch.zeros(1, 1, 28, 28)
    image[..., 4:24, 4:24] = 1
    return image


def test_the_same_seed_gives_the_same_maps() -> None:
    first, again, other = (DISTORT.sample(5, SIZE, seeded(Stream.TEST, seed)) for seed in (7, 7, 8))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_maps_are_rotations_and_scales_within_the_stated_ranges() -> None:
    maps = DISTORT.sample(2000, SIZE, seeded(Stream.TEST, 0))
    linear = maps[:, :, :2] * 28 / 42  # in pixels
    scale = 1 / torch.linalg.det(linear).sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 0, 0]))
    torch.testing.assert_close(linear[:, 0, 0], linear[:, 1, 1])
    torch.testing.assert_close(linear[:, 0, 1], -linear[:, 1, 0])
    for values, low, high in ((scale, 0.7, 1.2), (angle, -45, 45)):
        assert low - 1e-4 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-4


def test_digits_are_put_all_over_the_canvas_and_stay_on_it() -> None:
    maps = DISTORT.sample(1000, SIZE, seeded(Stream.TEST, 1))
    images = DISTORT.apply(blob().expand(1000, 1, 28, 28), maps)
    scale = 42 / 28 / torch.linalg.det(maps[:, :, :2]).sqrt()
    whole = 400 * scale.square()
    assert (images.sum((1, 2, 3)) > 0.93 * whole).all()  # a corner of the largest turned squares may leave
    positions = torch.arange(42) + 0.5
    x = (images.sum(2)[:, 0] * positions).sum(1) / images.sum((1, 2, 3))
    assert x.min() < 14
    assert x.max() > 28


def test_a_known_map_turns_a_picture_clockwise_about_its_place() -> None:
    angle, scale, shift = math.radians(30), 0.8, np.array([5.0, -3.0])
    image = torch.zeros(1, 1, 28, 28)
    image[..., 13:15, 20:22] = 1  # 7 pixels to the right of the centre
    maps = similarity_maps(
        torch.tensor([angle]), torch.tensor([scale]), torch.tensor(shift[None]).float(), SIZE, DISTORT.canvas
    )
    moved = DISTORT.apply(image, maps)[0, 0].numpy()
    rows, columns = np.indices((42, 42)) + 0.5
    centre = np.array([(columns * moved).sum(), (rows * moved).sum()]) / moved.sum()
    expected = 21 + shift + 7 * scale * np.array([math.cos(angle), math.sin(angle)])
    np.testing.assert_allclose(centre, expected, atol=0.15)
