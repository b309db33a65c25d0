"""WebDataset tars."""

import gzip
import tarfile
from pathlib import Path

import pytest

from service.errors import InputError
from service.score.archives import CUT_SHORT
from tests.service.score.inputs import MAX_BYTES, PICTURES, numbers, rows_of, select, source_of, write_tar


def members(first: int, count: int) -> dict[str, bytes]:
    """Samples as WebDataset writes them: a picture and its class."""
    names = range(first, first + count)
    return {f"{name}.{end}": PICTURES[0] if end == "png" else b"7" for name in names for end in ("cls", "png")}


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_the_pictures_of_a_tar_are_rows_and_its_labels_are_not(tmp_path: Path, name: str, mode: str) -> None:
    tar = write_tar(tmp_path / name, members(0, 3), mode)
    rows = rows_of(select(tar), tmp_path)
    assert [row.path for row in rows] == [f"{tar}/{number}.png" for number in range(3)]
    assert {row.content for row in rows} == {PICTURES[0]}


def test_rows_are_numbered_through_several_tars_and_can_begin_anywhere(tmp_path: Path) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tar", members(shard * 3, 3))
    pattern = select(tmp_path / "{0..2}.tar")
    everything = rows_of(pattern, tmp_path)
    assert numbers(everything) == list(range(9))
    for start in (1, 3, 5, 9):
        assert rows_of(pattern, tmp_path, start) == everything[start:]
    assert numbers(rows_of(select(tmp_path / "*.tar", "path~*/5.png"), tmp_path)) == [5]


def test_the_number_of_rows_is_estimated_from_the_bytes_so_far(tmp_path: Path) -> None:
    source = source_of(select(write_tar(tmp_path / "a.tar", members(0, 40))), tmp_path)
    assert source.total() is None
    assert len(list(source.rows(0))) == source.total() == 40


@pytest.mark.parametrize("damage", ["cut in a picture", "cut in a header", "no end mark", "wrong header", "no tar"])
def test_a_damaged_tar_is_a_row_with_an_error_and_the_next_one_goes_on(tmp_path: Path, damage: str) -> None:
    first, second = (write_tar(tmp_path / f"{shard}.tar", members(shard * 3, 3)) for shard in range(2))
    content = first.read_bytes()
    header = 512 * (2 + 1 + -(-len(PICTURES[0]) // 512))  # of the third member
    first.write_bytes(
        {
            "cut in a picture": content[: header - 700],
            "cut in a header": content[: header + 100],
            "no end mark": content[:header],
            "wrong header": content[: header + 10] + b"\xff" * 10 + content[header + 20 :],
            "no tar": b"seven",
        }[damage]
    )
    rows = rows_of(select(tmp_path / "*.tar"), tmp_path)
    before = int(damage not in ("cut in a picture", "no tar"))
    assert [row.problem for row in rows] == [""] * before + [CUT_SHORT] + [""] * 3
    assert rows[before].path == str(first)
    assert [row.path for row in rows[before + 1 :]] == [f"{second}/{number}.png" for number in (3, 4, 5)]
    assert numbers(rows) == list(range(len(rows)))
    for start in range(1, len(rows)):
        assert rows_of(select(tmp_path / "*.tar"), tmp_path, start) == rows[start:]


@pytest.mark.parametrize("size", [-512, 2**63 + 512])
@pytest.mark.parametrize("name", ["0.cls", "0.png"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_size_that_no_file_can_have_is_damage_and_ends(tmp_path: Path, size: int, name: str, mode: str) -> None:
    content = {"a.png": PICTURES[0], name: bytes(512)}
    tar = write_tar(tmp_path / "a.tar", content)
    header = tarfile.TarInfo(name)
    header.size = size
    block = header.tobuf(tarfile.GNU_FORMAT)
    start = 512 * (1 + -(-len(PICTURES[0]) // 512))
    changed = tar.read_bytes()[:start] + block + tar.read_bytes()[start + 512 :]
    tar.write_bytes(gzip.compress(changed) if mode == "w:gz" else changed)
    rows = rows_of(select(tar), tmp_path)
    assert (rows[0].content, rows[-1].problem) == (PICTURES[0], CUT_SHORT)


def test_a_picture_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"large.png": bytes(MAX_BYTES + 1), "seven.png": PICTURES[0]})
    large, seven = rows_of(select(tar), tmp_path)
    assert (large.code, large.content, seven.content) == ("too_large", None, PICTURES[0])


def test_a_folder_in_place_of_a_tar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        rows_of(select(tmp_path / "a.tar"), tmp_path)
