"""The repository of a worker, which makes changes only together with all other workers."""

import asyncio
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import structlog

from service.background import Failures
from service.errors import LoadFailedError
from service.inference.loading import Opener
from service.inference.registry import Models
from service.repository.plan import Change, ModelStatus, pinned
from service.repository.repository import Repository
from service.settings import Settings
from service.workers.messages import (
    ChangeRequest,
    ChangeResult,
    Commit,
    Committed,
    Deregister,
    ModelStatuses,
    Prepare,
    PrepareFailed,
    Ready,
    Restart,
    limit_waits,
)

COORDINATOR_TIMEOUT_S = 30.0
"""Longest silence of the coordinator while a requested change is pending."""

log = structlog.get_logger(__name__)


class Participant(Repository):
    """The repository of a worker. The coordinator decides about its changes."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        pipe: Connection,
        statuses: ModelStatuses,
        opener: Opener | None = None,
        failures: Failures | None = None,
    ) -> None:
        """``pipe`` leads to the coordinator, which had this worker load ``statuses``."""
        super().__init__(settings, models, opener, failures)
        self.statuses = dict(statuses)
        models.pin(pinned(self.statuses))
        limit_waits(pipe)
        self._pipe = pipe
        self._requests: dict[int, asyncio.Future[ModelStatus | None]] = {}
        self._requested = 0
        self._heard = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Register with the coordinator."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), name="participant", daemon=True).start()
        self._send(Ready(self.statuses))

    def close(self) -> None:
        """Take no part in further changes."""
        self._send(Deregister())
        super().close()

    async def apply(self, change: Change) -> ModelStatus:
        """Have the coordinator make a change in all workers.

        Raises:
            LoadFailedError: the coordinator failed, or is silent for `COORDINATOR_TIMEOUT_S`.
        """
        self._requested += 1
        number = self._requested
        result = self._requests[number] = asyncio.get_running_loop().create_future()
        self._heard = time.monotonic()
        self._send(ChangeRequest(number, change))
        try:
            while not result.done():
                left_s = self._heard + COORDINATOR_TIMEOUT_S - time.monotonic()
                if left_s <= 0:
                    raise LoadFailedError("the supervisor does not answer; restart the service if it does not recover")
                await asyncio.wait([result], timeout=left_s)
        finally:
            del self._requests[number]
        status: ModelStatus | None = result.result()
        if status is None:
            raise LoadFailedError("the supervisor failed to make this change; its log has the reason")
        return status

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Receive messages until this worker or the supervisor ends."""
        while not self._closed:
            try:
                if self._pipe.poll(None):
                    loop.call_soon_threadsafe(self._receive, self._pipe.recv())
            except Exception as error:  # noqa: BLE001 - without messages this worker would serve outdated models
                if loop.is_closed() or self._closed:
                    return
                self.failures.record("participate", error)
                restart()
                return

    def _receive(self, message: Any) -> None:
        self._heard = time.monotonic()
        match message:
            case Prepare(change):
                task = asyncio.create_task(self._report(change))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Commit(name, status):
                try:
                    self.commit(name, status)
                except Exception:
                    log.exception("unhandled_exception")
                    self._send(Deregister())
                    restart()
                else:
                    self._send(Committed())
            case ChangeResult(number, status):
                if number in self._requests and not self._requests[number].done():
                    self._requests[number].set_result(status)
            case Restart():
                restart()

    async def _report(self, change: Change) -> None:
        try:
            report: ModelStatus | PrepareFailed = await self.prepare(change)
        except Exception:
            log.exception("unhandled_exception")
            report = PrepareFailed()
        self._send(report)

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            log.debug("supervisor_gone", error=str(error))


def restart() -> None:
    """Stop this worker in order; the supervisor starts another one in its place."""
    os.kill(os.getpid(), signal.SIGTERM)
