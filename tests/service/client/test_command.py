"""``python -m service client`` as its user sees it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.client import Client
from tests.conftest import REPOSITORY, Service
from tests.service.answers import PICTURE
from tests.service.client.scripted import GOOD, failure
from tests.service.client.scripted import server as scripted
from tests.service.pictures import DIGITS, encode


def client(*arguments: object, folder: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "client", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=folder,
        input=stdin,
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


def test_it_tells_how_reliable_an_answer_is(server: Service, folder: Path) -> None:
    done = client("seven.png", "--url", server.url, "--reliability", 4, "--views", 4, folder=folder)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("  reliability: ")
    assert "class in 100% of 4 views, corners off by " in last
    assert "cannot tell" not in last


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
        (("seven.png", "--margin", "0.1"), "are for --rectified and --image"),
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


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_answers_may_be_lines_of_json_without_drawings(server: Service, folder: Path) -> None:
    options = ("--json", "--points", 3, "--image", "png", "--rectified-size", "20x30", "--angle-hint", "-10")
    done = client("seven.png", "two.png", *options, "--timeout-ms", 20_000, "--url", server.url, folder=folder)
    assert complaints(done, 0) == []
    first, second = lines(done)
    assert (first["picture"], first["predictions"][0]["label"]) == ("seven.png", "7")
    assert (second["picture"], len(second["points"])) == ("two.png", 9)
    assert (first["rectified"]["width"], first["rectified"]["height"]) == (30, 20)
    assert list(folder.glob("*.answer.png")) == []
    plain = lines(client("seven.png", "--json", "--url", server.url, folder=folder))
    assert plain[0]["rectified"] is None


def test_a_hint_at_the_angle_holds_for_answers_and_the_rectified_picture(server: Service, folder: Path) -> None:
    (folder / "lying.png").write_bytes(encode(np.rot90(DIGITS[0])))  # counter-clockwise
    options = ("--angle-hint", -90, "--rectified", "straight.png", "--url", server.url)
    assert client("lying.png", *options, folder=folder).stdout.splitlines()[1].startswith("  7 ")
    with Client(server.url) as connection:
        straight = connection.rectify(folder / "lying.png", angle_hint=-90.0)
    assert (folder / "straight.png").read_bytes() == straight.content


def test_it_streams_folders_and_names_from_the_standard_input(server: Service, folder: Path) -> None:
    (folder / "more").mkdir()
    for number in range(3):
        (folder / "more" / f"{number}.png").write_bytes(encode(DIGITS[1]))
    (folder / "more" / ".hidden").write_bytes(b"")
    done = client("more", "-", "--stream", "--url", server.url, folder=folder, stdin="seven.png\n\ntwo.png\n")
    assert complaints(done, 0) == []
    found = lines(done)
    assert [each["picture"] for each in found] == ["more/0.png", "more/1.png", "more/2.png", "seven.png", "two.png"]
    assert [each["predictions"][0]["label"] for each in found] == ["2", "2", "2", "7", "2"]
    assert [(each["frame"], each["dropped"]) for each in found] == [(number, 0) for number in range(5)]


def test_at_a_rate_the_newest_pictures_are_answered_and_the_last_one_is(server: Service, folder: Path) -> None:
    pictures = ["seven.png", "two.png"] * 30
    options = ("--stream", "--rate", 1000, "--model", "signs", "--region", "0,0,40,40", "--url", server.url)
    found = lines(client(*pictures, *options, folder=folder))
    assert found[-1]["picture"] == "two.png"
    assert found[-1]["frame"] == 59
    assert found[-1]["dropped"] == 60 - len(found)
    assert found[-1]["regions"][0]["region"] == [0, 0, 40, 40]


def test_a_stream_goes_on_after_bad_pictures(server: Service, folder: Path) -> None:
    (folder / "bad.png").write_bytes(PICTURE[:60])
    done = client("missing.png", "bad.png", "two.png", "--stream", "--url", server.url, folder=folder)
    assert complaints(done) == ["error: cannot read missing.png: No such file or directory"]
    bad, good = lines(done)
    assert (bad["picture"], bad["error"]["code"]) == ("bad.png", "invalid_image")
    assert (good["picture"], good["frame"]) == ("two.png", 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", 5), "--rate is for --stream"),
        (("--stream", "--rate", 0), "--rate is for --stream, above 0"),
        (("--stream", "--rate", "nan"), "--rate is for --stream, above 0"),
        (("--stream", "--out", "there"), "no files"),
        (("--points", 3), "for --json and --stream"),
        (("--image", "png"), "for --json and --stream"),
    ],
)
def test_options_that_would_be_ignored_are_refused(folder: Path, arguments: Sequence[object], says: str) -> None:
    assert says in complaints(client("seven.png", *arguments, folder=folder), 2)[-1]


def test_a_stream_that_is_refused_says_why(server: Service, folder: Path) -> None:
    refused = client("seven.png", "--stream", "--model", "nobody", "--url", server.url, folder=folder)
    assert "no model is called 'nobody'" in complaints(refused)[-1]
    absent = client("seven.png", "--stream", "--url", "http://127.0.0.1:1", folder=folder)
    assert "is the service running there?" in complaints(absent)[-1]


def test_an_error_ends_a_stream_whose_standard_input_is_idle(server: Service, folder: Path) -> None:
    command = [sys.executable, "-m", "service", "client", "-", "--stream", "--model", "nobody", "--url", server.url]
    environment, pipe = {"PYTHONPATH": str(REPOSITORY)}, subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdin=pipe, stderr=pipe) as running:
        try:
            assert running.wait(timeout=30) == 1
        finally:
            running.kill()
        assert running.stderr is not None
        (line,) = running.stderr
        assert "no model is called 'nobody'" in line


def test_names_on_the_standard_input_may_be_of_any_bytes(server: Service, folder: Path) -> None:
    name = os.fsdecode(b"seven-\xff.png")
    (folder / "seven.png").rename(folder / name)
    command = [sys.executable, "-m", "service", "client", "-", "--stream", "--url", server.url]
    done = subprocess.run(
        command,
        cwd=folder,
        input=os.fsencode(name),
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["picture"] == name
