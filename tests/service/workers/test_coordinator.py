"""All workers change together or none does: a coordinator and participants over real pipes, here in one process."""

import asyncio
import errno
import os
import signal
from multiprocessing import Pipe
from pathlib import Path

import pytest

from service.errors import ConflictError, LoadFailedError, ModelNotFoundError, NotReadyError
from service.repository import repository as repository_module
from service.repository.plan import CHANGED, Change, ModelStatus
from service.repository.repository import State, initial_statuses
from service.repository.startup import load_models
from service.repository.traffic import Rollout, Traffic
from service.settings import Settings
from service.workers import coordinator as coordinator_module
from service.workers import messages as messages_module
from service.workers import participant as participant_module
from service.workers.coordinator import LOST
from service.workers.messages import Commit, Committed, Deregister, Prepare, PrepareFailed, Ready, Restart
from service.workers.participant import Participant
from tests.service import artifacts
from tests.service.loops import on_a_loop
from tests.service.repository.test_repository import folder, until
from tests.service.workers.coordinating import heard, working

__all__ = ["folder"]  # a fixture


@on_a_loop
async def test_what_one_is_asked_for_all_do(folder: Path) -> None:
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]
        await workers.participants[1].unload("digits")
        assert workers.versions() == [[], []]
        with pytest.raises(ModelNotFoundError):
            await workers.participants[0].load("letters")


@on_a_loop
async def test_all_divide_requests_alike_and_those_that_start_later_too(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder) as workers:
        one, other = workers.participants
        traffic = Traffic(1, Rollout(2, 0.5, 0.5))
        await one.switch("digits", traffic, None)
        workers.participants.append(workers.start())
        assert [each.statuses["digits"].traffic for each in workers.participants] == [traffic] * 3
        await until(lambda: workers.coordinator.size == 3)
        results = await asyncio.gather(
            one.switch("digits", None, traffic), other.switch("digits", Traffic(1), traffic), return_exceptions=True
        )
        assert [type(result) for result in results].count(ConflictError) == 1, "the first one wins"
        assert len({each.statuses["digits"].traffic for each in workers.participants}) == 1
        assert workers.participants[0].statuses["digits"].traffic in (None, Traffic(1))


@on_a_loop
async def test_a_switch_that_a_worker_does_not_answer_is_made_by_nobody_and_says_so(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder, inference_timeout_s=1) as workers:  # load_timeout_s is long, but nothing is loaded
        blocked = await workers.join()
        one, other = workers.participants
        with pytest.raises(NotReadyError, match="a worker failed or did not answer, so nothing has changed"):
            await one.switch("digits", Traffic(1), None)
        assert isinstance(await heard(blocked), Prepare)
        assert isinstance(await heard(blocked), Restart)
        assert [each.statuses["digits"].traffic for each in workers.participants] == [None, None]
        assert not any(entry.reason for entry in one.index()), "the versions that are served are without fault"
        await other.switch("digits", Traffic(1), None)
        assert [each.statuses["digits"].traffic for each in workers.participants] == [Traffic(1)] * 2


@on_a_loop
async def test_a_worker_that_is_blocked_while_all_switch_restarts_and_the_others_have_switched(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder, inference_timeout_s=1) as workers:
        blocked = await workers.join()
        switch = asyncio.create_task(workers.participants[0].switch("digits", Traffic(1), None))
        assert isinstance(await heard(blocked), Prepare)
        blocked.send(ModelStatus(workers.coordinator.statuses["digits"].served, {}))
        assert isinstance(await heard(blocked), Commit)
        await switch
        assert isinstance(await heard(blocked), Restart)
        assert [each.statuses["digits"].traffic for each in workers.participants] == [Traffic(1)] * 2


@on_a_loop
async def test_a_switch_looks_at_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> dict[tuple[str, int], Path]:
        looks.append(1)
        return {}

    looks: list[int] = []
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder) as workers:
        monkeypatch.setattr(coordinator_module, "find_folders", look)
        monkeypatch.setattr(repository_module, "find_folders", look)
        await workers.participants[0].switch("digits", Traffic(1), None)
        assert not looks, "a slow one would have all workers restarted"


@on_a_loop
async def test_a_switch_has_the_time_to_load_its_version_though_the_supervisor_cannot_list_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    async with working(folder, inference_timeout_s=1) as workers:
        monkeypatch.setattr(coordinator_module, "find_folders", fail)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        slow = await workers.join()
        switch = asyncio.create_task(workers.participants[0].switch("digits", Traffic(1, Rollout(2, 1.0, 0.0)), None))
        assert isinstance(await heard(slow), Prepare)
        await asyncio.sleep(1.5)
        slow.send(Deregister())
        await switch
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_a_switch_in_which_a_worker_fails_is_made_by_nobody_and_that_worker_stays(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder) as workers:
        failing = await workers.join()
        switch = asyncio.create_task(workers.participants[0].switch("digits", Traffic(1), None))
        assert isinstance(await heard(failing), Prepare)
        failing.send(PrepareFailed())
        assert isinstance(await heard(failing), Commit)
        failing.send(Committed())
        with pytest.raises(NotReadyError, match="failed or did not answer, so nothing has changed"):
            await switch
        assert workers.coordinator.size == 3


@on_a_loop
async def test_one_that_starts_with_traffic_of_the_past_is_told_to_restart(folder: Path) -> None:
    artifacts.write_labelled(folder / "digits" / "2", "two-")
    async with working(folder) as workers:
        before = dict(workers.coordinator.statuses)
        await workers.participants[0].switch("digits", Traffic(1), None)
        late = workers.pretend(Ready(before))
        assert isinstance(await heard(late), Restart)


@on_a_loop
async def test_all_say_why_a_version_could_not_be_loaded(folder: Path) -> None:
    async with working(folder) as workers:
        (artifacts.write_labelled(folder / "digits" / "2", "bad-") / artifacts.MODEL).unlink()
        with pytest.raises(LoadFailedError, match="digits/2"):
            await workers.participants[0].load("digits")
        workers.participants.append(workers.start())
        for participant in workers.participants:
            one, two = participant.index()
            assert (one.state, two.state) == (State.READY, State.UNAVAILABLE)
            assert "cannot read" in two.reason


@on_a_loop
async def test_changes_that_are_asked_for_at_once_are_made_one_after_another(folder: Path) -> None:
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        artifacts.write_labelled(folder / "letters" / "1", "l-")
        one, other = workers.participants
        await asyncio.gather(one.load("digits"), other.load("letters"), other.unload("digits"), one.load("letters"))
        of_one, of_other = workers.versions()
        assert of_one == of_other
        assert of_one in ([1], [1, 2, 1]), "as the last of the two about digits said"


@on_a_loop
async def test_one_that_dies_while_it_loads_fails_the_change_for_all(folder: Path) -> None:
    async with working(folder) as workers:
        mortal = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(mortal), Prepare)
        mortal.close()
        with pytest.raises(LoadFailedError, match=LOST):
            await load
        assert workers.versions() == [[1], [1]]
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]], "the others go on"


@on_a_loop
async def test_one_that_dies_while_it_switches_fails_nothing(folder: Path) -> None:
    async with working(folder) as workers:
        mortal = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(mortal), Prepare)
        mortal.send(ModelStatus(dict(initial_statuses(load_models(workers.settings))["digits"].served), {}))
        assert isinstance(await heard(mortal), Commit)
        mortal.close()
        await load
        workers.participants.append(workers.start())
        assert workers.versions() == [[1, 2]] * 3, "its replacement comes up with the present set"


@on_a_loop
@pytest.mark.parametrize("replies", [0, 1], ids=["to what it is to load", "to what it is to serve"])
async def test_one_that_does_not_reply_holds_up_nobody_for_long_and_is_to_leave(folder: Path, replies: int) -> None:
    async with working(folder, inference_timeout_s=5, load_timeout_s=5) as workers:
        silent = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(silent), Prepare)
        if replies:
            silent.send(ModelStatus(dict(workers.coordinator.statuses["digits"].served), {}))
            assert isinstance(await heard(silent), Commit)
        assert isinstance(await heard(silent), Restart)
        with pytest.raises(LoadFailedError, match=CHANGED if replies else LOST):
            await load
        await workers.participants[0].load("digits")
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
            broken.setattr(workers.participants[1], "prepare", fail)
            with pytest.raises(LoadFailedError, match=LOST):
                await workers.participants[0].load("digits")
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_one_that_cannot_switch_takes_no_part_any_more_and_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, status: ModelStatus) -> None:
        raise ValueError(name, status)

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: told.append(call))
    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        monkeypatch.setattr(workers.participants[1], "commit", fail)
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2], [1]]
        assert told == [(os.getpid(), signal.SIGTERM)]
        assert workers.coordinator.size == 1


@on_a_loop
async def test_one_that_read_another_folder_than_the_others_fails_the_change(folder: Path) -> None:
    async with working(folder) as workers:
        other = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(other), Prepare)
        other.send(ModelStatus({**workers.coordinator.statuses["digits"].served, 2: "something else"}, {}))
        assert isinstance(await heard(other), Commit)
        other.send(Committed())
        with pytest.raises(LoadFailedError, match="changed while workers read it"):
            await load
        assert workers.versions() == [[1], [1]]


@on_a_loop
async def test_one_that_ends_in_order_takes_no_part(folder: Path) -> None:
    async with working(folder) as workers:
        leaving = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(leaving), Prepare)
        leaving.send(Deregister())
        await load
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_one_that_started_with_what_is_outdated_is_told_to_leave(folder: Path) -> None:
    async with working(folder) as workers:
        before = workers.coordinator.statuses
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await workers.participants[0].load("digits")
        assert isinstance(await heard(workers.pretend(Ready(before))), Restart)


@on_a_loop
async def test_a_change_in_which_the_coordinator_fails_is_answered_and_the_next_one_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> ModelStatus:
        raise ValueError("a defect")

    async with working(folder) as workers:
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        with monkeypatch.context() as broken:
            broken.setattr(coordinator_module, "merge_reports", fail)
            with pytest.raises(LoadFailedError, match="the supervisor failed"):
                await workers.participants[0].load("digits")
        assert workers.failures.counts() == {"coordinate": 1}
        await workers.participants[1].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]


@on_a_loop
async def test_a_coordinator_that_is_silent_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participant_module, "COORDINATOR_TIMEOUT_S", 0.5)
    settings = Settings(models=folder, device="cpu")
    models = load_models(settings)
    ours, theirs = Pipe()  # nobody reads what comes through it
    lonely = Participant(settings, models, theirs, initial_statuses(models))
    lonely.start()
    with pytest.raises(LoadFailedError, match="the supervisor does not answer"):
        await lonely.load("digits")
    lonely.close()
    ours.send(Ready({}))  # its thread ends


@on_a_loop
async def test_a_load_that_takes_longer_than_the_coordinator_may_be_silent_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participant_module, "COORDINATOR_TIMEOUT_S", 1.0)
    monkeypatch.setattr(coordinator_module, "PENDING_S", 0.1)
    async with working(folder) as workers:
        slow = await workers.join()
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        load = asyncio.create_task(workers.participants[0].load("digits"))
        assert isinstance(await heard(slow), Prepare)
        await asyncio.sleep(2)
        slow.send(Deregister())
        await load
        assert workers.versions() == [[1, 2], [1, 2]]


@pytest.mark.parametrize("sent", [b"\0\0\0\x08garbage!", b"\0\0\0\x08half"], ids=["garbage", "half a message"])
@on_a_loop
async def test_a_worker_whose_messages_cannot_be_read_holds_up_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(messages_module, "IO_TIMEOUT_S", 1)
    async with working(folder) as workers:
        mad = await workers.join()
        os.write(mad.fileno(), sent)
        await until(lambda: workers.coordinator.size == 2)
        assert workers.failures.counts() == {"coordinate": 1}
        with pytest.raises((EOFError, OSError)):
            await heard(mad)
        artifacts.write_labelled(folder / "digits" / "2", "two-")
        await workers.participants[0].load("digits")
        assert workers.versions() == [[1, 2], [1, 2]]
