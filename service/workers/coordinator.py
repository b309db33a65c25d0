"""Makes all workers serve the same models: a change is made in every worker or in none.

A change that a worker requests, or that the models folder calls for, goes to the coordinator in the supervisor. It has
all workers load the new versions beside the served ones. When all have reported, they switch to the versions that each
of them has loaded.

- If a worker dies while it loads, the change fails and the other workers keep what they serve.
- A worker that dies or fails while it switches is replaced by one that starts with the new status.
- A worker that does not reply in time is told to restart.
- A worker that started with a status that has changed meanwhile is told to restart.
"""

import threading
import time
from collections import deque
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import structlog

from export.format.artifact import ArtifactError
from service.background import BegunCall, BlockingCalls, Failures, backoff_s
from service.repository.mirror import SCAN_TIMEOUT_S, scan_models, scan_timeout_s
from service.repository.plan import NOTHING, Change, ModelStatus, is_outdated, merge_reports, target_versions
from service.repository.poller import Poller, Scan
from service.repository.startup import find_folders
from service.settings import Settings
from service.workers.messages import (
    ChangePending,
    ChangeRequest,
    ChangeResult,
    Commit,
    Deregister,
    ModelStatuses,
    Prepare,
    PrepareFailed,
    Ready,
    Restart,
    are_equal,
    limit_waits,
    readable,
    shut,
)

TICK_S = 0.1
PENDING_S = 1.0
"""Interval at which workers are told that the changes they requested are pending."""
LOST = "a worker failed while it loaded this version; the log has the reason"

log = structlog.get_logger(__name__)


class Coordinator:
    """Makes changes in all workers. Runs in a thread of the supervisor."""

    def __init__(self, settings: Settings, statuses: ModelStatuses, failures: Failures | None = None) -> None:
        """``statuses`` are the statuses with which the first workers start."""
        self.statuses: ModelStatuses = dict(statuses)
        """The present status of each model, with which a new worker starts."""
        self._settings = settings
        self._failures = failures or Failures()
        self._poller = Poller(settings)
        self._scanner = BlockingCalls("scan-models")
        self._copier = BlockingCalls("copy-models")
        """Scans that copy from a URL first; changes do not wait for them."""
        self._scan: BegunCall[Scan] | None = None
        """The scan of the poll that is in progress."""
        self._changed_meanwhile: set[str] = set()
        """Models with a requested change since that scan began, which knows nothing of it."""
        self._failed_polls = 0
        self._next_poll = time.monotonic() + settings.poll_s
        self._next_pending = 0.0
        self._pipes: list[Connection] = []
        self._participants: list[Connection] = []
        self._requests: deque[tuple[Connection, ChangeRequest]] = deque()
        """Requested changes that have no result yet; the first is in progress."""

    def admit(self, pipe: Connection) -> None:
        """Listen to a worker that has been started."""
        limit_waits(pipe)
        self._pipes.append(pipe)

    def start(self) -> None:
        """Begin to coordinate."""
        threading.Thread(target=self._run, name="coordinator", daemon=True).start()

    @property
    def size(self) -> int:
        """The number of workers that take part in changes."""
        return len(self._participants)

    def _run(self) -> None:
        failed = 0
        while True:
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 - without this thread no model could be loaded any more
                failed += 1
                self._failures.record("coordinate", error)
                time.sleep(backoff_s(TICK_S, failed))
            else:
                failed = 0

    def _step(self) -> None:
        """Handle the messages of the workers, the changes that they request, and changes in the folder."""
        for pipe in readable(list(self._pipes), TICK_S):
            self._receive(pipe)
        while self._requests:
            pipe, request = self._requests[0]
            self._changed_meanwhile.add(request.change.name)
            if request.change.switch is None:
                self._poller.record_request(request.change)
            try:
                status = self._make(request.change)
            except Exception as error:  # noqa: BLE001 - the worker waits for a result
                self._failures.record("coordinate", error)
                status = None
            self._requests.popleft()
            self._send(pipe, ChangeResult(request.number, status))
        if self._settings.poll_s:
            self._poll()

    def _poll(self) -> None:
        """Begin a scan when the next one is due. When it is over, make the changes that it calls for.

        Models that a request has changed since then are left as they are until the next scan.
        """
        try:
            if self._scan is None and self._participants and time.monotonic() >= self._next_poll:
                self._changed_meanwhile.clear()
                scan_all = partial(scan_models, self._settings, self._failures)
                self._scan = self._copier.begin(scan_all, scan_timeout_s(self._settings))
            if self._scan is None or not self._scan.is_over:
                return
            begun, self._scan = self._scan, None
            scan = {**begun.result(), **dict.fromkeys(self._changed_meanwhile)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the next scan begins after a pause
            self._failed_polls += 1
            self._next_poll = time.monotonic() + backoff_s(self._settings.poll_s, self._failed_polls)
            self._failures.record("poll_models", error)
            return
        self._failed_polls = 0
        if not self._participants:  # by the time that there are some again, it is outdated
            return
        for change in self._poller.changes(scan):
            try:
                status = self._make(change)
            except Exception as error:  # noqa: BLE001 - the other changes are still to be made
                self._poller.mark_outdated(change.name)
                self._failures.record("poll_models", error, model=change.name)
            else:
                self._poller.record_outcome(change.name, failed=bool(status.failed))
        self._next_poll = time.monotonic() + self._settings.poll_s

    def _receive(self, pipe: Connection) -> Any:
        """Handle the next message of a worker and return it; None if the worker is gone."""
        try:
            message = pipe.recv()
        except Exception as error:  # noqa: BLE001 - a worker that dies may leave half a message
            if not isinstance(error, EOFError | ConnectionError):
                self._failures.record("coordinate", error)
            message = None
        match message:
            case None:
                self._pipes.remove(pipe)
                self._forget(pipe)
                pipe.close()
            case Deregister():
                self._forget(pipe)
            case Ready(statuses):
                if are_equal(statuses, self.statuses):
                    self._participants.append(pipe)
                else:
                    log.warning("worker_outdated")
                    self._send(pipe, Restart())
            case ChangeRequest():
                self._requests.append((pipe, message))
        return message

    def _make(self, change: Change) -> ModelStatus:
        before = self.statuses.get(change.name, NOTHING)
        if is_outdated(change, before):
            return before
        targets = self._target_versions(change, before)
        participants = list(self._participants)
        read = targets if change.switch is None else set(targets) - before.served.keys()
        timeout_s = self._settings.inference_timeout_s + len(read) * self._settings.load_timeout_s
        replies = self._ask(participants, Prepare(change), timeout_s)
        reports = [reply for reply in replies if isinstance(reply, ModelStatus)]
        if not reports or any(reply is None or isinstance(reply, PrepareFailed) for reply in replies):
            reports.append(ModelStatus({}, dict.fromkeys(targets, LOST)))
        after = merge_reports(before, reports, change.switch)
        others = {name: status for name, status in self.statuses.items() if name != change.name}
        self.statuses = others | ({change.name: after} if any(after) else {})
        participants = [pipe for pipe in participants if pipe in self._participants]
        self._ask(participants, Commit(change.name, after), self._settings.inference_timeout_s)
        return after

    def _ask(self, pipes: list[Connection], message: object, timeout_s: float) -> list[object]:
        """The replies of workers to ``message``; None for a worker that died or did not reply in time."""
        deadline = time.monotonic() + timeout_s
        replies: list[object] = []
        waiting = list(pipes)
        try:
            for pipe in pipes:
                self._send(pipe, message)
            while waiting and (left_s := deadline - time.monotonic()) > 0:
                for pipe in readable(waiting, min(left_s, PENDING_S)):
                    reply = self._receive(pipe)
                    if not isinstance(reply, ChangeRequest):
                        replies.append(reply)
                        waiting.remove(pipe)
                self._send_pending()
        finally:  # a late reply must not be taken for the reply to another message
            for pipe in waiting:
                log.error("worker_timeout", seconds=timeout_s)
                self._forget(pipe)
                self._send(pipe, Restart())
        return replies + [None] * len(waiting)

    def _send_pending(self) -> None:
        if time.monotonic() >= self._next_pending:
            self._next_pending = time.monotonic() + PENDING_S
            for pipe in {pipe for pipe, _ in self._requests}:
                self._send(pipe, ChangePending())

    def _target_versions(self, change: Change, before: ModelStatus) -> list[int]:
        if change.switch is not None:  # it names its versions, whatever the folder has
            return target_versions(change, (), before)
        find = partial(find_folders, self._settings.models_folder, lambda _, __: None)
        try:
            return target_versions(change, self._scanner.run(find, SCAN_TIMEOUT_S), before)
        except (ArtifactError, OSError):
            return sorted(before.served)

    def _send(self, pipe: Connection, message: object) -> None:
        try:
            if not pipe.closed:
                pipe.send(message)
        except ConnectionError:
            log.debug("worker_gone")  # the next read of its pipe fails too
        except OSError as error:
            self._failures.record("coordinate", error)
            shut(pipe)  # half a message may have been sent; the worker restarts

    def _forget(self, pipe: Connection) -> None:
        if pipe in self._participants:
            self._participants.remove(pipe)
