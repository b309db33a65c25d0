"""All workers change together or none does: a leader and members over real pipes, here in one process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from service.errors import LoadFailedError, ModelNotFoundError
from service.inference.registry import load_models
from service.repository.plan import CHANGED, Change, ModelStatus
from service.repository.repository import State, standings
from service.settings import Settings
from service.workers.coordinator import (
    LOST,
    Commit,
    Coordinator,
    Deregister,
    Done,
    Participant,
    Prepare,
    Ready,
    Restart,
)
from tests.conftest import START_S
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.repository.test_repository import folder, until

__all__ = ["folder"]  # a fixture


class Workers:
    """A leader, two members, and what is needed for more."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.leader = Coordinator(settings, standings(load_models(settings)))
        self.members = [self.start() for _ in range(2)]
        self.leader.start()

    def start(self) -> Participant:
        """A member with the standings of the present."""
        ours, theirs = Pipe()
        self.leader.admit(ours)
        present = self.leader.standings
        models = load_models(self.settings, present={name: of.served for name, of in present.items()})
        member = Participant(self.settings, models, theirs, present)
        member.start()
        return member

    def pretend(self, says: object) -> Connection:
        """The pipe of a worker that the test plays itself."""
        ours, theirs = Pipe()
        self.leader.admit(ours)
        theirs.send(says)
        return theirs

    async def join(self) -> Connection:
        """The pipe of a worker that the test plays itself, once it takes part."""
        pipe = self.pretend(Ready(self.leader.standings))
        await until(lambda: self.leader.size == len(self.members) + 1)
        return pipe

    def versions(self) -> list[list[int]]:
        """What each of the members serves."""
        return [[entry.version for entry in member.index(ready_only=True)] for member in self.members]


@asynccontextmanager
async def working(models: Path, **options: object) -> AsyncIterator[Workers]:
    workers = Workers(Settings.model_validate({"models": models, "device": "cpu", **options}))
    yield workers
    for member in workers.members:
        member.close()


async def heard(pipe: Connection) -> Any:
    """What the leader says to a worker that the test plays."""
    assert await asyncio.to_thread(pipe.poll, START_S), "it says nothing"
    return pipe.recv()


@on_a_loop
async def test_what_one_is_asked_for_all_do(folder: Path) -> None:
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await workers.members[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]
        await workers.members[1].unload("digits")
        assert workers.versions() == [[], []]
        with pytest.raises(ModelNotFoundError):
            await workers.members[0].load("letters")


@on_a_loop
async def test_all_say_why_a_version_could_not_be_loaded(folder: Path) -> None:
    async with working(folder) as workers:
        (artifacts.write_labelled(folder / "digits" / "2", "bad-") / artifacts.MODEL).unlink()
        with pytest.raises(LoadFailedError, match="digits/2"):
            await workers.members[0].load("digits")
        workers.members.append(workers.start())
        for member in workers.members:
            one, two = member.index()
            assert (one.state, two.state) == (State.READY, State.UNAVAILABLE)
            assert "cannot read" in two.reason


@on_a_loop
async def test_changes_that_are_asked_for_at_once_are_made_one_after_another(folder: Path) -> None:
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        artifacts.write_labelled(folder / "letters" / "1", "l-")
        one, other = workers.members
        await asyncio.gather(one.load("digits"), other.load("letters"), other.unload("digits"), one.load("letters"))
        of_one, of_other = workers.versions()
        assert of_one == of_other
        assert of_one in ([1], [1, 2, 1]), "as the last of the two about digits said"


@on_a_loop
async def test_one_that_dies_while_it_loads_fails_the_change_for_all(folder: Path) -> None:
    async with working(folder) as workers:
        mortal = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.members[0].load("digits"))
        assert isinstance(await heard(mortal), Prepare)
        mortal.close()
        with pytest.raises(LoadFailedError, match=LOST):
            await load
        assert workers.versions() == [[1], [1]]
        await workers.members[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]], "the others go on"


@on_a_loop
async def test_one_that_dies_while_it_switches_fails_nothing(folder: Path) -> None:
    async with working(folder) as workers:
        mortal = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.members[0].load("digits"))
        assert isinstance(await heard(mortal), Prepare)
        mortal.send(ModelStatus(dict(standings(load_models(workers.settings))["digits"].served), {}))
        assert isinstance(await heard(mortal), Commit)
        mortal.close()
        await load
        workers.members.append(workers.start())
        assert workers.versions() == [[1, 2]] * 3, "its replacement comes up with the present set"


@on_a_loop
@pytest.mark.parametrize("replies", [0, 1], ids=["to what it is to load", "to what it is to serve"])
async def test_one_that_does_not_reply_holds_up_nobody_for_long_and_is_to_leave(folder: Path, replies: int) -> None:
    async with working(folder, inference_timeout_s=5, load_timeout_s=5) as workers:
        silent = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.members[0].load("digits"))
        assert isinstance(await heard(silent), Prepare)
        if replies:
            silent.send(ModelStatus(dict(workers.leader.standings["digits"].served), {}))
            assert isinstance(await heard(silent), Commit)
        assert isinstance(await heard(silent), Restart)
        with pytest.raises(LoadFailedError, match=CHANGED if replies else LOST):
            await load
        await workers.members[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]], "the others go on"


@on_a_loop
async def test_one_that_cannot_say_what_it_loaded_fails_the_change_for_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(change: Change) -> ModelStatus:
        raise ValueError(change.name)

    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        with monkeypatch.context() as broken:
            broken.setattr(workers.members[1], "prepare", fail)
            with pytest.raises(LoadFailedError, match=LOST):
                await workers.members[0].load("digits")
        await workers.members[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_one_that_cannot_switch_takes_no_part_any_more_and_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, standing: ModelStatus) -> None:
        raise ValueError(name, standing)

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: told.append(call))
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        monkeypatch.setattr(workers.members[1], "commit", fail)
        await workers.members[0].load("digits")
        assert workers.versions() == [[1, 2], [1]]
        assert told == [(os.getpid(), signal.SIGTERM)]
        assert workers.leader.size == 1


@on_a_loop
async def test_one_that_read_another_folder_than_the_others_fails_the_change(folder: Path) -> None:
    async with working(folder) as workers:
        other = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.members[0].load("digits"))
        assert isinstance(await heard(other), Prepare)
        other.send(ModelStatus({**workers.leader.standings["digits"].served, 2: "something else"}, {}))
        assert isinstance(await heard(other), Commit)
        other.send(Done())
        with pytest.raises(LoadFailedError, match="changed while it was read"):
            await load
        assert workers.versions() == [[1], [1]]


@on_a_loop
async def test_one_that_ends_in_order_takes_no_part(folder: Path) -> None:
    async with working(folder) as workers:
        leaving = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.members[0].load("digits"))
        assert isinstance(await heard(leaving), Prepare)
        leaving.send(Deregister())
        await load
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_one_that_started_with_what_is_outdated_is_told_to_leave(folder: Path) -> None:
    async with working(folder) as workers:
        before = workers.leader.standings
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await workers.members[0].load("digits")
        assert isinstance(await heard(workers.pretend(Ready(before))), Restart)


@on_a_loop
async def test_the_leader_looks_at_the_folder_for_all(folder: Path) -> None:
    async with working(folder, poll_s=1) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await until(lambda: workers.versions() == [[1, 2], [1, 2]])
