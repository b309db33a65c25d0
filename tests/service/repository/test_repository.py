"""Models come and go within one process."""

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from export.format.artifact import Artifact
from service.errors import LoadFailedError, ModelNotFoundError
from service.inference.backends import Backend, Device, open_backend
from service.inference.engine import Engine
from service.inference.registry import Models
from service.repository import repository as repository_module
from service.repository.plan import Change, ModelStatus
from service.repository.repository import NOT_LOADED, Entry, Repository, State
from service.repository.startup import load_models
from service.repository.version_policy import Policy
from service.settings import Settings
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.pictures import HEIGHT, WIDTH

PIXELS = np.zeros((HEIGHT, WIDTH, 1), np.uint8)


class Kept(NamedTuple):
    """A repository, and what it changes."""

    repository: Repository
    models: Models
    engine: Engine

    def entries(self) -> list[Entry]:
        return self.repository.index()

    def label(self, name: str = "digits") -> str:
        """Of the model that answers."""
        return self.models.find(name, None).manifest.classes[0]


@asynccontextmanager
async def kept(
    folder: Path, opener: Callable[[Artifact, Device, int], Backend] | None = None, **options: object
) -> AsyncIterator[Kept]:
    """A repository over ``folder``; what it loads later goes through ``opener``."""
    settings = Settings.model_validate({"models": folder, "device": "cpu", **options})
    models = load_models(settings)
    repository, engine = Repository(settings, models, opener), Engine(models, settings)
    repository.start()
    yield Kept(repository, models, engine)
    repository.close()
    await engine.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of one model in one version, whose labels begin with "one-"."""
    artifacts.write_labelled(tmp_path / "digits" / "1", "one-")
    return tmp_path


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - nothing else would tell
            await asyncio.sleep(0.01)


def ready(version: int) -> Entry:
    return Entry("digits", version, State.READY, "")


@on_a_loop
async def test_a_new_version_is_served_beside_the_old_and_by_default(folder: Path) -> None:
    async with kept(folder) as it:
        old = it.models.find("digits", 1)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        assert it.entries() == [ready(1)]
        await it.repository.load("digits")
        assert it.entries() == [ready(1), ready(2)]
        assert it.label() == "two-0"
        assert it.models.find("digits", 1) is old, "it had not changed"


@on_a_loop
async def test_a_version_that_was_replaced_is_loaded_anew_and_the_old_one_goes(folder: Path) -> None:
    async with kept(folder) as it:
        old = it.models.find("digits", 1)
        artifacts.write_labelled(folder / "digits" / "1", "again-")
        await it.repository.load("digits")
        assert it.label() == "again-0"
        assert it.entries() == [ready(1)]
        assert list(it.models.leaving.values()) == [("digits", 1)]
        answer = await old.batcher.submit(PIXELS)
        assert answer.batch_size == 1, "who has found it can use it"
        del old
        await until(lambda: not it.models.leaving)


@on_a_loop
async def test_versions_that_fall_out_of_the_policy_go_when_their_last_request_is_answered(folder: Path) -> None:
    async with kept(folder, versions="latest") as it:
        used = it.models.find("digits", None)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await it.repository.load("digits")
        (old, new) = it.entries()
        assert (old[:3], new) == (("digits", 1, State.UNLOADING), ready(2))
        with pytest.raises(ModelNotFoundError, match="it has: 2"):
            it.models.find("digits", 1)
        del used
        await until(lambda: it.entries() == [("digits", 1, State.UNAVAILABLE, NOT_LOADED), ready(2)])


@on_a_loop
async def test_at_the_end_requests_of_models_that_go_are_answered_too(folder: Path) -> None:
    async with kept(folder, versions="latest") as it:
        answers = [it.models.find("digits", None).batcher.submit(PIXELS) for _ in range(100)]
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await it.repository.unload("digits")
        await it.engine.close()
        assert all(answer.done() for answer in answers)


@pytest.mark.parametrize("version", [1, 2])
@on_a_loop
async def test_a_bad_artifact_leaves_the_old_one_serving_and_the_index_says_why(folder: Path, version: int) -> None:
    async with kept(folder, versions="latest") as it:
        bad = artifacts.write_labelled(folder / "digits" / str(version), "bad-")
        (bad / artifacts.MODEL).write_bytes(b"no model")
        with pytest.raises(LoadFailedError, match=rf"digits/{version}: .*cut off"):
            await it.repository.load("digits")
        assert it.label() == "one-0"
        assert it.engine.ready
        states = {entry.version: entry for entry in it.repository.index()}
        assert "cut off" in states[version].reason
        assert {v: states[v].state for v in states} == {1: State.READY} | (
            {2: State.UNAVAILABLE} if version == 2 else {}
        )
        shutil.rmtree(bad)
        artifacts.write_labelled(bad, "good-")
        await it.repository.load("digits")
        assert it.label() == "good-0"
        assert ready(version) in it.entries()


@on_a_loop
async def test_a_model_that_answers_wrongly_is_a_bad_one(folder: Path) -> None:
    async with kept(folder) as it:
        wrong = artifacts.golden(artifacts.shifted("probabilities", 0.1))
        artifacts.write(folder / "digits" / "2", golden=wrong)
        with pytest.raises(LoadFailedError, match="differ from those at its export"):
            await it.repository.load("digits")
        assert [entry.version for entry in it.repository.index(ready_only=True)] == [1]


@on_a_loop
async def test_a_version_that_is_bad_holds_up_no_other(folder: Path) -> None:
    async with kept(folder) as it:
        (folder / "digits" / "2").mkdir()
        artifacts.write_labelled(folder / "digits" / "3", "three-")
        with pytest.raises(LoadFailedError, match="digits/2"):
            await it.repository.load("digits")
        assert it.label() == "three-0"


@on_a_loop
async def test_unloading_ends_a_model_and_loading_brings_it_back(folder: Path) -> None:
    async with kept(folder) as it:
        await it.repository.unload("digits")
        with pytest.raises(ModelNotFoundError, match="no model is served at present"):
            it.models.find(None, None)
        assert it.entries() == [("digits", 1, State.UNAVAILABLE, NOT_LOADED)]
        assert it.engine.ready, "it can answer that there is no model"
        await it.repository.unload("digits")
        await it.repository.load("digits")
        assert it.label() == "one-0"


@on_a_loop
async def test_a_load_may_say_which_versions(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with kept(folder) as it:
        await it.repository.load("digits", Policy(versions=(1,)))
        assert it.label() == "one-0"
        with pytest.raises(LoadFailedError, match="there is no digits/7 in"):
            await it.repository.load("digits", Policy(versions=(7,)))
        assert it.label() == "one-0"
        await it.repository.load("digits")
        assert it.label() == "two-0"


@on_a_loop
async def test_a_default_version_stays_the_default(folder: Path) -> None:
    async with kept(folder, default="digits/1", versions="latest") as it:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        artifacts.write_labelled(folder / "alpha" / "1", "alpha-")
        await it.repository.load("digits")
        await it.repository.load("alpha")
        assert it.models.find(None, None) is it.models.find("digits", None) is it.models.find("digits", 1)
        assert it.models.find(None, 2) is it.models.find("digits", 2)


@pytest.mark.parametrize("name", ["letters", "..", "../digits", "digits/1", "", "a\0b"])
@on_a_loop
async def test_a_model_that_is_not_there_can_neither_be_loaded_nor_unloaded(folder: Path, name: str) -> None:
    async with kept(folder) as it:
        with pytest.raises(ModelNotFoundError):
            await it.repository.load(name)
        with pytest.raises(ModelNotFoundError):
            await it.repository.unload(name)
        assert it.entries() == [ready(1)]


@on_a_loop
async def test_a_model_whose_folder_is_gone_is_served_on(folder: Path) -> None:
    async with kept(folder) as it:
        shutil.rmtree(folder / "digits")
        with pytest.raises(LoadFailedError, match="there is no digits/1 in"):
            await it.repository.load("digits")
        assert it.label() == "one-0"
        await it.repository.unload("digits")
        await until(lambda: it.entries() == [])  # the thread that could not load may still be about to end


@on_a_loop
async def test_what_is_served_answers_while_another_is_loaded(folder: Path) -> None:
    def slow(artifact: Artifact, device: Device, threads: int) -> Backend:
        time.sleep(0.5)
        return open_backend(artifact, device, threads)

    async with kept(folder, slow) as it:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(it.repository.load("digits"))
        await until(lambda: ("digits", 2, State.LOADING, "") in it.entries())
        answered = 0
        while not load.done():
            await it.models.find("digits", None).batcher.submit(PIXELS)
            await asyncio.sleep(0.01)
            answered += 1
        assert answered >= 5
        assert it.label() == "two-0"


@on_a_loop
async def test_a_load_that_does_not_end_is_given_up(folder: Path) -> None:
    forever = threading.Event()

    def stuck(artifact: Artifact, device: Device, threads: int) -> Backend:
        if artifact.manifest.classes[0] == "stuck-0":
            forever.wait()
        return open_backend(artifact, device, threads)

    async with kept(folder, stuck, load_timeout_s=1) as it:
        artifacts.write_labelled(folder / "digits" / "2", "stuck-")
        with pytest.raises(LoadFailedError, match="not loaded within 1 s"):
            await it.repository.load("digits")
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await it.repository.load("digits")
        assert it.label() == "two-0"
        forever.set()


@on_a_loop
async def test_a_model_that_hangs_is_not_ready_and_loading_it_again_is_the_cure(folder: Path) -> None:
    async with kept(folder) as it:
        hanging = it.models.find("digits", 1)
        hanging.batcher.hangs = True
        (entry,) = it.repository.index()
        assert (entry.state, it.engine.ready) == (State.UNAVAILABLE, False)
        await it.repository.load("digits")
        assert it.models.find("digits", 1) is not hanging
        assert it.engine.ready
        assert it.engine.stuck, "its thread still cannot be waited for"
        hanging.batcher.hangs = False


@on_a_loop
async def test_the_folder_is_looked_at_now_and_then(folder: Path) -> None:
    async with kept(folder, poll_s=1) as it:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: it.label() == "two-0")
        bad = artifacts.write_labelled(folder / ".aside", "bad-")
        (bad / artifacts.MODEL).unlink()
        bad.rename(folder / "digits" / "3")
        await until(lambda: "cannot read" in it.entries()[-1].reason)
        assert it.entries()[-1].state is State.UNAVAILABLE
        artifacts.write_labelled(folder / "digits" / "3", "three-")
        await until(lambda: it.label() == "three-0")


@on_a_loop
async def test_nothing_of_a_model_that_went_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_module, "RELEASE_CHECK_S", 0.01)
    async with kept(folder, versions="latest") as it:
        for version in range(2, 5):
            artifacts.write_labelled(folder / "digits" / str(version), f"{version}-")
            await it.repository.load("digits")
            await until(lambda: not it.models.leaving)
        assert [entry.version for entry in it.repository.index(ready_only=True)] == [4]
        assert it.repository.index()[0] == Entry("digits", 1, State.UNAVAILABLE, NOT_LOADED)


@on_a_loop
async def test_the_folder_is_polled_on_after_it_could_not_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    async with kept(folder, poll_s=1) as it:
        with monkeypatch.context() as broken:
            broken.setattr(Path, "is_file", fail)
            await until(lambda: it.repository.failures.counts().get("poll_models", 0) > 0)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: it.label() == "two-0")


@on_a_loop
async def test_a_version_that_could_not_be_read_for_a_moment_is_loaded_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, name: str, version: int, settings: Settings) -> Artifact:
        raise OSError(errno.ESTALE, "Stale file handle", str(folder))

    async with kept(folder, poll_s=1) as it:
        with monkeypatch.context() as broken:
            broken.setattr(repository_module, "read_trusted", fail)
            artifacts.write_labelled(folder / "digits" / "2", "two-")
            await until(lambda: "Stale file handle" in it.entries()[-1].reason)
        await until(lambda: it.label() == "two-0")
        assert it.entries()[-1].reason == ""


@on_a_loop
async def test_a_change_that_fails_unexpectedly_holds_up_no_other_and_is_made_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(folder, poll_s=1) as it:
        prepare = it.repository.prepare

        async def fail_for_digits(change: Change) -> ModelStatus:
            if change.name == "digits":
                raise RuntimeError("can't start new thread")
            return await prepare(change)

        with monkeypatch.context() as broken:
            broken.setattr(it.repository, "prepare", fail_for_digits)
            artifacts.write_labelled(folder / "digits" / "2", "two-")
            artifacts.write_labelled(folder / "letters" / "1", "l-")
            await until(lambda: it.repository.failures.counts().get("poll_models", 0) > 0)
            await until(lambda: ("letters", 1, State.READY, "") in it.entries())
        await until(lambda: it.label() == "two-0")


@pytest.mark.parametrize("lone", [False, True], ids=["in an artifact", "as a lone model file"])
@on_a_loop
async def test_a_fifo_in_the_place_of_a_model_holds_nothing_up(folder: Path, lone: bool) -> None:
    async with kept(folder, poll_s=1) as it:
        bad = artifacts.write_labelled(folder / ".aside", "bad-")
        for name in ("manifest.json", artifacts.MODEL) if lone else (artifacts.MODEL,):
            (bad / name).unlink()
        os.mkfifo(bad / artifacts.MODEL)
        bad.rename(folder / "digits" / "2")
        await until(lambda: len(it.entries()) == 2 and it.entries()[1].state is State.UNAVAILABLE)
        artifacts.write_labelled(folder / "digits" / "3", "three-")
        await until(lambda: it.label() == "three-0")
        assert it.repository.failures.counts() == {}


@on_a_loop
async def test_a_disk_that_does_not_answer_is_given_up_and_polled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "SCAN_TIMEOUT_S", 0.1)
    mended = threading.Event()
    listed = Path.iterdir

    def hang(path: Path) -> Iterator[Path]:
        mended.wait()
        return listed(path)

    async with kept(folder, poll_s=1) as it:
        with monkeypatch.context() as broken:
            broken.setattr(Path, "iterdir", hang)
            await until(lambda: it.repository.failures.counts().get("poll_models", 0) > 0)
            await it.repository.rescan()  # which requests for the index wait for
        mended.set()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: it.label() == "two-0")
