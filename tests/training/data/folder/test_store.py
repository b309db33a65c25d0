"""Pictures that are streamed are those that are held in memory, and the file is built whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.batches import loader
from training.data.folder import store
from training.data.folder.source import Entry, Folder
from training.data.folder.store import CACHE, is_streamed, stream_pictures
from training.errors import DataError, RecipeError
from training.recipes.digits import MNIST_RTS
from training.recipes.photographs import MY_IMAGES, PHOTOGRAPHS_224
from training.recipes.recipe import change_recipe

SIZE = (24, 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty pictures of two classes."""
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def entries(root: Path) -> list[Entry]:
    files = sorted(file.relative_to(root).as_posix() for file in root.glob("?/*.png"))
    return [Entry(file, ("train", "train", "validation", "test")[n % 4]) for n, file in enumerate(files)]


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_from_the_file_are_bit_equal_to_those_from_memory(
    channels: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "AT_ONCE", 7)
    held = Folder(root, entries(root), SIZE, channels)
    streamed = Folder(root, entries(root), SIZE, channels, streamed=True)
    for one, other in zip((*held.training(), held.test()), (*streamed.training(), streamed.test()), strict=True):
        batches = [loader(split, 4, shuffle_seed=3, balance=0.5) for split in (one, other)]
        for kept, read in zip(*batches, strict=True):
            assert torch.equal(kept.images, read.images)
            assert torch.equal(kept.labels, read.labels)
    assert len(list((root / CACHE).glob("*.npy"))) == 3


def test_the_file_is_used_again_until_a_picture_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [entry.path for entry in entries(root)]
    first = stream_pictures(root, paths, SIZE, 3).clone()
    (file,) = (root / CACHE).glob("*.npy")
    made = file.stat().st_mtime_ns
    assert torch.equal(stream_pictures(root, paths, SIZE, 3), first)
    assert file.stat().st_mtime_ns == made
    Image.new("RGB", (40, 30)).save(root / paths[5])
    os.utime(root / paths[5], ns=(1, 1))
    second = stream_pictures(root, paths, SIZE, 3)
    assert second[5].max() == 0
    assert torch.equal(second[6:], first[6:])


def test_a_damaged_picture_leaves_no_file(root: Path) -> None:
    paths = [entry.path for entry in entries(root)]
    (root / paths[30]).write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        stream_pictures(root, paths, SIZE, 3)
    assert not [file for file in (root / CACHE).iterdir() if file.suffix != ".lock"]


def test_what_a_killed_process_left_is_replaced(root: Path) -> None:
    paths = [entry.path for entry in entries(root)]
    expected = stream_pictures(root, paths, SIZE, 3).clone()
    (file,) = (root / CACHE).glob("*.npy")
    file.with_suffix(".part").write_bytes(b"a beginning")
    file.write_bytes(file.read_bytes()[:500])
    assert torch.equal(stream_pictures(root, paths, SIZE, 3), expected)
    assert not file.with_suffix(".part").exists()


def test_a_folder_that_cannot_be_written_is_named_with_the_cure(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"--set cache=FOLDER"):
        stream_pictures(root, [entries(root)[0].path], SIZE, 3, tmp_path / "file")


def test_too_little_room_is_told_before_anything_is_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Room)
    with pytest.raises(DataError, match="GiB left, but the decoded pictures need"):
        stream_pictures(root, [entries(root)[0].path], SIZE, 3)
    assert not list((root / CACHE).glob("*.npy"))


class Room:
    """A disk that is full."""

    free = 0


def test_large_sets_are_streamed_and_the_recipe_can_decide() -> None:
    assert not is_streamed(PHOTOGRAPHS_224, 14_000)
    assert is_streamed(PHOTOGRAPHS_224, 15_000)
    assert is_streamed(change_recipe(PHOTOGRAPHS_224, {"stream": True}), 10)
    assert not is_streamed(change_recipe(MY_IMAGES, {"stream": False}), 10**9)
    with pytest.raises(RecipeError, match="stream has no effect without dataset=folder"):
        change_recipe(MNIST_RTS, {"stream": True})
