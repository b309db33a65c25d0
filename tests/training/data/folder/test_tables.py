"""labels.parquet says the same as labels.csv, and what is wrong in it is told by row."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.training.data.folder.reading import corners, split
from training.data.folder.source import Folder, counts
from training.errors import DataError
from training.recipes.photographs import CORNERS, MY_IMAGES

PATHS = [f"{number}.png" for number in range(20)]
PARTS = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty pictures."""
    for number, path in enumerate(PATHS):
        Image.new("RGB", (30, 20), (10 * number, 0, 0)).save(tmp_path / path)
    return tmp_path


def write(root: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), root / "labels.parquet", row_group_size=7)


def test_classes_of_any_type_are_read_from_the_table(root: Path) -> None:
    write(root, path=PATHS, label=pa.array([n % 2 for n in range(20)]), note=["x"] * 20)
    entries = split(root, MY_IMAGES)
    assert counts(entries) == {label: {"train": 6, "validation": 2, "test": 2} for label in "01"}
    assert len(Folder(root, entries, (8, 8), 3).test().labels) == 4


def test_bytes_are_text_and_other_columns_are_not_read(root: Path) -> None:
    write(root, path=PATHS, label=[b"a", b"gr\xc3\xbcn"] * 10, pixels=pa.array([2**62] * 20, pa.timestamp("us")))
    assert {entry.label for entry in split(root, MY_IMAGES)} == {"a", "grün"}


def test_the_table_may_tell_splits_and_corners_and_leave_numbers_out(root: Path) -> None:
    box = {"x1": 5, "y1": 5, "x2": 25, "y2": 15}
    marks = {name: [None, float("nan"), *[value] * 18] for name, value in box.items()}
    write(root, path=PATHS, label=pa.array(["card"] * 20).dictionary_encode(), split=PARTS, **marks)
    entries = split(root, CORNERS)
    assert counts(entries) == {"card": {"train": 12, "validation": 4, "test": 4}}
    outlines = corners(root, CORNERS, entries)
    assert [outline.path for outline in outlines] == PATHS[2:]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": PATHS}, r"labels\.parquet has no column label; the columns are"),
        ({"path": [], "label": []}, r"labels\.parquet lists no pictures"),
        ({"path": PATHS, "label": ["a"] * 9 + [None] + ["b"] * 10}, "row 10 lacks path or label; write both"),
        ({"path": ["0.png", "none.png"], "label": ["a", "b"]}, "row 2: none.png is not a picture in"),
        (
            {"path": ["0.png", "1.png"], "label": ["a", "b"], "split": ["train", ""]},
            r"missing in .*labels.parquet, row 2",
        ),
        ({"path": ["0.png"], "label": [["a"]]}, r"labels\.parquet: column label has lists or structures"),
        ({"path": ["0.png"], "label": [b"\xff"]}, r"labels\.parquet cannot be read as a Parquet table"),
        (
            {"path": ["0.png"], "label": pa.array([2**62], pa.timestamp("us"))},
            r"labels\.parquet cannot be read as a Parquet table",
        ),
    ],
)
def test_a_wrong_table_is_refused_by_row(root: Path, columns: dict[str, Any], message: str) -> None:
    write(root, **columns)
    with pytest.raises(DataError, match=message):
        split(root, MY_IMAGES)


def test_a_damaged_file_is_refused(root: Path) -> None:
    (root / "labels.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"labels\.parquet cannot be read as a Parquet table"):
        split(root, MY_IMAGES)


def test_two_tables_of_labels_are_refused(root: Path) -> None:
    write(root, path=PATHS, label=PATHS)
    (root / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="both tell labels; remove one of them"):
        split(root, MY_IMAGES)


def test_without_pyarrow_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, path=PATHS, label=PATHS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pyarrow, which is not installed; pip install .*score"):
        split(root, MY_IMAGES)
