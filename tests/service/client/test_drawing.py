"""Where things stand in a drawing: pixels are asked, as a person would look."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from service.client.drawing import COLOURS, FAINT, GAP, SIDE, TOP, draw, view
from service.schemas.answers import Prediction
from tests.service.client.scripted import PREDICTION
from tests.service.pictures import encode

WHITE = np.full((100, 100), 255, dtype=np.uint8)
SQUARE = [[20.0, 20.0], [80.0, 20.0], [80.0, 80.0], [20.0, 80.0]]


def answer(**changes: object) -> Prediction:
    return Prediction.model_validate(Prediction.model_validate_json(PREDICTION).model_dump() | changes)


def coloured(image: Image.Image, colour: str) -> NDArray[np.bool_]:
    """Where ``image`` has ``colour``: ``(H, W)``."""
    found: NDArray[np.bool_] = (np.asarray(image) == ImageColor.getrgb(colour)).all(axis=2)
    return found


def rectified(pixels: NDArray[np.uint8]) -> dict[str, object]:
    height, width = pixels.shape
    return {"format": "png", "width": width, "height": height, "data": base64.b64encode(encode(pixels)).decode()}


def test_the_quadrilateral_stands_where_the_corners_say() -> None:
    panel = np.s_[GAP : GAP + SIDE, GAP : GAP + SIDE]
    drawing = draw(encode(WHITE), answer(corners=SQUARE))
    edge, top = coloured(drawing, COLOURS[0])[panel], coloured(drawing, TOP)[panel]
    low, high = 0.2 * SIDE, 0.8 * SIDE
    rows, columns = np.nonzero(edge)
    assert (rows.max(), columns.min(), columns.max()) == pytest.approx((high, low, high), abs=2)
    rows, columns = np.nonzero(top)
    assert (rows.min(), rows.max()) == pytest.approx((low, low), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((low, high), abs=2)


def test_a_look_outside_the_picture_is_shown_within_bounds() -> None:
    assert view(100, 50, [SQUARE]) == (0, 0, 100, 75)
    assert view(100, 100, [SQUARE]) == (0, 0, 100, 100)
    assert view(100, 100, [[[-10, 5], [90, -20], [110, 90], [5, 100]]]) == (-10, -20, 110, 100)
    assert view(100, 100, [[[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]]) == (-50, -50, 150, 150)
    assert draw(encode(WHITE), answer(corners=[[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])).height < 1000


def test_outside_of_the_picture_is_grey() -> None:
    drawing = draw(encode(WHITE), answer(corners=[[-50, 0], [50, 0], [50, 100], [-50, 100]]))
    assert drawing.getpixel((GAP + 30, GAP + 100)) == ImageColor.getrgb(FAINT)
    assert drawing.getpixel((GAP + 300, GAP + 100)) == (255, 255, 255)


def test_the_rectified_image_stands_beside_the_picture() -> None:
    half = np.zeros((28, 28), dtype=np.uint8)
    half[14:] = 200
    drawing = draw(encode(WHITE), answer(rectified=rectified(half)))
    x = GAP + SIDE + GAP + SIDE // 4
    assert drawing.getpixel((x, GAP + SIDE // 8)) == (0, 0, 0)
    assert drawing.getpixel((x, GAP + 3 * SIDE // 8)) == (200, 200, 200)


def test_every_transformer_has_its_colour_and_its_rectified_image() -> None:
    one = answer().model_dump()
    looks = [
        {"name": f"look{i}", "kind": "affine", "theta": one["theta"], "parameters": [], "corners": SQUARE}
        | {"rectified": rectified(np.full((20, 20), 100 + i, dtype=np.uint8))}
        for i in range(2)
    ]
    looks[1]["corners"] = [[x / 2, y / 2] for x, y in SQUARE]
    drawing = draw(encode(WHITE), answer(transforms=looks))
    assert coloured(drawing, COLOURS[0])[:, : SIDE + GAP].any()
    assert coloured(drawing, COLOURS[1])[:, : SIDE + GAP].any()
    assert drawing.width == draw(encode(WHITE), answer()).width + 2 * (SIDE // 2 + GAP)


def test_bars_are_as_long_as_classes_are_probable() -> None:
    chances = [{"label": "a", "index": 0, "probability": 0.75}, {"label": "b", "index": 1, "probability": 0.25}]
    drawing = draw(encode(WHITE), answer(predictions=chances, corners=[[0, 0]] * 4))
    bars = coloured(drawing, COLOURS[0])[:, GAP + SIDE + GAP :].sum(axis=1)
    lengths = sorted({int(length) for length in bars if length})
    assert len(lengths) == 2
    assert lengths[1] / lengths[0] == pytest.approx(3, rel=0.05)


def test_a_picture_is_drawn_upright_as_its_orientation_says() -> None:
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # its first row is the right side
    picture = np.zeros((40, 80), dtype=np.uint8)
    picture[:, :40] = 255
    Image.fromarray(picture).save(turned, "PNG", exif=exif)
    drawing = draw(turned.getvalue(), answer(corners=[[0, 0], [40, 0], [40, 80], [0, 80]]))
    assert drawing.getpixel((GAP + 90, GAP + 90)) == (255, 255, 255)
    assert drawing.getpixel((GAP + 90, GAP + 270)) == (0, 0, 0)


def test_a_picture_that_pillow_does_not_read_is_an_os_error() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        draw(b"no picture", answer())
