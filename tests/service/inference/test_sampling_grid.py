"""Sample points lie where the rectified image was taken from, for every kind of transformer."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs
from export.parity import trained
from imaging.crops import Crop
from imaging.warping import SamplingMap
from service.inference.outputs import read
from service.inference.sampling_grid import BEYOND, apply_tps, project, regular_grid, sample_points, spline, within
from tests.conftest import Service
from tests.export.test_kinds import COMPOSITIONS, composed, interface, pictures, served
from tests.networks import small
from tests.service.pictures import ARTIFACT, DIGITS, encode
from training.recipes.recipe import Recipe


def test_a_lattice_runs_row_by_row_from_edge_to_edge() -> None:
    assert regular_grid(3).tolist() == [[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)]


def test_a_spline_takes_its_control_points_to_their_targets() -> None:
    targets = regular_grid(4) * 0.5 + np.random.default_rng(0).normal(scale=0.1, size=(16, 2))
    assert spline(4).shape == (19, 16)
    np.testing.assert_allclose(apply_tps(targets, regular_grid(4)), targets, atol=1e-12)


def test_what_a_projective_map_cannot_see_is_sent_far_away() -> None:
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]])
    assert project(homography, np.array([[0.0, 0.5], [-1.0, 0.0]])).tolist() == [[0.0, 0.5], [10.0, 10.0]]


def composition(name: str) -> Recipe:
    """Of `COMPOSITIONS`, or splines that start side by side."""
    return small(transformer="tps", parallel=2, steps=2, tile=0.6) if name == "tps in tiles" else composed(name)


@pytest.mark.parametrize("name", [*COMPOSITIONS, "tps in tiles"])
def test_points_are_those_that_the_network_sampled(name: str) -> None:
    recipe = composition(name)
    network, stated, images = served(recipe), interface(recipe), pictures(recipe, count=2)
    outputs = trained(network, tuple(stated.outputs))(images)
    manifest = manifest_of(recipe, outputs)
    with torch.no_grad():
        warps = network.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).warps
    for row, output in enumerate(read(outputs, manifest)):
        for index, warp in enumerate(warps):
            expected = warp.map(torch.from_numpy(regular_grid(7)).float()[None])[row].numpy()
            found = sample_points(output, manifest, index, 7) * 2 - 1
            near = np.abs(expected).max(axis=1) < 5  # not those beyond a horizon
            np.testing.assert_allclose(found[near], expected[near], atol=2e-3)


def manifest_of(recipe: Recipe, outputs: Outputs) -> Manifest:
    """The bundled manifest with the transformers of ``recipe``."""
    stated = interface(recipe)
    change = {"transforms": stated.transforms, "input": stated.input, "outputs": tuple(outputs)}
    return ARTIFACT.manifest.model_copy(update=change)


def test_points_are_answered_when_they_are_asked_for(server: Service) -> None:
    picture = encode(DIGITS[0])
    plain = server.client.post("/predict", content=picture).json()
    asked = server.client.post("/predict", content=picture, params={"points": 3}).json()
    assert "points" not in plain
    points: NDArray[np.float64] = np.array(asked["points"])
    assert points.shape == (9, 2)
    np.testing.assert_allclose(points[[0, 2, 8, 6]], asked["corners"], atol=1e-4)
    np.testing.assert_allclose(points[4], np.mean(asked["corners"], axis=0), atol=1e-4)


@pytest.mark.parametrize("points", [-1, 65, "many"])
def test_wrong_counts_of_points_are_refused(server: Service, points: object) -> None:
    answer = server.client.post("/predict", content=encode(DIGITS[0]), params={"points": str(points)})
    assert answer.status_code == 422
    assert "points" in answer.json()["error"]["message"]


def test_points_beyond_the_horizon_stay_outside_of_the_picture_of_which_a_small_part_was_shown() -> None:
    def apply(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(points[:, :1] > 0, [BEYOND, BEYOND], points)

    small = Crop(100, 50, 102, 51).to_picture(2000, 1000)
    found = within(SamplingMap(apply, None, is_smooth=False), small)
    inside, hidden = found.apply(np.array([[-1.0, 0.0], [0.5, 0.0]]))
    np.testing.assert_allclose((inside + 1) / 2 * (2000, 1000), (100, 50.5))
    assert np.abs(hidden).min() > 5
