"""WebDataset shards are read in place: classes, corners and splits, and what is wrong in them is told by member."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs

from tests.training.data.folder.reading import corners, split
from training.data.folder.labels import find_labels
from training.data.folder.shards import locate
from training.data.folder.source import Folder, counts, read_split, split_text
from training.data.folder.store import stream_pictures
from training.errors import DataError
from training.recipes.photographs import CORNERS, MY_IMAGES
from training.recipes.recipe import change_recipe

Members = dict[str, bytes]


def picture(number: int) -> bytes:
    content = io.BytesIO()
    levels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(levels).save(content, "PNG")
    return content.getvalue()


def write(file: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return file


def samples(numbers: range) -> Members:
    """Pictures of two classes, the labels partly in front of them."""
    found: Members = {}
    for number in numbers:
        key = f"./day.1/{number:04}"
        found |= {f"{key}.cls": f"{'ab'[number % 2]}\n".encode(), f"{key}.PNG": picture(number), f"{key}.txt": b"-"}
    return found


def test_pictures_are_split_at_random_and_read_from_the_shards(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(24)))
    write(tmp_path / "two.tar", samples(range(24, 40)))
    entries = split(tmp_path, MY_IMAGES)
    assert counts(entries) == {label: {"train": 14, "validation": 3, "test": 3} for label in "ab"}
    assert entries[0].path == "one.tar/day.1/0000.PNG"
    assert read_split_again(tmp_path, split_text(entries)) == entries
    train, _ = Folder(tmp_path, entries, (20, 30), 3).training()
    first = next(entry for entry in entries if entry.part == "train")
    with Image.open(io.BytesIO(picture(int(first.path[-8:-4])))) as expected:
        assert np.array_equal(train.images[0].permute(1, 2, 0), np.asarray(expected))


def read_split_again(folder: Path, text: str) -> list[object]:
    (folder / "kept.txt").write_text(text)
    return list(read_split(folder / "kept.txt"))


def test_names_of_shards_tell_the_split(tmp_path: Path) -> None:
    for name, numbers in (("train-0", range(8)), ("train-1", range(8, 12)), ("val-0", range(12, 16))):
        write(tmp_path / f"{name}.tar", samples(numbers))
    write(tmp_path / "Test_0.tar", samples(range(16, 20)))
    assert counts(split(tmp_path, MY_IMAGES)) == {label: {"train": 6, "validation": 2, "test": 2} for label in "ab"}


def test_streamed_pictures_are_those_of_the_shards_until_one_changes(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(20)))
    paths = [entry.path for entry in split(tmp_path, MY_IMAGES)]
    streamed = stream_pictures(tmp_path, paths, (20, 30), 3, tmp_path / ".cache")
    with Image.open(io.BytesIO(picture(0))) as expected:
        assert np.array_equal(streamed[0].permute(1, 2, 0), np.asarray(expected))
    kept = streamed.clone()
    write(tmp_path / "one.tar", {"more.cls": b"a"} | samples(range(20)))
    assert torch.equal(stream_pictures(tmp_path, paths, (20, 30), 3, tmp_path / ".cache"), kept)
    assert len(list((tmp_path / ".cache").glob("*.npy"))) == 2


def test_json_tells_classes_and_corners(tmp_path: Path) -> None:
    members: Members = {}
    for number in range(20):
        box = dict.fromkeys(("x1", "y1", "x2", "y2"), float("nan"))
        if number:
            box = {"x1": 5, "y1": 5, "x2": 25.5, "y2": 15}
        told = {"label": "card", "camera": {"iso": 100}, **box}
        members |= {f"{number}.png": picture(number), f"{number}.json": json.dumps(told).encode()}
    file = write(tmp_path / "cards.tar", members)
    entries = split(tmp_path, CORNERS)
    outlines = corners(tmp_path, CORNERS, entries)
    assert len(outlines) == 19
    assert outlines[0].numbers == (5, 5, 25.5, 15)
    write(file, members | {"7.json": b'{"label": "card", "x1": 3}'})
    with pytest.raises(DataError, match=r"cards\.tar, 7\.png: y1 of cards\.tar/7\.png is '', not a number"):
        corners(tmp_path, CORNERS, entries)


def test_a_damaged_picture_is_named_or_left_out(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(20)) | {"bad.png": b"no picture", "bad.cls": b"a"})
    with pytest.raises(DataError, match=r"one\.tar/bad\.png cannot be read as pictures; repair or remove them"):
        split(tmp_path, MY_IMAGES)
    assert len(split(tmp_path, change_recipe(MY_IMAGES, {"unreadable": "skip"}))) == 20


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b""}, r"one\.tar/a\.png has no label; each picture KEY\.jpg needs a KEY\.cls"),
        ({"a.png": b"", "a.cls": b" "}, r"a\.png has no label"),
        ({"a.png": b"", "a.json": b"{}"}, r"a\.png has no label"),
        ({"a.png": b"", "a.json": b"{"}, r"one\.tar/a\.json cannot be read as JSON"),
        ({"a.png": b"", "a.json": b"3"}, r"one\.tar/a\.json is no JSON object"),
        ({"a.png": b"", "a.cls": b"\xff"}, r"one\.tar/a\.cls is no text in UTF-8"),
        ({"a.png": b"", "a.cls": b"a" * 2**21}, r"one\.tar/a\.cls has 2097152 bytes, more than a label needs"),
        ({"a.png": b"", "a.jpg": b"", "a.cls": b"a"}, r"a\.jpg has the key of a\.png; keep one picture and one"),
        ({"a.png": b"", "a.PNG": b"", "a.cls": b"a"}, r"a\.PNG has the key of a\.png; keep one picture and one"),
        ({"a.png": b"", "a.CLS": b"b", "a.cls": b"a"}, r"a\.cls has the key of a\.CLS; keep one picture and one"),
        ({"a.png": b"", "a.json": b"[" * 100_000}, r"one\.tar/a\.json cannot be read as JSON"),
        ({"a.png": b"", "a.json": b'{"label": NaN}'}, r"a\.png has no label"),
        ({"a.png": b"", "a.cls": b"a\x07"}, r"one\.tar, a\.png has control characters"),
        ({"a.txt": b""}, "lists no pictures"),
    ],
)
def test_a_wrong_shard_is_refused_by_member(tmp_path: Path, members: Members, message: str) -> None:
    write(tmp_path / "one.tar", members)
    with pytest.raises(DataError, match=message):
        split(tmp_path, MY_IMAGES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train-0.tar", "more.tar"), r"more\.tar does not tell its split"),
        (("train-0.tar", "val.tar"), "has no shards for test"),
        (("train-0.tar", "train-1.tar.gz"), r"train-1\.tar\.gz is compressed; .*decompress it"),
        (("train-0.tar.gz", "notes.txt"), r"train-0\.tar\.gz is compressed; .*decompress it"),
        (("train-0.tar.gz",), r"train-0\.tar\.gz is compressed; .*decompress it"),
    ],
)
def test_names_that_tell_half_of_a_split_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        write(tmp_path / name, samples(range(2)))
    with pytest.raises(DataError, match=message):
        split(tmp_path, MY_IMAGES)


@pytest.mark.parametrize("end", [700, 5000, -10240 - 600])
def test_a_shard_that_is_cut_short_is_refused(tmp_path: Path, end: int) -> None:
    file = write(tmp_path / "one.tar", samples(range(20)))
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(DataError, match=r"one\.tar cannot be read as a tar without compression"):
        split(tmp_path, MY_IMAGES)


def test_a_packed_shard_with_a_plain_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(4)), "w:gz")
    with pytest.raises(DataError, match=r"one\.tar cannot be read as a tar without compression"):
        split(tmp_path, MY_IMAGES)


def test_a_shard_that_has_gone_since_the_run_began_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(20)))
    entries = split(tmp_path, MY_IMAGES)
    write(tmp_path / "one.tar", samples(range(3)))
    with pytest.raises(DataError, match=r"one\.tar/.* does not exist any more; put the shard back"):
        Folder(tmp_path, entries, (8, 8), 3).training()


def test_a_tar_beside_directories_is_no_shard(tmp_path: Path) -> None:
    write(tmp_path / "backup.tar", samples(range(4)))
    (tmp_path / "class").mkdir()
    assert find_labels(tmp_path) is None


@pytest.mark.parametrize("second", [samples(range(3)), samples(range(60))])
def test_tars_that_were_joined_are_refused(tmp_path: Path, second: Members) -> None:
    file = write(tmp_path / "one.tar", samples(range(20)))
    file.write_bytes(file.read_bytes() + write(tmp_path / "two.tar", second).read_bytes())
    with pytest.raises(DataError, match=r"one\.tar cannot be read .*goes on after its end"):
        split(tmp_path, MY_IMAGES)


def test_a_shard_whose_second_half_is_zeros_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "one.tar", samples(range(60)))
    with tarfile.open(file) as archive:
        middle = archive.getmembers()[90].offset
    file.write_bytes(file.read_bytes()[:middle] + bytes(file.stat().st_size - middle))
    with pytest.raises(DataError, match=r"one\.tar cannot be read .*goes on after its end"):
        split(tmp_path, MY_IMAGES)


def test_a_shard_with_a_negative_size_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.png")
    header.size = -512
    (tmp_path / "one.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 2 + bytes(1024))
    with pytest.raises(DataError, match=r"one\.tar cannot be read .*negative size"):
        split(tmp_path, MY_IMAGES)


def test_a_hard_link_is_a_picture_too(tmp_path: Path) -> None:
    file = write(tmp_path / "one.tar", samples(range(20)) | {"more.cls": b"a"})
    link = tarfile.TarInfo("more.png")
    link.type, link.linkname = tarfile.LNKTYPE, "./day.1/0000.PNG"
    with tarfile.open(file, "a") as archive:
        archive.addfile(link)
    entries = split(tmp_path, MY_IMAGES)
    assert len(entries) == 21
    more, first = (locate(tmp_path / "one.tar" / name) for name in ("more.png", "day.1/0000.PNG"))
    assert more.read_bytes() == first.read_bytes()
    with tarfile.open(file, "a") as archive:
        link.linkname = "none.png"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"more\.png is a link to none\.png, which is not in front of it"):
        split(tmp_path, MY_IMAGES)


def test_shards_with_capital_letters_are_read_and_broken_links_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(20)))
    write(tmp_path / "two.TAR", samples(range(20, 40)))
    assert len(split(tmp_path, MY_IMAGES)) == 40
    (tmp_path / "three.tar").symlink_to(tmp_path / "none.tar")
    with pytest.raises(DataError, match=r"three\.tar is no file that can be read"):
        split(tmp_path, MY_IMAGES)


def test_pictures_with_a_second_dot_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", samples(range(20)) | {"more.v2.png": picture(7), "more.v2.cls": b"a", "._0.png": b""})
    with capture_logs() as logs:
        split(tmp_path, MY_IMAGES)
    (told,) = (entry for entry in logs if entry["event"] == "files_left_out")
    assert (told["count"], told["example"]) == (1, "'one.tar/more.v2.png'")


@pytest.mark.parametrize("name", ["cache", "stray.png"])
def test_what_turns_shards_off_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "one.tar", samples(range(20)))
    (tmp_path / "cache").mkdir() if name == "cache" else (tmp_path / name).write_bytes(picture(0))
    with pytest.raises(DataError, match=f"has 1 WebDataset shards, .*; move {name} out of it"):
        split(tmp_path, MY_IMAGES)
