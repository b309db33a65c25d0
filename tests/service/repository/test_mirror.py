"""Models at a URL are served from a copy of which each version is whole."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from export.format.artifact import find_artifacts, read_artifact
from service.app import create_app, get_state
from service.background import Failures
from service.errors import MirrorError
from service.repository.mirror import copy_at_start, refresh, scan_models
from service.settings import Settings
from tests.service.loops import on_a_loop

MODELS = Path(__file__).parents[3] / "models"


class Site:
    """A folder that a web server offers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def open(self) -> None:
        handler = partial(Quiet, directory=str(self.folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Quiet(SimpleHTTPRequestHandler):
    """Writes no log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A web server with ``digits/3``."""
    shutil.copytree(MODELS / "digits" / "3", tmp_path / "site" / "digits" / "3")
    found = Site(tmp_path / "site")
    yield found
    found.close()


def settings(site: Site, tmp_path: Path) -> Settings:
    return Settings(models=site.url, models_cache=tmp_path / "cache")


def copied(chosen: Settings) -> list[tuple[str, int]]:
    return [(name, version) for name, version, folder in find_artifacts(chosen.models_folder) if read_artifact(folder)]


@on_a_loop
async def test_a_service_answers_with_models_from_a_url(site: Site, tmp_path: Path) -> None:
    app = create_app(settings(site, tmp_path))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
    ):
        picture = (MODELS / "digits" / "samples" / "7.png").read_bytes()
        answer = await client.post("/predict", files={"image": picture})
    assert answer.json()["model"] == {"name": "digits", "version": 3}
    assert answer.json()["predictions"][0]["label"] == "7"
    assert get_state(app).settings.models == site.url


def test_versions_that_come_change_and_go_at_the_url_do_so_in_the_copy(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    assert refresh(chosen) == {}
    assert copied(chosen) == [("digits", 3)]
    shutil.copytree(MODELS / "digits" / "2", site.folder / "digits" / "2")
    refresh(chosen)
    assert copied(chosen) == [("digits", 2), ("digits", 3)]
    shutil.rmtree(site.folder / "digits" / "2")
    shutil.rmtree(site.folder / "digits" / "3")
    shutil.copytree(MODELS / "digits" / "2", site.folder / "digits" / "3")
    refresh(chosen)
    assert copied(chosen) == [("digits", 3)]
    was, now = (read_artifact(folder) for folder in (MODELS / "digits" / "2", chosen.models_folder / "digits" / "3"))
    assert was.manifest == now.manifest


def test_an_unchanged_version_is_not_written_again(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    before = scan_models(chosen, Failures())
    assert before == scan_models(chosen, Failures()) != {}


@pytest.mark.parametrize("harm", ["a changed byte", "a missing file", "no JSON"])
def test_a_damaged_version_is_reported_and_its_old_copy_kept(site: Site, tmp_path: Path, harm: str) -> None:
    chosen = settings(site, tmp_path)
    refresh(chosen)
    old = read_artifact(chosen.models_folder / "digits" / "3").manifest
    there = site.folder / "digits" / "3"
    for file in (MODELS / "digits" / "2").iterdir():
        shutil.copy(file, there)
    if harm == "a changed byte":
        content = bytearray((there / "model.onnx").read_bytes())
        content[1000] ^= 1
        (there / "model.onnx").write_bytes(content)
    elif harm == "a missing file":
        (there / "golden.npz").unlink()
    else:
        (there / "manifest.json").write_text("{")
    problems = refresh(chosen)
    assert "again" in problems["digits", 3]
    assert read_artifact(chosen.models_folder / "digits" / "3").manifest == old
    failures = Failures()
    scan_models(chosen, failures)
    assert failures.counts() == {"copy_models": 1}


def test_without_an_answer_from_the_url_the_copy_is_served(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    site.close()
    with pytest.raises(MirrorError, match="cannot be listed"):
        copy_at_start(chosen)
    site.open()
    copy_at_start(chosen)
    site.close()
    copy_at_start(chosen)
    assert copied(chosen) == [("digits", 3)]


def test_a_url_without_models_empties_no_copy(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    refresh(chosen)
    shutil.rmtree(site.folder / "digits")
    with pytest.raises(MirrorError, match="there is no model"):
        refresh(chosen)
    assert copied(chosen) == [("digits", 3)]


def test_a_folder_that_cannot_be_listed_removes_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(site, tmp_path)
    refresh(chosen)

    def fail(handler: Quiet, path: str) -> None:
        handler.send_error(503)

    monkeypatch.setattr(Quiet, "list_directory", fail)
    with pytest.raises(MirrorError, match="cannot be listed"):
        refresh(chosen)
    assert copied(chosen) == [("digits", 3)]


def test_a_copy_that_lost_a_file_is_made_anew(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    refresh(chosen)
    (chosen.models_folder / "digits" / "3" / "model.onnx").unlink()
    refresh(chosen)
    assert copied(chosen) == [("digits", 3)]


def test_a_signature_that_is_gone_at_the_url_is_gone_in_the_copy(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    (site.folder / "digits" / "3" / "model.sig").write_text("{}")
    refresh(chosen)
    there = chosen.models_folder / "digits" / "3" / "model.sig"
    assert there.exists()
    (site.folder / "digits" / "3" / "model.sig").unlink()
    refresh(chosen)
    assert not there.exists()


def test_what_a_killed_copy_has_left_is_removed(site: Site, tmp_path: Path) -> None:
    chosen = settings(site, tmp_path)
    refresh(chosen)
    leftover = chosen.models_folder / "digits" / ".4.123.new"
    leftover.mkdir()
    refresh(chosen)
    assert not leftover.exists()


def test_an_unknown_protocol_and_a_folder_that_cannot_be_written_are_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"teleport://host cannot be opened.*stn-serve\[remote\]"):
        refresh(Settings(models="teleport://user:secret@host", models_cache=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(MirrorError, match="STN_MODELS_CACHE"):
        refresh(Settings(models=site.url, models_cache=tmp_path / "file"))
