"""``python -m service score`` as its user sees it."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import structlog

from export.format.manifest import Feature
from service.score.command import main
from tests.conftest import REPOSITORY, wait_until
from tests.service.artifacts import write
from tests.service.pictures import ARTIFACT
from tests.service.score.inputs import PICTURES, write_csv, write_folder


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The command sets up the logs of its process, which here is that of the tests."""
    config, handlers = structlog.get_config(), logging.root.handlers[:]
    yield
    structlog.configure(**config)
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers


def command(*arguments: object) -> list[str]:
    fixed = ["--models", REPOSITORY / "models", "--device", "cpu", "--workers", 1]
    return [sys.executable, "-m", "service", "score", *map(str, (*arguments, *fixed))]


def begin(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def run(*arguments: object) -> tuple[int, str]:
    """The exit code and the last line of stderr."""
    with begin(*arguments) as process:
        printed, errors = process.communicate(timeout=300)
    assert printed == ""
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines()[-1]


@contextmanager
def picture_server() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A server of a picture: its address, an event that it was asked, and one that lets it answer."""
    asked, released = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            released.wait()
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURES[0])))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(PICTURES[0])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked, released
        finally:
            released.set()
            server.shutdown()
            thread.join()


def children(process: int) -> Sequence[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes as Linux shows them")
def test_killed_at_any_moment_and_run_again_the_output_is_complete_and_without_doubles(tmp_path: Path) -> None:
    (tmp_path / "seven.png").write_bytes(PICTURES[0])
    out = tmp_path / "out"
    with picture_server() as (url, asked, released):
        rows = [["seven.png"]] * 200 + [[f"{url}/seven.png"]] + [["seven.png"]] * 99 + [["lost.png"]]
        table = write_csv(tmp_path / "table.csv", ["path"], rows)
        given = (table, "--model", "digits", "--out", out, "--part-rows", 50)
        with begin(*given) as process:
            wait_until(lambda: (out / "part-000000.parquet").exists() and asked.is_set())
            workers = children(process.pid)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: not any(map(is_running, workers)))
        assert pq.read_metadata(out / "part-000000.parquet").num_rows < len(rows)
        (out / "_part.tmp").write_bytes(b"half a part")
        released.set()
        assert run(*given) == (0, f"{out}: 301 pictures, 1 of them with errors (unreadable 1)")
    found = pq.read_table(out)
    assert found.column("row").to_pylist() == list(range(301))
    assert [index for index, code in enumerate(found.column("error").to_pylist()) if code] == [300]


def test_pictures_that_are_all_broken_are_an_error_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    code, line = run(tmp_path, "--model", "digits/2", "--out", tmp_path / "out", "--top-k", 1)
    assert (code, line.partition(": ")[2]) == (1, "1 pictures, 1 of them with errors (unsupported_media_type 1)")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "nobody"], "there is no nobody in"),
        (["--model", "digits,signs"], "--model is one NAME or NAME/VERSION"),
        (["--where", "split"], "write COLUMN"),
        (["--where", "split=test"], "has no column 'split'"),
        (["--column", "image"], "--column and --root are for tables"),
        (["--reliability", "3"], "--reliability is told from 4 to 16 views"),
        (["--margin", "0.1"], "are for --rectified FOLDER"),
        (["--rectified", "r", "--margin", "2"], "--margin: Input should be less than or equal to 1"),
        (["--rectified", "r", "--rectified-size", "9x"], "--rectified-size: String should match"),
        (["--rectified", "r", "--rectified-size", "9999x9999"], "choose a smaller one"),
        (["--rectified", "s3://bucket/r"], "answers are written to this machine only"),
        (["--out", "s3://bucket/out"], "answers are written to this machine only"),
        (["--out", "0000.png"], "0000.png cannot be used: .*; choose another --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line_that_names_the_cure(
    options: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_folder(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STN_MODELS", str(REPOSITORY / "models"))
    assert main([str(tmp_path), "--model", "digits", "--out", str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(says, line)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("part*"))


def test_reliability_of_a_model_without_classes_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = ARTIFACT.manifest
    features = (Feature(name=manifest.probabilities, shape=(len(manifest.classes),)),)
    change = {"task": "features", "classes": (), "probabilities": "", "features": features, "reference": None}
    write(tmp_path / "models" / "features" / "1", manifest.model_copy(update=change))
    write_folder(tmp_path / "pictures", 1)
    given = ["--models", tmp_path / "models", "--model", "features", "--out", tmp_path / "out", "--reliability", 4]
    assert main(list(map(str, [tmp_path / "pictures", *given]))) == 1
    assert "--reliability needs a classifier, which features is not; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_its_packages_the_command_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; sys.argv = ['', 'score']; "
    code += "from service.__main__ import main; sys.exit(main())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: score needs fsspec, onnxruntime, pyarrow, tqdm; install the `score` extra: "
        "pip install 'stn-serve[serve-cpu,score]'"
    ]
