from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy.gtsrb_sheets import convert
from training.data.published.traffic_signs import CLASSES, FULL_TRAINING_SET, Signs
from training.data.splits import Split
from training.errors import DataError

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
BOX = torch.tensor([[-0.8, -0.5], [0.6, 0.5]])  # of pixels 5 to 39 and 10 to 29 of a picture of 50x40


def colour(label: int, track: int, frame: int) -> tuple[int, int, int]:
    return 50 * label + 20, 40 * track + 10, 30 * frame


def write_files(training: Path, test: Path, table: Path) -> None:
    """The benchmark's own files: two classes, of two tracks of three photographs each; four test pictures."""
    for label in range(2):
        folder = training / f"{label:05d}"
        folder.mkdir(parents=True)
        rows = ""
        for track in range(2):
            for frame in range(3):
                name = f"{track:05d}_{frame:05d}.ppm"
                Image.new("RGB", (50, 40), colour(label, track, frame)).save(folder / name)
                rows += f"{name};50;40;5;10;39;29;{label}\n"
        (folder / f"GT-{label:05d}.csv").write_text(HEADER + rows)
    test.mkdir(parents=True)
    rows = ""
    for number in range(4):
        Image.new("RGB", (50, 40), (number, 2 * number, 3 * number)).save(test / f"{number:05d}.ppm")
        rows += f"{number:05d}.ppm;50;40;5;10;39;29;{number % 2}\n"
    table.write_text(HEADER + rows)


def write_sheets(folder: Path) -> None:
    """The same as sheets of tiles."""
    folder.mkdir()
    columns = "width,height,roi_x1,roi_y1,roi_x2,roi_y2"
    rows = [(label, track, frame) for label in range(2) for track in range(2) for frame in range(3)]
    lines = [f"{i},{label},{track},{frame},50,40,5,10,39,29" for i, (label, track, frame) in enumerate(rows)]
    (folder / "train.csv").write_text(f"index,class_id,track,frame,{columns}\n" + "\n".join(lines) + "\n")
    sheet = np.full((48, 40 * 48, 3), 128, np.uint8)
    for position, row in enumerate(rows):
        sheet[:, 48 * position : 48 * (position + 1)] = colour(*row)
    Image.fromarray(sheet).save(folder / "train_00.jpg", quality=98, subsampling=0)
    lines = [f"{i},{i % 2},50,40,5,10,39,29" for i in range(4)]
    (folder / "test.csv").write_text(f"index,class_id,{columns}\n" + "\n".join(lines) + "\n")
    sheet = np.full((48, 40 * 48, 3), 128, np.uint8)
    for number in range(4):
        sheet[:, 48 * number : 48 * (number + 1)] = (number, 2 * number, 3 * number)
    Image.fromarray(sheet).save(folder / "test_00.jpg", quality=98, subsampling=0)


@pytest.fixture(params=["torchvision's files", "the full training set", "converted sheets"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "converted sheets":
        write_sheets(tmp_path / "sheets")
        convert(tmp_path / "sheets", tmp_path)
        return tmp_path
    base = tmp_path / "gtsrb"
    full = request.param == "the full training set"
    training = tmp_path / FULL_TRAINING_SET if full else base / "GTSRB" / "Training"
    write_files(training, base / "GTSRB" / "Final_Test" / "Images", base / "GT-final_test.csv")
    return tmp_path


def colours(pictures: Split) -> set[tuple[int, ...]]:
    """Of flat pictures, by class, to the nearest ten (JPEG is not exact)."""
    flat = pictures.images.float().mean(dim=(2, 3)).div(10).round().mul(10).int()
    return {(label, *levels) for label, levels in zip(pictures.labels.tolist(), flat.tolist(), strict=True)}


def test_pictures_have_their_class_and_tracks_stay_together(root: Path) -> None:
    train, held = Signs(root, 3, (48, 48)).training()
    assert train.images.shape == held.images.shape == (6, 3, 48, 48)
    everything = {(label, *colour(label, t, f)) for label in range(2) for t in range(2) for f in range(3)}
    assert colours(train) | colours(held) == everything
    assert train.groups is not None
    assert held.groups is not None
    assert len(train.groups.unique()) == len(held.groups.unique()) == 2  # type: ignore[no-untyped-call]
    assert not set(train.groups.tolist()) & set(held.groups.tolist())


def test_test_pictures_come_in_their_order_with_their_boxes(root: Path) -> None:
    test = Signs(root, 3, (48, 48)).test()
    assert test.labels.tolist() == [0, 1, 0, 1]
    assert test.images[:, 2, 20, 20].tolist() == pytest.approx([0, 3, 6, 9], abs=1)
    assert test.boxes is not None
    torch.testing.assert_close(test.boxes, BOX.expand(4, 2, 2))


def test_pictures_can_have_another_size(root: Path) -> None:
    assert Signs(root, 3, (32, 40)).test().images.shape == (4, 3, 32, 40)


def test_there_are_43_classes_of_different_names() -> None:
    assert len(set(CLASSES)) == 43


def test_data_that_is_not_there_and_cannot_be_downloaded_is_asked_for(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DataError, match="--data-root") as refusal:
        Signs(blocked, 3, (48, 48)).training()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "row",
    [
        "00000_00000.ppm;50",
        *(f"00000_00000.ppm;{rest}" for rest in ("50;40;5;10;39;29;stop", "0;40;5;10;39;29;0", "50;40;5;10;39;29;43")),
    ],
)
def test_a_damaged_table_is_named_with_its_line(tmp_path: Path, row: str) -> None:
    base = tmp_path / "gtsrb"
    write_files(tmp_path / FULL_TRAINING_SET, base / "GTSRB" / "Final_Test" / "Images", base / "GT-final_test.csv")
    table = tmp_path / FULL_TRAINING_SET / "00001" / "GT-00001.csv"
    table.write_text(f"{HEADER}{row}\n")
    with pytest.raises(DataError, match=r"GT-00001\.csv is damaged in line 2 .*copy it again"):
        Signs(tmp_path, 3, (48, 48)).training()
