"""``python -m service client`` as its user sees it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REPOSITORY, Service
from tests.service.answers import PICTURE
from tests.service.client.scripted import GOOD, failure
from tests.service.client.scripted import server as scripted
from tests.service.pictures import DIGITS, encode


def client(*arguments: object, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "client", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaints(done: subprocess.CompletedProcess[str], status: int = 1) -> Sequence[str]:
    """What it says that went wrong, a line each."""
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "seven.png").write_bytes(PICTURE)
    (tmp_path / "two.png").write_bytes(encode(DIGITS[1]))
    return tmp_path


def test_it_tells_and_draws_every_answer(server: Service, folder: Path) -> None:
    done = client("seven.png", "two.png", "--url", server.url, "--top-k", 3, folder=folder)
    assert complaints(done, 0) == []
    answers = [
        server.client.post("/predict?top_k=3", content=(folder / f).read_bytes()).json()
        for f in ("seven.png", "two.png")
    ]
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 4
    for name, answer, told in zip(("seven", "two"), answers, (lines[:4], lines[4:]), strict=True):
        assert told[0].startswith(f"{name}.png: digits/3 in ")
        assert told[0].endswith(f" ms, drawn to {name}.answer.png")
        for line, prediction in zip(told[1:], answer["predictions"], strict=True):
            assert line.split()[:2] == [prediction["label"], f"{prediction['probability']:.1%}"]
        with Image.open(folder / f"{name}.answer.png") as drawing:
            assert (drawing.format, drawing.mode) == ("PNG", "RGB")
            assert drawing.width > 360


def test_it_asks_the_model_that_is_named_and_draws_where_it_is_told(server: Service, folder: Path) -> None:
    done = client("seven.png", "--url", server.url, "--model", "digits", "--version", 2, "--out", "a/b", folder=folder)
    assert done.stdout.startswith("seven.png: digits/2 in ")
    assert [file.name for file in (folder / "a" / "b").iterdir()] == ["seven.answer.png"]


def test_a_bad_picture_does_not_keep_others_from_their_answers(server: Service, folder: Path) -> None:
    (folder / "bad.png").write_bytes(PICTURE[:60])
    done = client("bad.png", "missing.png", "two.png", "--url", server.url, folder=folder)
    bad, missing = complaints(done)
    assert bad.startswith("error: bad.png: ")
    assert "400 invalid_image" in bad
    assert missing == "error: missing.png: cannot read missing.png: No such file or directory"
    assert done.stdout.startswith("two.png: digits/3 in ")
    assert sorted(file.name for file in folder.glob("*.answer.png")) == ["two.answer.png"]


def test_it_asks_for_regions(server: Service, folder: Path) -> None:
    regions = ("--region", "0,0,20,20", "--region", "3.5,4,99,28")
    done = client("seven.png", *regions, "--top-k", 1, "--url", server.url, folder=folder)
    assert complaints(done, 0) == []
    heads = done.stdout.splitlines()[::2]
    assert [head.split(":")[0] for head in heads] == ["seven.png (0,0,20,20)", "seven.png (3,4,42,28)"]
    assert [head.rpartition(" ")[2] for head in heads] == ["seven.1.answer.png", "seven.2.answer.png"]
    assert sorted(file.name for file in folder.glob("seven.*.png")) == ["seven.1.answer.png", "seven.2.answer.png"]
    one = client(
        "seven.png", *regions[:2], "--rectified", "part.png", "--url", server.url, "--out", "drawn", folder=folder
    )
    assert complaints(one, 0) == []
    assert (folder / "part.png").exists()
    assert (
        "2 regions would be written to part.png"
        in complaints(client("seven.png", *regions, "--rectified", "part.png", "--url", server.url, folder=folder))[-1]
    )
    wrong = client("seven.png", "--region", "9,9,1,1", folder=folder)
    assert "x1 < x2" in complaints(wrong, 2)[-1]


def test_it_writes_the_rectified_picture(server: Service, folder: Path) -> None:
    done = client(
        *("seven.png", "--url", server.url, "--rectified", "straight.jpg", "--rectified-size", "50x60"),
        *("--margin", "0.2", "--padding", "white"),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "straight.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (60, 50))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("seven.png", "--rectified", "straight.gif"), "end its name with .png, .jpg, .jpeg, .webp"),
        (("seven.png", "two.png", "--rectified", "straight.png"), "run the command once for each"),
        (("seven.png", "--rectified", "./seven.png"), "would be overwritten"),
        (("seven.png", "--margin", "0.1"), "are for the file of --rectified"),
    ],
)
def test_a_rectified_picture_that_cannot_be_written_is_not_asked_for(
    arguments: tuple[str, ...], says: str, folder: Path
) -> None:
    before = (folder / "seven.png").read_bytes()
    (complaint,) = complaints(client(*arguments, "--url", "http://127.0.0.1:9", folder=folder))
    assert says in complaint
    assert (folder / "seven.png").read_bytes() == before


def test_two_pictures_are_not_drawn_to_one_file(folder: Path) -> None:
    (line,) = complaints(client("seven.png", folder / "seven.png", "--out", "here", folder=folder))
    assert "seven.answer.png" in line


def test_a_drawing_that_cannot_be_written_leaves_nothing_behind(server: Service, folder: Path) -> None:
    (folder / "seven.answer.png").mkdir()
    (line,) = complaints(client("seven.png", "--url", server.url, folder=folder))
    assert line.startswith("error: seven.png: the prediction cannot be drawn to seven.answer.png: ")
    assert sorted(file.name for file in folder.iterdir()) == ["seven.answer.png", "seven.png", "two.png"]


def test_without_a_service_one_line_says_so(folder: Path) -> None:
    (line,) = complaints(client("seven.png", "two.png", "--url", "http://127.0.0.1:1", folder=folder))
    assert line.startswith("error: cannot reach http://127.0.0.1:1")


def test_the_key_comes_from_a_file(folder: Path) -> None:
    (folder / "key").write_text("a-key\n")
    with scripted(GOOD) as (url, seen):
        client("seven.png", "--url", url, "--key-file", "key", folder=folder)
    assert seen[0]["authorization"] == "Bearer a-key"


def test_a_file_that_holds_no_key_is_said_to_hold_none(folder: Path) -> None:
    (line,) = complaints(client("seven.png", "--key-file", "two.png", folder=folder))
    assert line.startswith("error: this is not an API key")


def test_a_key_that_is_refused_is_said_to_be(folder: Path) -> None:
    with scripted(failure(401, "unauthorized")) as (url, _):
        (line,) = complaints(client("seven.png", "--url", url, folder=folder))
    assert "401 unauthorized" in line


def test_a_wrong_command_line_is_refused(folder: Path) -> None:
    assert complaints(client(folder=folder), 2)[-1].endswith("required: PICTURE")
    assert "invalid int value: 'many'" in complaints(client("a.png", "--top-k", "many", folder=folder), 2)[-1]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_characters_gets_escapes(server: Service, folder: Path, encoding: str) -> None:
    done = client("seven.png", "--url", server.url, folder=folder, PYTHONIOENCODING=encoding)
    assert complaints(done, 0) == []
    assert r"\u2588" in done.stdout
