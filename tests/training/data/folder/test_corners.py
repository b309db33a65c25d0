"""corners.csv is read as it is meant, and what cannot be meant is refused by file, line and cure."""

import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from tests.training.data.folder.reading import corners, split
from training.data.folder.corners import corners_of, corners_text, find_corners, read_corners
from training.data.folder.source import Folder
from training.errors import DataError
from training.recipes.photographs import CORNERS, MY_IMAGES
from training.recipes.recipe import change_recipe

HEADER = "path,x1,y1,x2,y2,x3,y3,x4,y4\n"
SQUARE = "10,10,30,10,30,25,10,25"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures of 40x30 pixels, without directories."""
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def table(root: Path, text: str) -> Path:
    (root / "corners.csv").write_text(text)
    return root / "corners.csv"


def test_four_corners_and_a_box_are_read_in_pixels_and_given_as_shares_of_the_picture(root: Path) -> None:
    table(root, f"{HEADER}0.png,10,0,30,0,40,30,0,30\n1.png,10,15,20,30,,,,\n")
    names = ["0.png", "1.png", "2.png"]
    found = corners_of(root, names, find_corners(root, read_corners(root / "corners.csv"), names))
    assert found.known.tolist() == [True, True, False]
    assert found.boxed.tolist() == [False, True, False]
    torch.testing.assert_close(found.points[0], torch.tensor([[-0.5, -1], [0.5, -1], [1, 1], [-1, 1]]))
    torch.testing.assert_close(found.points[1], torch.tensor([[-0.5, 0], [0, 0], [0, 1], [-0.5, 1]]))
    assert found.sizes[:2].tolist() == [[40, 30], [40, 30]]


def test_a_table_of_boxes_needs_no_other_columns_and_may_have_some_of_its_own(root: Path) -> None:
    file = table(root, "\ufeffnote,path, x1 ,y1,x2,y2\nmine,0.png,1,2,30.5,20\n")
    (outline,) = read_corners(file)
    assert (outline.path, outline.where, outline.numbers, outline.boxed) == (
        "0.png",
        f"{file}, line 2",
        (1, 2, 30.5, 20),
        True,
    )


def test_what_is_read_can_be_written_and_read_again(root: Path) -> None:
    outlines = read_corners(table(root, f"{HEADER}0.png,10.123456789,0,30,0,40,30,0,30\n1.png,10,15,20,30,,,,\n"))
    assert read_corners(table(root, corners_text(outlines))) == outlines


def test_pictures_are_measured_as_they_are_shown(root: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # shown with 30x40 pixels
    Image.new("RGB", (40, 30)).save(root / "turned.jpg", exif=turned)
    table(root, f"{HEADER}turned.jpg,0,0,30,0,30,40,0,40\n")
    found = corners_of(root, ["turned.jpg"], find_corners(root, read_corners(root / "corners.csv"), ["turned.jpg"]))
    torch.testing.assert_close(found.points[0], torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "corners.csv has no column path, x1, y1, x2, y2; the columns are"),
        ("path,x1,y1,x2\n", "no column y2; the columns are"),
        ("path,x1,y1,x2,y2,x3,y3\n", "no column x4, y4; the columns are"),
        (f"path;x1;y1;x2;y2\n0.png;{SQUARE}\n", "no column path"),
        (f"{HEADER},{SQUARE}\n", "line 2 lacks the path; write it, or remove the row"),
        (f"{HEADER}0.png,{SQUARE},7\n", "line 2 has more cells than columns"),
        (f"{HEADER}0.png,10,10,30,10,30,25,10\n", "line 2: y4 of 0.png is '', not a number of pixels; correct it"),
        (f"{HEADER}0.png,10,10,30,nan,30,25,10,25\n", "line 2: y2 of 0.png is 'nan', not a number of pixels"),
        (f"{HEADER}0.png,10,10,inf,10,30,25,10,25\n", "line 2: x2 of 0.png is 'inf'"),
        (f"{HEADER}0.png,10,10,12px,10,30,25,10,25\n", "line 2: x2 of 0.png is '12px'"),
        (
            f"{HEADER}0.png,{SQUARE}\n1.png,{SQUARE}\n0.png,{SQUARE}\n",
            "0.png has corners in .*line 2 and .*line 4; keep one row",
        ),
        (f"{HEADER}0.png,{SQUARE}\nnone.png,{SQUARE}\n", "line 3: none.png is not among the pictures of .*; correct"),
        (f"{HEADER}0.png,10,10,300,10,30,25,10,25\n", r"line 2: the corner \(300, 10\) lies far outside of 0.png"),
        (f"{HEADER}0.png,41,10,60,10,60,25,41,25\n", "line 2: the thing lies outside of 0.png, which has"),
        (f"{HEADER}0.png,{SQUARE}\n./0.png,{SQUARE}\n", "0.png has corners in .*line 2 and .*line 3; keep one row"),
        (f"{HEADER}../{{folder}}/0.png,{SQUARE}\n", "line 2: .*0.png is not among the pictures of .*; correct"),
        (f"{HEADER}{{root}}/0.png,{SQUARE}\n", "line 2: .*0.png is not among the pictures of .*; correct"),
        (f"{HEADER}0.png,10,10,30,25,30,10,10,25\n", "line 2: the sides of 0.png cross; list the corners clockwise"),
        (f"{HEADER}0.png,10,10,20,10,30,10,10,25\n", "line 2: three corners of 0.png lie on one line"),
        (f"{HEADER}0.png,10,10,10,25,30,25,30,10\n", "line 2: the corners of 0.png run anticlockwise"),
        (f"{HEADER}0.png,0,0,30,0,10,5,0,25\n", "line 2: the corners of 0.png are not those of a convex"),
        (f"{HEADER}0.png,10,10,10,10,30,25,10,25\n", "line 2: two corners of 0.png are less than a pixel apart; all"),
        (f"{HEADER}0.png,0.1,0.1,0.9,0.1,0.9,0.9,0.1,0.9\n", "less than a pixel apart; write pixels, not shares"),
        (f"{HEADER}0.png,30,10,10,25,,,,\n", "line 2: the box of 0.png has no area; x1, y1 is its upper left"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong_and_the_cure(root: Path, text: str, message: str) -> None:
    table(root, text.replace("{folder}", root.name).replace("{root}", str(root)))
    with pytest.raises(DataError, match=message):
        find_corners(root, read_corners(root / "corners.csv"), ["0.png", "1.png"])


def test_a_picture_with_two_rows_is_refused_however_its_accents_are_encoded(root: Path) -> None:
    (root / "0.png").rename(root / unicodedata.normalize("NFC", "é.png"))
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    table(root, HEADER + "".join(f"{name},{SQUARE}\n" for name in names))
    with pytest.raises(DataError, match=r"line 2 and .*line 3; keep one row"):
        find_corners(root, read_corners(root / "corners.csv"), names[:1])


def test_two_files_that_differ_in_their_encoding_keep_their_corners(root: Path) -> None:
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        (root / f"{number}.png").rename(root / name)
    table(root, HEADER + "".join(f"{name},{SQUARE}\n" for name in names))
    assert [outline.path for outline in find_corners(root, read_corners(root / "corners.csv"), names)] == names


def test_a_table_that_is_no_text_is_refused(root: Path) -> None:
    (root / "corners.csv").write_bytes(b"path,x1\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as a table"):
        find_corners(root, read_corners(root / "corners.csv"), ["0.png"])


def test_corners_beyond_the_edge_are_taken_since_a_thing_may_be_cut_off(root: Path) -> None:
    table(root, f"{HEADER}0.png,-10,-5,50,-5,50,35,-10,35\n")
    assert len(find_corners(root, read_corners(root / "corners.csv"), ["0.png"])) == 1


def test_a_row_of_a_picture_that_the_split_leaves_out_is_left_out(root: Path) -> None:
    table(root, f"{HEADER}0.png,{SQUARE}\n1.png,{SQUARE}\n")
    assert [outline.path for outline in find_corners(root, read_corners(root / "corners.csv"), ["1.png"])] == ["1.png"]


def test_a_single_class_is_enough_with_corners_and_needs_no_directory(root: Path) -> None:
    table(root, HEADER + "".join(f"{number}.png,{SQUARE}\n" for number in range(12)))
    entries = split(root, CORNERS)
    folder = Folder(root, entries, (8, 8), 3, outlines=corners(root, CORNERS, entries))
    assert folder.classes == ("thing",)
    train, validation = folder.training()
    assert (len(train.labels), len(validation.labels), len(folder.test().labels)) == (8, 2, 2)
    assert train.corners is not None
    assert train.corners.known.all()


def test_a_single_class_is_not_enough_without_corners_to_learn_from(root: Path) -> None:
    with pytest.raises(DataError, match=r"at least two classes .* only if corners\.csv says where the thing lies"):
        split(root, CORNERS)
    table(root, HEADER)
    entries = split(root, CORNERS)
    with pytest.raises(DataError, match=r"corners\.csv has corners of no picture that is trained on"):
        corners(root, CORNERS, entries)


def test_corners_without_a_weight_are_left_out_with_a_warning(root: Path) -> None:
    for name in ("one", "two"):
        (root / name).mkdir()
        for number in range(6):
            (root / f"{number + 6 * (name == 'two')}.png").rename(root / name / f"{number}.png")
    table(root, f"{HEADER}one/0.png,{SQUARE}\n")
    without = change_recipe(MY_IMAGES, {"corners": 0.0})
    with capture_logs() as logs:
        assert corners(root, without, split(root, without)) == []
    assert [entry["event"] for entry in logs] == ["corners_left_out"]
    with capture_logs() as logs:
        assert len(corners(root, MY_IMAGES, split(root, MY_IMAGES))) == 1
    assert [entry["event"] for entry in logs] == ["splits_without_corners"]
