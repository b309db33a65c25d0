"""Several processes that serve the same models: all change together, or none does.

A change that one worker is asked for, or that the folder calls for, goes to the leader, in the supervisor. It has all
workers load what is new beside what they serve; when all have reported, they switch to what each of them could load.

- A worker that dies while it loads fails the change: the others go on with what they have.
- One that dies or fails while it switches is replaced by one that starts with the new standings.
- One that does not reply in time is taken for dead and told to leave, should it come back.
- One that started with others than those of the present, since they changed meanwhile, ends and is replaced.
"""

import asyncio
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import structlog

from export.artifact import ArtifactError
from service.inference.registry import Models, Opener, find_folders
from service.repository.plan import Change, ModelStatus, merge_reports, target_versions
from service.repository.poller import Poller
from service.repository.repository import Repository
from service.settings import Settings

TICK_S = 0.1
LOST = "a worker failed while it loaded it; the log says how"

ModelStatuses = Mapping[str, ModelStatus]

log = structlog.get_logger(__name__)


class Ready(NamedTuple):
    """A worker serves, and this is what."""

    standings: ModelStatuses


class ChangeRequest(NamedTuple):
    """A worker was asked for a change."""

    number: int
    change: Change


class ChangeResult(NamedTuple):
    """The outcome of a wish."""

    number: int
    standing: ModelStatus


class Prepare(NamedTuple):
    """Load what this takes, and report a standing."""

    change: Change


class Failed(NamedTuple):
    """A worker has nothing to report, since it could not do what was asked."""


class Commit(NamedTuple):
    """Serve this from now on, and say `Done`."""

    name: str
    standing: ModelStatus


class Done(NamedTuple):
    """A worker has switched."""


class Restart(NamedTuple):
    """A worker is to end, so that another one takes its place."""


class Deregister(NamedTuple):
    """A worker ends, and takes no part any more."""


class Coordinator:
    """Makes changes in all workers. Runs in a thread of the supervisor."""

    def __init__(self, settings: Settings, standings: ModelStatuses) -> None:
        """``standings`` is what the first workers are started with."""
        self.standings: ModelStatuses = dict(standings)
        """Of the present: what a worker that is started now has to load."""
        self._settings = settings
        self._watch = Poller(settings)
        self._next_look = time.monotonic() + settings.poll_s
        self._pipes: list[Connection] = []
        self._members: list[Connection] = []
        self._wishes: deque[tuple[Connection, ChangeRequest]] = deque()

    def admit(self, pipe: Connection) -> None:
        """Listen to a worker that has been started."""
        self._pipes.append(pipe)

    def start(self) -> None:
        """Begin to lead."""
        threading.Thread(target=self._run, name="leader", daemon=True).start()

    @property
    def size(self) -> int:
        """How many workers take part in changes."""
        return len(self._members)

    def _run(self) -> None:
        while True:
            for pipe in arrived(self._pipes, TICK_S):
                self._hear(pipe)
            while self._wishes:
                pipe, wish = self._wishes.popleft()
                self._watch.note(wish.change)
                self._send(pipe, ChangeResult(wish.number, self._make(wish.change)))
            if self._settings.poll_s and self._members and time.monotonic() >= self._next_look:
                for change in self._watch.changes():
                    self._make(change)
                self._next_look = time.monotonic() + self._settings.poll_s

    def _hear(self, pipe: Connection) -> Any:
        """Take the next message of a worker, None if it has gone, and return it."""
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            message = None
        match message:
            case None:
                self._pipes.remove(pipe)
                self._forget(pipe)
                pipe.close()
            case Deregister():
                self._forget(pipe)
            case Ready(standings):
                if served(standings) == served(self.standings):
                    self._members.append(pipe)
                else:
                    log.warning("worker_outdated")
                    self._send(pipe, Restart())
            case ChangeRequest():
                self._wishes.append((pipe, message))
        return message

    def _make(self, change: Change) -> ModelStatus:
        before = self.standings.get(change.name, ModelStatus({}, {}))
        target_versions = self._target_versions(change, before)
        asked = list(self._members)
        replies = self._ask(
            asked,
            Prepare(change),
            self._settings.inference_timeout_s + len(target_versions) * self._settings.load_timeout_s,
        )
        reports = [reply for reply in replies if isinstance(reply, ModelStatus)]
        if not reports or any(reply is None or isinstance(reply, Failed) for reply in replies):
            reports.append(ModelStatus({}, dict.fromkeys(target_versions, LOST)))
        after = merge_reports(before, reports)
        others = {name: standing for name, standing in self.standings.items() if name != change.name}
        self.standings = others | ({change.name: after} if any(after) else {})
        self._ask(
            [pipe for pipe in asked if pipe in self._members],
            Commit(change.name, after),
            self._settings.inference_timeout_s,
        )
        return after

    def _ask(self, pipes: list[Connection], message: object, patience_s: float) -> list[object]:
        """The replies of these workers; None of one that died, or did not reply in time."""
        deadline = time.monotonic() + patience_s
        replies: list[object] = []
        waiting = list(pipes)
        for pipe in pipes:
            self._send(pipe, message)
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for pipe in arrived(waiting, left_s):
                reply = self._hear(pipe)
                if not isinstance(reply, ChangeRequest):
                    replies.append(reply)
                    waiting.remove(pipe)
        for pipe in waiting:
            log.error("worker_timeout", seconds=patience_s)
            self._forget(pipe)
            self._send(pipe, Restart())
        return replies + [None] * len(waiting)

    def _target_versions(self, change: Change, before: ModelStatus) -> list[int]:
        try:
            return target_versions(change, find_folders(self._settings.models), before.served)
        except ArtifactError:
            return sorted(before.served)

    def _send(self, pipe: Connection, message: object) -> None:
        try:
            pipe.send(message)
        except OSError:
            log.debug("worker_gone")  # its pipe says so too

    def _forget(self, pipe: Connection) -> None:
        if pipe in self._members:
            self._members.remove(pipe)


class Participant(Repository):
    """The repository of a worker, whose changes the leader decides."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        pipe: Connection,
        standings: ModelStatuses,
        opener: Opener | None = None,
    ) -> None:
        """``standings`` is what the leader said was to be loaded, ``pipe`` leads to it."""
        super().__init__(settings, models, opener)
        self.standings = dict(standings)
        self._pipe = pipe
        self._wishes: dict[int, asyncio.Future[ModelStatus]] = {}
        self._wished = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take part from now on."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), name="member", daemon=True).start()
        self._send(Ready(self.standings))

    def close(self) -> None:
        """Take part no more."""
        self._send(Deregister())
        super().close()

    async def apply(self, change: Change) -> ModelStatus:
        """Have the leader make a change in all workers."""
        self._wished += 1
        number = self._wished
        self._wishes[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(ChangeRequest(number, change))
            return await self._wishes[number]
        finally:
            del self._wishes[number]

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.call_soon_threadsafe(self._hear, self._pipe.recv())
            except (EOFError, OSError, RuntimeError):  # the supervisor, or the loop, is gone
                return

    def _hear(self, message: Any) -> None:
        match message:
            case Prepare(change):
                task = asyncio.create_task(self._report(change))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Commit(name, standing):
                try:
                    self.commit(name, standing)
                except Exception:
                    log.exception("unhandled_exception")
                    self._send(Deregister())
                    leave()
                else:
                    self._send(Done())
            case ChangeResult(number, standing):
                if number in self._wishes and not self._wishes[number].done():
                    self._wishes[number].set_result(standing)
            case Restart():
                leave()

    async def _report(self, change: Change) -> None:
        try:
            report: ModelStatus | Failed = await self.prepare(change)
        except Exception:
            log.exception("unhandled_exception")
            report = Failed()
        self._send(report)

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            log.debug("supervisor_gone")


def leave() -> None:
    """End this worker in order; another one takes its place."""
    os.kill(os.getpid(), signal.SIGTERM)


def arrived(pipes: list[Connection], timeout: float) -> list[Connection]:
    """Those of ``pipes`` that have something to say, once there is one or the seconds of ``timeout`` are over."""
    waiting = list(pipes)
    speaking = wait(waiting, timeout)
    return [pipe for pipe in waiting if pipe in speaking]


def served(standings: ModelStatuses) -> dict[str, dict[int, str]]:
    """What of it is served, by name."""
    return {name: dict(standing.served) for name, standing in standings.items() if standing.served}
