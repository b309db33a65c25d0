import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from export.format.artifact import ImageInput
from imaging.decoding import open_image
from imaging.encoding import encode
from imaging.errors import DamagedImageError, ImageTooLargeError, UnknownFormatError, UnsupportedImageError
from imaging.preprocessing import Picture, preprocess

GREY = ImageInput(name="image", height=4, width=4, channels=1, resize="bilinear", background=(0,))
COLOUR = ImageInput(name="image", height=4, width=4, channels=3, resize="bilinear", background=(10, 20, 30))
RAMP = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)


def saved(image: Image.Image, picture_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, picture_format, **options)
    return content.getvalue()


def read(data: bytes, model_input: ImageInput = GREY) -> Picture:
    return preprocess(open_image(data, max_pixels=10_000), model_input)


def test_a_grey_picture_of_the_right_size_is_taken_as_it_is() -> None:
    picture = read(saved(Image.fromarray(RAMP), "PNG"))
    np.testing.assert_array_equal(picture.pixels[..., 0], RAMP)
    assert (picture.width, picture.height) == (4, 4)


@pytest.mark.parametrize("picture_format", ["PNG", "TIFF"])
def test_16_bit_levels_become_the_nearest_8_bit_ones(picture_format: str) -> None:
    wide = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(read(saved(Image.fromarray(wide), picture_format)).pixels[..., 0], RAMP)


def test_1_bit_pictures_are_black_and_white() -> None:
    picture = read(saved(Image.fromarray(RAMP > 100), "PNG"))
    np.testing.assert_array_equal(picture.pixels[..., 0], (RAMP > 100) * np.uint8(255))


def test_transparent_pixels_show_the_models_background() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    image.putpixel((0, 0), (200, 100, 50, 255))
    pixels = read(saved(image, "PNG"), COLOUR).pixels
    np.testing.assert_array_equal(pixels[0, 0], (200, 100, 50))
    np.testing.assert_array_equal(pixels[3, 3], (10, 20, 30))


def test_a_grey_model_reads_colour_by_its_luma() -> None:
    picture = read(saved(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG"))
    assert set(picture.pixels.ravel().tolist()) == {76}  # 0.299 of 255, ITU-R 601


def test_a_colour_model_reads_grey_as_three_equal_channels() -> None:
    pixels = read(saved(Image.fromarray(RAMP), "PNG"), COLOUR).pixels
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], RAMP)


def test_exif_orientation_is_applied_and_the_size_is_the_upright_one() -> None:
    image = Image.fromarray(np.repeat(np.repeat(RAMP, 20, 0), 10, 1))  # 40 wide, 80 high
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left: viewers turn it back to the right
    picture = read(saved(image, "JPEG", exif=exif, quality=100))
    assert (picture.width, picture.height) == (80, 40)
    upright = Image.fromarray(np.rot90(np.asarray(image), -1)).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(picture.pixels[..., 0], np.asarray(upright), atol=3)


def test_larger_pictures_are_averaged_down() -> None:
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    picture = read(saved(Image.fromarray(checkers), "PNG"))
    assert (picture.width, picture.height) == (64, 64)
    assert np.abs(picture.pixels.astype(int) - 127).max() <= 8


def test_pixels_are_counted_before_decoding() -> None:
    data = saved(Image.new("1", (200, 51)), "PNG")
    with pytest.raises(ImageTooLargeError, match="200 x 51"):
        open_image(data, max_pixels=10_000)


@pytest.mark.parametrize(("dtype", "value"), [(np.int32, 70_000), (np.int32, -1), (np.int32, 100), (np.float32, 0.5)])
def test_depths_without_an_agreed_white_are_refused(dtype: type, value: float) -> None:
    data = saved(Image.fromarray(np.full((4, 4), value, dtype)), "TIFF")
    with pytest.raises(UnsupportedImageError, match="8-bit grey"):
        read(data)


def test_another_kind_of_file_is_told_from_a_damaged_one() -> None:
    with pytest.raises(UnsupportedImageError, match="PDF"):
        open_image(b"%PDF-1.7", 100)
    with pytest.raises(UnknownFormatError):
        open_image(b"garbage", 100)
    with pytest.raises(DamagedImageError, match="empty"):
        open_image(b"", 100)


def test_png_gives_the_rectified_pixels_back_exactly() -> None:
    for pixels in (RAMP[..., None], np.stack([RAMP] * 3, axis=-1)):
        with Image.open(io.BytesIO(encode(pixels, "png"))) as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_jpeg_gives_the_rectified_pixels_back_nearly() -> None:
    pixels = np.repeat(np.repeat(RAMP, 8, 0), 8, 1)[..., None]
    with Image.open(io.BytesIO(encode(pixels, "jpeg"))) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - pixels[..., 0]).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("model_input", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_turned_jpeg_has_the_pixels_that_pillow_gives(mode: str, orientation: int, model_input: ImageInput) -> None:
    levels = np.random.default_rng(orientation).integers(0, 256, (13, 22, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(levels).convert(mode), "JPEG", exif=exif, quality=90)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    kept = preprocess(open_image(data, max_pixels=10_000), model_input, keep=True)
    assert kept.source is not None
    assert kept.is_opaque
    channels = len(expected.getbands())
    np.testing.assert_array_equal(kept.source[..., :channels].squeeze(), np.asarray(expected))
    assert (kept.source[..., channels:] == 255).all()
    small = expected.convert("L" if model_input is GREY else "RGB").resize((4, 4), Image.Resampling.BILINEAR)
    for picture in (kept, read(data, model_input)):
        np.testing.assert_array_equal(picture.pixels.squeeze(), np.asarray(small))
        assert (picture.width, picture.height) == expected.size


def test_a_photograph_is_reduced_first_and_differs_from_one_filter_by_hardly_a_level() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(levels).resize((1280, 960), Image.Resampling.BICUBIC)
    spec = COLOUR.model_copy(update={"height": 48, "width": 48})
    found = preprocess(open_image(saved(image, "PNG")), spec).pixels.astype(int)
    gap = np.abs(found - np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR)))
    assert gap.max() <= 2
    assert 0 < gap.mean() < 0.25
