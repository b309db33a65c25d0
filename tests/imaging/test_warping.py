"""Pictures that are sampled through a map, compared with SciPy's interpolation, many samples to a pixel."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from imaging import warping
from imaging.warping import Floats, Padding, Pixels, SamplingMap, warp

TOLERANCE = 2
"""Grey levels."""
ROWS, COLUMNS = np.mgrid[0:300, 0:400]
WAVES: Pixels = np.stack(
    [
        127 + 100 * np.sin(COLUMNS / 9) * np.cos(ROWS / 11),
        127 + 90 * np.cos(COLUMNS / 13 + ROWS / 10),
        COLUMNS / 400 * 255,
    ],
    axis=-1,
).astype(np.uint8)


def affine(*rows: list[float]) -> SamplingMap:
    theta = np.array(rows)
    return SamplingMap(lambda points: points @ theta[:, :2].T + theta[:, 2], np.vstack([theta, [0, 0, 1]]))


def projective(*rows: list[float]) -> SamplingMap:
    homography = np.array(rows)

    def apply(points: Floats) -> Floats:
        mapped: Floats = np.hstack([points, np.ones((len(points), 1))]) @ homography.T
        return mapped[:, :2] / mapped[:, 2:]

    return SamplingMap(apply, homography)


def bent(points: Floats) -> Floats:
    x, y = points.T
    return np.stack([0.7 * x + 0.08 * np.sin(3 * y), 0.6 * y + 0.1 * np.cos(2 * x) - 0.1 * x], axis=1)


def sampled(
    pixels: Pixels, apply: Callable[[Floats], Floats], width: int, height: int, side: int, mode: str = "constant"
) -> NDArray[np.float64]:
    """The mean of ``side`` x ``side`` samples in each pixel of the result, zero outside of the picture."""
    total = np.zeros((height, width, pixels.shape[2]))
    shares = (np.arange(side) + 0.5) / side
    for right in shares:
        for down in shares:
            x, y = (np.arange(width) + right) / width * 2 - 1, (np.arange(height) + down) / height * 2 - 1
            points = apply(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
            column, row = ((points + 1) / 2 * (pixels.shape[1], pixels.shape[0]) - 0.5).T
            for channel in range(pixels.shape[2]):
                levels = pixels[..., channel].astype(float)
                found = map_coordinates(levels, [row, column], order=1, mode=mode)
                total[..., channel] += found.reshape(height, width)
    return total / side**2


def worst(found: Pixels, pixels: Pixels, sampling: SamplingMap, side: int) -> float:
    """The largest difference from SciPy's result, away from the edges of the picture."""
    height, width, _ = found.shape
    expected = sampled(pixels, sampling.apply, width, height, side)
    inside = sampled(np.full_like(pixels, 255), sampling.apply, width, height, side) > 254.99
    assert inside.mean() > 0.3
    return float(np.abs(found - expected)[inside].max())


MAPS: dict[str, SamplingMap] = {
    "turned": affine([0.6, -0.4, 0.1], [0.5, 0.5, 0.0]),
    "turned far": affine([-0.3, -0.4, 0.1], [0.4, -0.5, 0.0]),
    "mirrored": affine([-0.7, 0.1, 0.0], [0.1, 0.7, 0.0]),
    "sheared": affine([0.8, 0.5, 0.0], [0.0, 0.6, 0.0]),
    "partly outside": affine([1.2, 0.1, 0.2], [-0.1, 1.1, 0.3]),
    "in perspective": projective([0.7, 0.1, 0.0], [0.05, 0.6, 0.1], [0.25, -0.1, 1.0]),
    "bent": SamplingMap(bent),
}
SIZES = {"enlarged": (500, 380), "alike": (300, 220), "reduced": (120, 100), "reduced much": (44, 30)}
SAMPLES = {"enlarged": 1, "alike": 3, "reduced": 3, "reduced much": 6}
"""SciPy's samples along each side of a pixel."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MAPS)
def test_a_picture_is_sampled_where_the_map_says_and_over_the_area_of_each_pixel(name: str, size: str) -> None:
    width, height = SIZES[size]
    found = warp(WAVES, MAPS[name], width, height, "black")
    assert worst(found, WAVES, MAPS[name], SAMPLES[size]) <= TOLERANCE


@pytest.mark.parametrize(("width", "height"), [(16, 400), (500, 9), (1, 1)])
def test_a_picture_that_is_squeezed_along_one_axis_is_averaged_along_it(width: int, height: int) -> None:
    sampling = affine([0.7, 0.05, 0.0], [0.05, 0.7, 0.0])
    side = min(40, 1 + max(400 // width, 300 // height))
    slow = (WAVES / 4 + np.array([0, 50, 100])).astype(np.uint8)
    assert worst(warp(slow, sampling, width, height, "black"), slow, sampling, side) <= TOLERANCE


def test_fine_lines_become_grey_and_not_coarse_ones() -> None:
    lines = np.where(COLUMNS % 2, 255, 0).astype(np.uint8)[..., None]
    found = warp(lines, affine([0.9, 0.05, 0.0], [-0.05, 0.9, 0.0]), 70, 50, "black")
    assert np.abs(found.astype(float) - 127.5).max() < 32


@pytest.mark.parametrize("name", ["turned", "bent"])
def test_blocks_of_rows_join_without_a_seam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = warp(WAVES, MAPS[name], 130, 97, "edge")
    monkeypatch.setattr(warping, "BLOCK", 1000)
    assert np.abs(warp(WAVES, MAPS[name], 130, 97, "edge").astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", ["turned", "in perspective"])
def test_all_ways_to_find_the_positions_agree(name: str) -> None:
    sampling = MAPS[name]
    found = [
        warp(WAVES, way, 150, 120, "black").astype(int)
        for way in (sampling, SamplingMap(sampling.apply), SamplingMap(sampling.apply, None, is_smooth=False))
    ]
    assert np.abs(found[1] - found[0]).max() <= 1
    assert np.abs(found[2] - found[0]).max() <= 1


OUTSIDE = affine([0.1, 0.0, 5.0], [0.0, 0.1, 0.5])
"""A region to the right of the picture."""


@pytest.mark.parametrize(("padding", "level"), [("black", 0), ("white", 255), ("transparent", 0)])
def test_outside_of_the_picture_is_what_was_asked_for(padding: Padding, level: int) -> None:
    assert (warp(WAVES, OUTSIDE, 30, 20, padding) == level).all()


def test_an_edge_that_is_repeated_is_that_of_the_picture() -> None:
    found = warp(WAVES, OUTSIDE, 1, 20, "edge")
    expected = sampled(WAVES, OUTSIDE.apply, 1, 20, 4, mode="nearest")
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("padding", "alpha"), [("black", 255), ("white", 255), ("transparent", 0)])
def test_only_transparent_surroundings_have_no_alpha(padding: Padding, alpha: int) -> None:
    opaque = np.dstack([WAVES, np.full_like(WAVES[..., 0], 255)])
    assert (warp(opaque, OUTSIDE, 8, 8, padding)[..., 3] == alpha).all()
    assert (warp(opaque, affine([0.5, 0, 0], [0, 0.5, 0]), 8, 8, padding)[..., 3] == 255).all()


HOSTILE: dict[str, SamplingMap] = {
    "a point": affine([0.0, 0.0, 0.2], [0.0, 0.0, 0.1]),
    "a line": affine([0.4, 0.8, 0.0], [0.2, 0.4, 0.0]),
    "vast": affine([1e30, 0.0, 0.0], [0.0, -1e30, 1e38]),
    "far away": affine([1.0, 0.0, 1e20], [0.0, 1.0, -1e20]),
    "of a million pictures": affine([1e3, 0.0, 0.0], [0.0, 1e3, 0.0]),
    "no numbers": SamplingMap(lambda points: points * np.nan),
    "endless": SamplingMap(lambda points: points * np.inf),
    "endless and not smooth": SamplingMap(lambda points: points * np.inf, None, is_smooth=False),
    "a horizon": SamplingMap(lambda points: points / np.maximum(points[:, :1], 1e-300), None, is_smooth=False),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("padding", ["black", "edge"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_map_that_makes_no_sense_gives_a_picture_all_the_same(name: str, padding: Padding) -> None:
    assert warp(WAVES, HOSTILE[name], 60, 40, padding).shape == (40, 60, 3)
    assert warp(WAVES[:1, :1], HOSTILE[name], 3, 2, padding).shape == (2, 3, 3)


@pytest.mark.parametrize("shape", [(1, 40_000), (40_000, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_any_shape_are_sampled(shape: tuple[int, int], channels: int) -> None:
    flat = np.full((*shape, channels), 90, np.uint8)
    found = warp(flat, affine([0.9, 0.0, 0.0], [0.0, 0.9, 0.0]), 50, 40, "edge")
    assert found.shape == (40, 50, channels)
    assert (found == 90).all()
