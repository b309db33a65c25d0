import io

import numpy as np
import pytest
from PIL import Image

from imaging.encoding import encode_png


@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 1), (5, 7, 3), (64, 64, 1), (65, 63, 3), (224, 224, 3)])
def test_pngs_of_every_size_give_their_pixels_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)
