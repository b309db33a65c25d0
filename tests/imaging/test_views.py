"""Views of a picture lead back to it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from imaging.views import (
    MOST_VIEWS,
    SHIFT,
    TURN_DEG,
    ZOOM,
    bring_back,
    corner_distance,
    make_views,
    region_side,
    view_maps,
)

IDENTITY = np.eye(2, 3)


def test_a_view_shows_what_its_map_says_and_the_border_goes_on_outside() -> None:
    picture = gaussian_filter(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(float), (2, 2, 0))
    maps = view_maps(4, 60 / 40)
    found = make_views(np.rint(picture).astype(np.uint8), maps)
    x, y = (2 * np.arange(60) + 1) / 60 - 1, (2 * np.arange(40) + 1) / 40 - 1
    points = np.stack(np.meshgrid(x, y), axis=-1)  # (40, 60, 2)
    for view, matrix in zip(found, maps, strict=True):
        places = (points @ matrix[:, :2].T + matrix[:, 2] + 1) / 2 * (60, 40) - 0.5
        for channel in range(3):
            rows_columns = [places[..., 1], places[..., 0]]
            expected = map_coordinates(picture[..., channel], rows_columns, order=1, mode="nearest")
            assert np.abs(view[..., channel] - expected).max() < 2


def test_views_turn_to_both_sides_within_their_limits_in_the_pixels_of_any_picture() -> None:
    for width, height in ((100, 100), (300, 50)):
        maps = view_maps(MOST_VIEWS, width / height)
        pixels = maps[:, :, :2] * np.array([width, height])[:, None] / (width, height)
        size = np.sqrt(np.linalg.det(pixels))
        np.testing.assert_allclose(pixels @ pixels.swapaxes(1, 2), np.eye(2) * size[:, None, None] ** 2, atol=1e-9)
        turn = np.degrees(np.arctan2(pixels[:, 0, 1], pixels[:, 0, 0]))
        assert (np.sign(turn) == np.where(np.arange(MOST_VIEWS) % 2, -1, 1)).all()
        assert ((np.abs(turn) > TURN_DEG / 2) & (np.abs(turn) <= TURN_DEG)).all()
        assert ((size >= 1 / ZOOM) & (size <= ZOOM)).all()
        assert (np.linalg.norm(np.linalg.solve(maps[:, :, :2], maps[:, :, 2:]), axis=(1, 2)) < 2.01 * SHIFT).all()


def test_fewer_views_are_the_first_of_more() -> None:
    np.testing.assert_array_equal(view_maps(16)[:5], view_maps(5))


def test_a_frame_that_follows_is_brought_back_to_where_it_was() -> None:
    theta = np.array([[0.4, -0.1, 0.2], [0.1, 0.4, -0.3]])
    maps = view_maps(8, 1.5)
    inverse = np.linalg.inv(maps[:, :, :2])
    followed = bring_back(np.concatenate([inverse, -inverse @ maps[:, :, 2:]], axis=2), theta)
    np.testing.assert_allclose(bring_back(maps, followed), np.broadcast_to(theta, (8, 2, 3)), atol=1e-12)


@pytest.mark.parametrize(("shift", "distance"), [((0.1, 0.0), 10.0), ((0.0, 0.1), 5.0), ((0.06, 0.16), 10.0)])
def test_distances_are_in_pixels(shift: tuple[float, float], distance: float) -> None:
    moved = IDENTITY.copy()
    moved[:, 2] = shift
    assert corner_distance(moved, IDENTITY, 200, 100) == pytest.approx(distance)
    assert region_side(IDENTITY / 2, 200, 200) == pytest.approx(100)
