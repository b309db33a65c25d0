"""Draws a prediction: the picture with the sampled regions, the rectified images and the classes."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from service.schemas.answers import Prediction, RectifiedImage, TransformResult

SIDE = 360
"""Largest width and height of each picture, in pixels."""
GAP = 16
LINE = 30
FONT_SIZE = 16
BAR = 120
OUTSIDE = 0.5
"""Largest margin around a picture, as a share of its width and height, for regions outside of it."""
PAPER, INK, FAINT = "#ffffff", "#202020", "#d0d0d0"
COLOURS = ("#ff8c00", "#32cd32", "#ff00ff", "#ffd700")
"""Colours of the transformers in order."""
TOP = "#00bfff"
"""Colour of the upper edge of the rectified image."""
Corners = Sequence[Sequence[float]]


def draw(picture: bytes, answer: Prediction) -> Image.Image:
    """Draw ``picture`` with a quadrilateral for each transformer, the rectified images and a bar for each class.

    A thin-plate spline is shown by its corners, joined by straight lines.

    Raises:
        OSError: Pillow cannot read ``picture``.
    """
    transforms: Sequence[Prediction | TransformResult] = answer.transforms or [answer]
    panels = [draw_regions(picture, [transform.corners for transform in transforms])]
    for index, transform in enumerate(transforms):
        if transform.rectified:
            panels.append(draw_rectified(transform.rectified, COLOURS[index % len(COLOURS)]))
    panels.append(draw_classes(answer))
    width = sum(panel.width + GAP for panel in panels) + GAP
    sheet = Image.new("RGB", (width, max(panel.height for panel in panels) + 2 * GAP), PAPER)
    x = GAP
    for panel in panels:
        sheet.paste(panel, (x, GAP))
        x += panel.width + GAP
    return sheet


def draw_regions(picture: bytes, regions: Sequence[Corners]) -> Image.Image:
    """Draw the picture, upright and scaled, with a quadrilateral for each of ``regions``."""
    with Image.open(io.BytesIO(picture)) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    left, top, right, bottom = view(image.width, image.height, regions)
    scale = SIDE / max(right - left, bottom - top)
    panel = Image.new("RGB", (round((right - left) * scale), round((bottom - top) * scale)), FAINT)
    panel.paste(enlarge(image, scale), (round(-left * scale), round(-top * scale)))
    pen = ImageDraw.Draw(panel)
    for index, corners in enumerate(regions):
        points = [((x - left) * scale, (y - top) * scale) for x, y in corners]
        pen.line([*points[1:], points[0]], COLOURS[index % len(COLOURS)], width=3, joint="curve")
        pen.line(points[:2], TOP, width=3)
    return panel


def view(width: int, height: int, regions: Sequence[Corners]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the view: the picture and, within bounds, the regions."""
    xs = [x for corners in regions for x, _ in corners]
    ys = [y for corners in regions for _, y in corners]
    return (
        max(min(0, *xs), -OUTSIDE * width),
        max(min(0, *ys), -OUTSIDE * height),
        min(max(width, *xs), (1 + OUTSIDE) * width),
        min(max(height, *ys), (1 + OUTSIDE) * height),
    )


def draw_rectified(file: RectifiedImage, colour: str) -> Image.Image:
    """Draw a rectified image, scaled, in a frame with a blue upper edge."""
    with Image.open(io.BytesIO(file.content())) as image:
        panel = enlarge(image.convert("RGB"), SIDE / 2 / max(image.size))
    pen = ImageDraw.Draw(panel)
    pen.rectangle((0, 0, panel.width - 1, panel.height - 1), outline=colour, width=3)
    pen.line((0, 1, panel.width, 1), TOP, width=3)
    return panel


def enlarge(image: Image.Image, scale: float) -> Image.Image:
    """Scale a picture: small ones with visible pixels, large ones smoothly."""
    size = (max(1, math.ceil(image.width * scale)), max(1, math.ceil(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def draw_classes(answer: Prediction) -> Image.Image:
    """Draw a bar for the probability of each class, and the name of the model below."""
    font = ImageFont.load_default(FONT_SIZE)
    labels = [prediction.label for prediction in answer.predictions]
    name = max(math.ceil(font.getlength(label)) for label in labels)
    percent = math.ceil(font.getlength("100.0 %"))
    panel = Image.new("RGB", (name + BAR + percent + 2 * GAP, LINE * (len(labels) + 1)), PAPER)
    pen = ImageDraw.Draw(panel)
    for row, prediction in enumerate(answer.predictions):
        y, x = row * LINE, name + GAP
        pen.text((0, y + LINE / 2), prediction.label, INK, font, anchor="lm")
        pen.rectangle((x, y + 7, x + BAR, y + LINE - 7), FAINT)
        pen.rectangle((x, y + 7, x + BAR * prediction.probability, y + LINE - 7), COLOURS[0])
        pen.text((x + BAR + GAP, y + LINE / 2), f"{prediction.probability:.1%}", INK, font, anchor="lm")
    below = f"{answer.model.name}/{answer.model.version}, {answer.timings_ms.total:.1f} ms"
    pen.text((0, panel.height - LINE / 2), below, INK, font, anchor="lm")
    return panel
