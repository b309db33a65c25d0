import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.format.artifact import ImageInput
from imaging.limits.limits import Limits
from service.inference.preprocessing import Upload, examine_picture, preprocess
from tests.imaging.limits import attacks
from tests.service.broken import ODD
from tests.service.inference.test_picture_modes import KINDS
from training.data.pictures import damage, read_picture, read_pictures, shape
from training.errors import DataError
from training.recipes.recipe import Size


def gradient(width: int = 30, height: int = 20) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)


def exif_data(orientation: int, *broken: tuple[int, bytes]) -> bytes:
    """An orientation, and entries of which each is text of four bytes where a number belongs."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)] if orientation else []
    entries += [struct.pack("<HHI4s", tag, 2, 4, text) for tag, text in broken]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def served(file: Path, size: Size, channels: int) -> NDArray[np.uint8]:
    """``(H, W, C)`` as the service reads ``file``."""
    fields = {"name": "image", "height": size[0], "width": size[1], "channels": channels, "resize": "bilinear"}
    model_input = ImageInput.model_validate(fields | {"background": (0,) * channels})
    return preprocess(examine_picture(Upload(file.read_bytes(), None), Limits()), model_input).pixels


def test_pictures_come_in_order_and_in_the_size_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / f"{level}.png" for level in (10, 200, 90)]
    for file in files:
        Image.new("L", (7, 5), int(file.stem)).save(file)
    images = read_pictures(files, (4, 6), channels=1)
    assert images.shape == (3, 1, 4, 6)
    assert images[:, 0, 0, 0].tolist() == [10, 200, 90]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "GIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_trained_on_as_the_service_will_see_it(tmp_path: Path, mode: str, channels: int) -> None:
    if mode == "I;16":
        picture = Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(gradient()).convert("P" if mode == "GIF" else mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(gradient()[..., 1]))
    file = tmp_path / {"CMYK": "a.jpg", "GIF": "a.gif"}.get(mode, "a.png")
    picture.save(file)
    trained = read_picture(file, (12, 14), channels).transpose(1, 2, 0)
    assert np.abs(trained.astype(int) - served(file, (12, 14), channels)).max() <= (3 if mode in ("RGBA", "LA") else 1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_that_the_service_takes_is_trained_on(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(KINDS[kind])
    trained = read_picture(file, (12, 14), channels=3).transpose(1, 2, 0)
    np.testing.assert_array_equal(trained, served(file, (12, 14), 3))


def test_a_picture_with_a_bad_checksum_in_its_text_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(ODD["PNG with a bad checksum of its text"])
    assert damage([tmp_path / "a.png"]) == {}


def test_a_picture_of_floating_point_pixels_is_refused_as_the_service_does(tmp_path: Path) -> None:
    Image.fromarray(gradient()[..., 0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="floating-point numbers"):
        read_picture(tmp_path / "a.tiff", (4, 4), channels=1)


def test_a_sideways_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert shape(tmp_path / "a.jpg")[:2] == (20, 30)
    upright = read_picture(tmp_path / "a.jpg", (30, 20), channels=3).transpose(1, 2, 0)
    assert np.abs(upright.astype(int) - np.rot90(gradient(), -1).astype(int)).max() <= 4


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        (exif_data(0, (0x0112, b"six\0")), False),  # the orientation is no number
        (exif_data(6, (0x011B, b"dpi\0")), True),  # only the resolution is none
        (b"Exif\0\0II*\0\x08\0", False),  # cut short
    ],
)
def test_damaged_exif_data_turns_a_picture_no_more_than_in_the_service(
    tmp_path: Path, data: bytes, turned: bool
) -> None:
    file = tmp_path / "a.jpg"
    Image.fromarray(gradient()).save(file, exif=data)
    assert shape(file)[:2] == ((20, 30) if turned else (30, 20))
    size = shape(file).height, shape(file).width
    trained = read_picture(file, size, channels=3).transpose(1, 2, 0)
    assert np.abs(trained.astype(int) - served(file, size, 3)).max() <= 1


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
        with pytest.raises(DataError, match=r"c\.png does not exist; .*--data-root"):
            read(tmp_path / "c.png")


def test_whatever_pillow_stumbles_over_is_told_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise TypeError("bad operand")

    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", stumble)
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture \(.*bad operand.*\)"):
        read_picture(tmp_path / "a.png", (4, 4), channels=3)


def test_a_file_that_would_cost_too_much_is_named_and_not_decoded(tmp_path: Path) -> None:
    bombs = {
        "tile.tif": attacks.tiff((16, 16), attacks.zeros(2**22), tile=(46_000, 46_000)),
        "scans.jpg": attacks.progressive(7000, 7000, 500),
        "large.png": attacks.png(300_000, 1000, depth=1),
        "runs.bmp": attacks.bmp(50_000, 1000, compression=2),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read as a picture .*; repair or remove it"):
            read_picture(tmp_path / name, (4, 4), channels=1)
        with pytest.raises(DataError, match=name):
            shape(tmp_path / name)
    files = [tmp_path / name for name in bombs]
    assert damage(files).keys() == set(files)
