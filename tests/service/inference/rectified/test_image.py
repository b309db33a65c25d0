"""Rectified images show what the network sampled, at any size, for every kind of transformer."""

import io
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from export.parity import trained
from imaging.warping import Padding
from service.inference.outputs import ModelOutput, angle, corners, read, regions
from service.inference.rectified.image import image_size, rectify, sample
from service.inference.rectified.options import MAX_SIDE, RectifiedOptions, read_size
from service.inference.sampling_grid import sampling_map
from tests.export.test_kinds import COMPOSITIONS, interface, pictures, served
from tests.service.inference.test_sampling_grid import composition, manifest_of

TOLERANCE = 2
"""Grey levels."""
HEIGHT, WIDTH = 210, 320
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
PHOTOGRAPH: NDArray[np.uint8] = np.stack(
    [127 + 90 * np.sin(COLUMNS / 17 + ROWS / 23), 127 + 90 * np.cos(ROWS / 15), COLUMNS / WIDTH * 255], axis=-1
).astype(np.uint8)


def levels(content: bytes) -> NDArray[np.uint8]:
    """The pixels of a file ``(H, W, C)``."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("frame", [1.0, 1.4])
@pytest.mark.parametrize("name", [*COMPOSITIONS, "tps in tiles"])
def test_a_photograph_is_sampled_through_the_whole_map_of_the_network(name: str, frame: float) -> None:
    recipe = composition(name)
    network, stated, images = served(recipe), interface(recipe), pictures(recipe, count=1)
    outputs = trained(network, tuple(stated.outputs))(images)
    manifest = manifest_of(recipe, outputs)
    with torch.no_grad():
        warps = network.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).warps
    (output,) = read(outputs, manifest)
    width, height = 410, 260
    x, y = (np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1
    points = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2) * frame).float()
    for index, warp in enumerate(warps):
        places = warp.map(points)[0].numpy().reshape(height, width, 2)
        column, row = np.moveaxis((places + 1) / 2 * (WIDTH, HEIGHT) - 0.5, 2, 0)
        expected = [map_coordinates(PHOTOGRAPH[..., c].astype(float), [row, column], order=1) for c in range(3)]
        inside = (column > 4) & (column < WIDTH - 5) & (row > 4) & (row < HEIGHT - 5)
        sampling = sampling_map(output, manifest, index, frame)
        found = sample(PHOTOGRAPH, sampling, (width, height), "black", "png")
        assert inside.mean() > 0.05
        assert np.abs(found - np.stack(expected, axis=-1))[inside].max() <= TOLERANCE


def looking(theta: list[list[float]]) -> ModelOutput:
    """What a model with one affine transformer says of the photograph."""
    recipe = composition("affine, border, from a pyramid")
    outputs = trained(served(recipe), tuple(interface(recipe).outputs))(pictures(recipe, count=1))
    manifest = manifest_of(recipe, outputs)
    outputs[manifest.transforms[0].theta] = np.array([theta], dtype=np.float32)
    return read(outputs, manifest)[0]


TURNED = [
    [0.5 * math.cos(0.5), -0.5 * math.sin(0.5) * 210 / 320, 0.1],
    [0.5 * math.sin(0.5) * 320 / 210, 0.5 * math.cos(0.5), -0.1],
]


def test_a_rectified_image_of_the_source_has_as_many_pixels_as_the_region() -> None:
    (region,) = regions(np.array([TURNED], dtype=np.float32)).tolist()
    first, second, _, last = np.array(corners(region, WIDTH, HEIGHT))
    sides = np.hypot(*(second - first)), np.hypot(*(last - first))
    assert image_size(TURNED, WIDTH, HEIGHT, RectifiedOptions(size="source")) == tuple(np.rint(sides))
    wider = image_size(TURNED, WIDTH, HEIGHT, RectifiedOptions(size="source", margin=0.1))
    assert np.abs(np.array(wider) - np.array(sides) * 1.2).max() <= 0.5
    assert image_size(TURNED, WIDTH, HEIGHT, RectifiedOptions(size=(70, 50), margin=0.1)) == (50, 70)


@pytest.mark.parametrize(
    "theta",
    [
        TURNED,
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        [[1e30, 0.0, 0.0], [0.0, 1e-30, 0.0]],
        [[3e38, 3e38, 3e38], [-3e38, 3e38, 3e38]],
        [[40.0, 0.0, 0.0], [0.0, 1e-3, 0.0]],
    ],
)
@pytest.mark.parametrize("most", [1, 7, 1000, 12_000_000])
def test_no_rectified_image_exceeds_the_limit(theta: list[list[float]], most: int) -> None:
    width, height = image_size(theta, 3000, 4000, RectifiedOptions(size="source", max_pixels=most))
    assert 1 <= width <= MAX_SIDE
    assert 1 <= height <= MAX_SIDE
    assert width * height <= most


def test_a_large_region_is_scaled_down_in_proportion() -> None:
    width, height = image_size([[1, 0, 0], [0, 1, 0]], 4000, 3000, RectifiedOptions(size="source", max_pixels=120_000))
    assert (width, height) == (400, 300)


def test_sizes_are_height_and_width() -> None:
    assert [read_size(text) for text in ("model", "source", "600x800")] == ["model", "source", (600, 800)]


@pytest.mark.parametrize(
    ("theta", "degrees"),
    [
        ([[1, 0, 0], [0, 1, 0]], 0),
        ([[0.3, 0, 0], [0, 0.9, 0]], 0),
        (TURNED, math.degrees(0.5)),
        ([[0, -0.5, 0], [0.5, 0, 0]], 90),
        ([[-1, 0, 0], [0, -1, 0]], 180),
        ([[-1, 0, 0], [0, 1, 0]], 0),
        ([[0, 0, 0], [0, 0, 0]], 0),
    ],
    ids=["upright", "stretched", "turned right", "a quarter", "upside down", "mirrored", "a point"],
)
def test_the_angle_is_that_of_the_nearest_rotation_in_pixels(theta: list[list[float]], degrees: float) -> None:
    assert abs(angle(theta, WIDTH, HEIGHT)) == pytest.approx(degrees, abs=1e-6)


GLASS = np.dstack([PHOTOGRAPH, np.tile(np.linspace(0, 255, WIDTH), (HEIGHT, 1)).astype(np.uint8)])
WEIGHTED = np.asarray(Image.fromarray(GLASS).convert("RGBa"))
WHOLE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_transparency_is_kept(file_format: str) -> None:
    output = looking(WHOLE)
    options = RectifiedOptions(file_format, "source")  # type: ignore[arg-type]
    manifest = manifest_of(composition("affine, border, from a pyramid"), output.outputs)
    found = levels(rectify(WEIGHTED, output, manifest, 0, options).content)
    assert np.abs(found[..., 3].astype(int) - GLASS[..., 3]).max() <= 1
    opaque = GLASS[..., 3] > 200
    assert np.abs(found[opaque].astype(int) - GLASS[opaque]).mean() < 2


@pytest.mark.parametrize(("padding", "level"), [("black", 0), ("white", 255), ("edge", 0)])
def test_a_jpeg_shows_transparent_parts_in_the_colour_of_the_surroundings(padding: Padding, level: int) -> None:
    output = looking(WHOLE)
    manifest = manifest_of(composition("affine, border, from a pyramid"), output.outputs)
    found = levels(rectify(WEIGHTED, output, manifest, 0, RectifiedOptions("jpeg", "source", padding)).content)
    share = GLASS[..., 3:] / 255
    assert np.abs(found - (GLASS[..., :3] * share + level * (1 - share))).mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_surroundings_give_an_alpha_channel(channels: int) -> None:
    output = looking([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    manifest = manifest_of(composition("affine, border, from a pyramid"), output.outputs)
    source = PHOTOGRAPH[..., :channels]
    found = levels(rectify(source, output, manifest, 0, RectifiedOptions("png", "source", "transparent")).content)
    assert found.shape == (2 * HEIGHT, 2 * WIDTH, 4)
    inner = found[HEIGHT // 2 + 1 : -HEIGHT // 2 - 1, WIDTH // 2 + 1 : -WIDTH // 2 - 1]
    assert (inner[..., 3] == 255).all()
    assert np.abs(inner[..., :3].astype(int) - source[1:-1, 1:-1]).max() <= 1
    assert (found[: HEIGHT // 2 - 1] == 0).all()


@pytest.mark.parametrize("padding", ["black", "white", "edge", "transparent"])
@pytest.mark.parametrize("file_format", ["png", "jpeg"])
def test_an_opaque_picture_gives_the_same_file_with_and_without_its_alpha(file_format: str, padding: Padding) -> None:
    output = looking([[1.2, 0.3, 0.1], [-0.3, 1.1, 0.0]])
    manifest = manifest_of(composition("affine, border, from a pyramid"), output.outputs)
    options = RectifiedOptions(file_format, "source", padding)  # type: ignore[arg-type]
    spare = np.dstack([PHOTOGRAPH, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    expected = levels(rectify(PHOTOGRAPH, output, manifest, 0, options).content)
    found = levels(rectify(spare, output, manifest, 0, options, is_opaque=True).content)
    assert found.shape == expected.shape
    seen = expected[..., 3] == 255 if expected.shape[2] == 4 else np.ones(expected.shape[:2], bool)
    np.testing.assert_array_equal(found[seen], expected[seen])
    np.testing.assert_allclose(found[..., 3:], expected[..., 3:], atol=1)
