from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.artifact import ImageInput
from service.images import Upload, open_picture, prepare
from training.errors import DataError
from training.pictures import damage, read_picture, read_pictures, shape


def gradient(width: int = 30, height: int = 20) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)


def test_pictures_come_in_order_and_in_the_size_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / f"{level}.png" for level in (10, 200, 90)]
    for file in files:
        Image.new("L", (7, 5), int(file.stem)).save(file)
    images = read_pictures(files, (4, 6), channels=1)
    assert images.shape == (3, 1, 4, 6)
    assert images[:, 0, 0, 0].tolist() == [10, 200, 90]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_trained_on_as_the_service_will_see_it(tmp_path: Path, mode: str, channels: int) -> None:
    if mode == "I;16":
        picture = Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(gradient()).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(gradient()[..., 1]))
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(file)
    model_input = ImageInput.model_validate(
        {
            "name": "image",
            "height": 12,
            "width": 14,
            "channels": channels,
            "resize": "bilinear",
            "background": (0,) * channels,
        }
    )
    served = prepare(open_picture(Upload(file.read_bytes(), None), 10_000), model_input).pixels
    trained = read_picture(file, (12, 14), channels).transpose(1, 2, 0)
    assert np.abs(trained.astype(int) - served.astype(int)).max() <= (3 if mode in ("RGBA", "LA") else 1)


def test_a_picture_of_floating_point_pixels_is_refused_as_the_service_does(tmp_path: Path) -> None:
    Image.fromarray(gradient()[..., 0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="no agreed white"):
        read_picture(tmp_path / "a.tiff", (4, 4), channels=1)


def test_a_sideways_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert shape(tmp_path / "a.jpg")[:2] == (20, 30)
    upright = read_picture(tmp_path / "a.jpg", (30, 20), channels=3).transpose(1, 2, 0)
    assert np.abs(upright.astype(int) - np.rot90(gradient(), -1).astype(int)).max() <= 4


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", (4, 4), channels=3).max() == 0


@pytest.mark.parametrize(("mode", "coloured"), [("RGB", True), ("P", True), ("L", False), ("1", False)])
def test_the_header_tells_grey_from_colour(tmp_path: Path, mode: str, coloured: bool) -> None:
    Image.fromarray(gradient()).convert(mode).save(tmp_path / "a.png")
    assert shape(tmp_path / "a.png") == (30, 20, coloured)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert set(damage([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])) == {
        tmp_path / "a.png",
        tmp_path / "c.png",
    }
    for read in (shape, lambda file: read_picture(file, (4, 4), channels=3)):
        with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
            read(tmp_path / "a.png")
