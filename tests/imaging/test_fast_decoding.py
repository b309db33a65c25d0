"""The quick decoders give the very pixels that Pillow gives, or leave the picture to it."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from imaging.fast_decoding import decode_plain, open_plain
from tests.service.broken import DAMAGED, ODD, WHOLE
from tests.service.inference.test_picture_modes import KINDS

PLAIN = {"PNG grey", "PNG RGB", "JPEG grey", "JPEG RGB", "JPEG progressive", "of the model's size"}
SMALL = sorted(name for name, content in KINDS.items() if len(content) < 10_000)


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_pictures_are_known_as_such(name: str) -> None:
    assert open_plain(KINDS[name]) is not None


@pytest.mark.parametrize("name", [name for name in KINDS if any(word in name for word in ("alpha", "RGBA", "transp"))])
def test_transparent_pictures_are_left_to_pillow(name: str) -> None:
    assert open_plain(KINDS[name]) is None


def test_turned_pictures_are_left_to_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture_format in ("PNG", "JPEG"):
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, picture_format, exif=exif.tobytes())
        assert open_plain(content.getvalue()) is None


def same_as_pillow(content: bytes) -> bool | None:
    """None if the picture is left to Pillow, or Pillow finds something wrong with it."""
    plain = open_plain(content)
    if plain is None or plain.width * plain.height > 10**6:
        return None
    pixels = decode_plain(plain)
    if pixels is None:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=[plain.format]) as image:
            return np.array_equal(pixels, np.asarray(image))
    except OSError:
        return None


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_has_pillows_pixels(name: str) -> None:
    assert same_as_pillow(KINDS[name]) is not False


@pytest.mark.parametrize("content", [*DAMAGED.values(), *ODD.values()], ids=[*DAMAGED, *ODD])
def test_damaged_and_odd_pictures_have_pillows_pixels_or_none(content: bytes) -> None:
    assert same_as_pillow(content) is not False


def test_mutated_pictures_have_pillows_pixels_or_none() -> None:
    chance, compared = random.Random(0), 0
    for _ in range(4000):
        content = bytearray(chance.choice([*WHOLE.values(), *(KINDS[name] for name in PLAIN)]))
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] ^= chance.randint(1, 255)
        found = same_as_pillow(bytes(content))
        assert found is not False
        compared += found is True
    assert compared > 100, "or this test compared nothing"
