"""Boxes become whole pixels of the picture, and each crop is what a picture of its own would be."""

import numpy as np
import pytest

from export.format.artifact import ImageInput
from imaging.crops import Box, Crop, find_crops
from imaging.decoding import open_image
from imaging.errors import ImageTooLargeError, RegionOutsideError
from imaging.preprocessing import preprocess, preprocess_crops
from tests.service.pictures import MANIFEST, drawing, encode

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
    cut = preprocess(open_image(encode(whole.source[20:50, 10:70])), INPUT)
    np.testing.assert_array_equal(first.pixels, cut.pixels)
    np.testing.assert_array_equal(second.pixels, whole.pixels)
    assert (first.width, first.height, first.crop) == (90, 60, Crop(10, 20, 70, 50))
    assert first.source is second.source
    np.testing.assert_array_equal(first.source, whole.source)
