from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.runs import Run
from training.visualise import draw_run, quadrilaterals


def test_the_identity_outlines_the_whole_picture() -> None:
    outline = quadrilaterals(torch.eye(2, 3)[None], height=42, width=60)
    np.testing.assert_allclose(outline, [[[0, 0], [60, 0], [60, 42], [0, 42]]])


def test_a_known_theta_outlines_the_region_it_reads() -> None:
    theta = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, -0.5]]])
    outline = quadrilaterals(theta, height=40, width=40)
    np.testing.assert_allclose(outline, [[[15, 0], [35, 0], [35, 20], [15, 20]]])


def test_a_quarter_turn_starts_at_the_corner_that_becomes_top_left() -> None:
    theta = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(quadrilaterals(theta, 10, 10)[0, 0], [10, 0])


def test_a_run_gets_its_pictures(trained_run: Run, data_root: Path) -> None:
    files = draw_run(trained_run, data_root)
    assert {file.name for file in files} == {"rectified.png", "curves.png", "confusion.png"}
    for file in files:
        with Image.open(file) as picture:
            assert picture.width > 300
            assert picture.convert("L").getextrema() != (255, 255)
