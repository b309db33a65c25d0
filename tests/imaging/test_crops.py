"""Boxes become whole pixels of the picture, and each crop is what a picture of its own would be."""

import numpy as np
import pytest
from PIL import Image

from export.format.artifact import ImageInput
from imaging.crops import Box, Crop, Shown, find_crops
from imaging.decoding import open_image
from imaging.errors import ImageTooLargeError, RegionOutsideError
from imaging.preprocessing import preprocess, preprocess_crops
from tests.service.pictures import MANIFEST, drawing, encode, save

INPUT: ImageInput = MANIFEST.input
MOST = 10**6


@pytest.mark.parametrize(
    ("box", "crop"),
    [
        ((2, 3, 7, 9), (2, 3, 7, 9)),
        ((2.9, 3.1, 6.1, 8.0001), (2, 3, 7, 9)),
        ((-50, -0.5, 4, 4), (0, 0, 4, 4)),
        ((36, 26.5, 1e6, 999), (36, 26, 40, 30)),
        ((4.2, 4.2, 4.3, 4.3), (4, 4, 5, 5)),
    ],
)
def test_a_box_covers_the_pixels_of_the_picture_that_it_touches(box: Box, crop: tuple[int, ...]) -> None:
    assert find_crops([box], 40, 30, MOST) == [Crop(*crop)]


@pytest.mark.parametrize("box", [(40, 0, 50, 10), (0, 30, 10, 31), (-9, -9, 0, 0), (100, 100, 200, 200)])
def test_a_box_outside_of_the_picture_is_named_with_the_size_of_the_picture(box: Box) -> None:
    with pytest.raises(RegionOutsideError, match=r"region 2 lies outside of the picture, which has 40 x 30 pixels; "):
        find_crops([(0, 0, 1, 1), box], 40, 30, MOST)


def test_all_boxes_together_have_a_limit() -> None:
    assert len(find_crops([(0, 0, 40, 30)] * 10, 40, 30, 12_000)) == 10
    with pytest.raises(ImageTooLargeError, match="12001 pixels together, more than 12000"):
        find_crops([*[(0.0, 0.0, 40.0, 30.0)] * 10, (0, 0, 1, 1)], 40, 30, 12_000)


def test_the_corners_of_a_crop_lie_where_they_are_in_the_picture() -> None:
    crop = Crop(10, 6, 30, 21)
    corners = np.array([[-1, -1, 1], [1, 1, 1]]) @ crop.to_picture(40, 30).T
    np.testing.assert_allclose((corners[:, :2] + 1) / 2 * (40, 30), [[10, 6], [30, 21]])


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "TIFF"])
def test_a_crop_is_what_the_cut_out_picture_is(picture_format: str) -> None:
    pixels = drawing(90, 60)
    opened = open_image(encode(pixels, picture_format))
    first, second = preprocess_crops(opened, INPUT, [(10, 20, 70, 50), (0, 0, 90, 60)], MOST, keep=True)
    whole = preprocess(opened, INPUT, keep=True)
    assert whole.source is not None
    cut = preprocess(open_image(encode(whole.source[20:50, 10:70, :3])), INPUT)
    np.testing.assert_array_equal(first.pixels, cut.pixels)
    np.testing.assert_array_equal(second.pixels, whole.pixels)
    assert (first.width, first.height, first.crop) == (90, 60, Crop(10, 20, 70, 50))
    assert first.source is second.source
    np.testing.assert_array_equal(first.source, whole.source)


@pytest.mark.parametrize("turn", [0, 90, -90, 180, 30, -145.5])
def test_what_is_shown_is_turned_about_the_centre_of_the_crop_and_keeps_its_scale(turn: float) -> None:
    shown = Shown(Crop(10, 6, 30, 18), turn)
    to_pixels = np.array([[20, 0, 20], [0, 15, 15], [0, 0, 1]])
    frame = np.diag([2 / shown.width, 2 / shown.height, 1])
    found = to_pixels @ shown.to_picture(40, 30) @ frame  # from pixels of the frame about its centre
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    np.testing.assert_allclose(found, [[cosine, -sine, 20], [sine, cosine, 12], [0, 0, 1]], atol=1e-9)
    assert shown.width * shown.height == pytest.approx(20 * 12)


@pytest.mark.parametrize(("turn", "size"), [(0, (20, 12)), (180, (20, 12)), (90, (12, 20)), (-90, (12, 20))])
def test_quarter_turns_show_the_whole_crop(turn: float, size: tuple[float, float]) -> None:
    shown = Shown(Crop(10, 6, 30, 18), turn)
    assert (shown.width, shown.height) == pytest.approx(size)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_that_is_turned_back_is_the_upright_one(mode: str) -> None:
    upright = Image.fromarray(drawing(90, 60)).convert(mode)
    lying = save(upright.transpose(Image.Transpose.ROTATE_270), "PNG")  # a quarter clockwise
    (found,) = preprocess_crops(open_image(lying), INPUT, [], MOST, turn=90)
    expected = preprocess(open_image(save(upright, "PNG")), INPUT)
    assert (found.width, found.height, found.crop, found.turn) == (60, 90, None, 90)
    assert np.abs(found.pixels.astype(int) - expected.pixels).mean() < 3
    (other,) = preprocess_crops(open_image(lying), INPUT, [], MOST, turn=-90)
    assert np.abs(other.pixels.astype(int) - expected.pixels).mean() > 20
