"""Starts the worker processes, and replaces workers that die or hang."""

import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import NoReturn

import structlog

from service.app import create_app
from service.background import Failures, backoff_s
from service.errors import StartError
from service.logging import LogWriter, configure_logs
from service.metrics.multiprocess import WorkerSlot
from service.middleware.auth import AccessPolicy
from service.repository.startup import load_models
from service.server.server import CANNOT_START, LAST_S, Server
from service.settings import Settings
from service.state import Worker
from service.workers.coordinator import Coordinator
from service.workers.messages import ModelStatuses, served_versions
from service.workers.participant import Participant
from service.workers.shared_folder import SharedFolder

SHORT_LIFE_S = 5.0
"""A worker that dies sooner is replaced after a pause, which doubles with each such death in a row."""
PAUSE_S = 1.0
CHECK_S = 0.1
"""Interval between checks of the workers."""
GROUP_SIGNALS = {signal.SIGINT, signal.SIGHUP}
SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork

log = structlog.get_logger(__name__)


class Supervisor:
    """Keeps ``settings.workers`` processes alive."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        on_ready: Callable[[], None],
        statuses: ModelStatuses,
        log_writer: LogWriter,
    ) -> None:
        """``statuses`` are the models to serve. ``on_ready`` is called when all workers answer.

        ``log_writer`` writes the log of this process.

        Raises:
            StartError: the folder for shared metrics cannot be created.
        """
        self._settings = settings
        self._failures = Failures()
        self._coordinator = Coordinator(settings, statuses, self._failures)
        self._listener = listener
        self._log_writer = log_writer
        self._on_ready = on_ready
        self._shared_folder = SharedFolder()
        self._ready = SPAWN.RawArray("b", settings.workers)
        self._beats = SPAWN.RawArray("L", settings.workers)
        self._shared_counts = SPAWN.RawArray("L", 2)
        """See `WorkerSlot.supervisor`."""
        self._heard = [0] * settings.workers
        """The beats of each worker at the last check."""
        self._silent = [0] * settings.workers
        """Checks since the last beat of each worker that is ready."""
        self._next_check = 0.0
        self._workers: dict[int, BaseProcess] = {}
        self._started: dict[int, float] = {}
        self._due = dict.fromkeys(range(settings.workers), 0.0)
        """The time at which each missing worker starts."""
        self._short_lives = [0] * settings.workers
        """Number of early deaths or failed starts in a row of each worker."""
        self._signals = 0
        self._latest = math.inf
        """The time at which stopping workers are killed."""
        self._announced = False
        self._old: list[int] = []
        """Workers that are to be replaced one after the other."""
        self._leaving: int | None = None
        """The one of them that was told to stop."""

    def run(self) -> NoReturn:
        """Serve until told to stop, and end the process."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)
        if sys.stdin is None or not sys.stdin.isatty():  # a terminal that closes sends SIGHUP too, and means the end
            signal.signal(signal.SIGHUP, self._replace_all)
        resource_tracker.ensure_running()  # before `_start` blocks signals
        self._coordinator.start()
        try:
            status = self._supervise()
        finally:
            self._shared_folder.remove()
        self._log_writer.flush()
        os._exit(status)  # Python would wait for a scan of the models, which may never end

    def _supervise(self) -> int:
        status = forwarded = 0
        while self._workers or not self._signals:
            if not self._signals:
                self._start_due()
                self._replace_next()
            wait([worker.sentinel for worker in self._workers.values()], timeout=CHECK_S)
            for index, worker in list(self._workers.items()):
                if not worker.is_alive():
                    status = max(status, self._reap(index, worker))
            if not self._announced and all(self._ready):
                self._announced = True
                self._on_ready()
            if forwarded < self._signals:  # not in the handler, so that workers that have just started get it too
                self._signal_workers(at_once=forwarded > 0)
                forwarded += 1
            if time.monotonic() > self._next_check:
                self._next_check = time.monotonic() + CHECK_S
                self._check_heartbeats()
                self._shared_counts[:] = sum(self._failures.counts().values()), self._log_writer.dropped
        return status

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, due in self._due.items() if due <= now]:
            try:
                self._start(index)
            except OSError as error:  # out of memory, processes or file descriptors for now
                self._short_lives[index] += 1
                pause_s = backoff_s(PAUSE_S, self._short_lives[index] - 1)
                self._due[index] = now + pause_s
                self._failures.record("start_worker", error, worker=index, retry_s=pause_s)
            else:
                del self._due[index]

    def _start(self, index: int) -> None:
        ours, theirs = SPAWN.Pipe()
        slot = WorkerSlot(self._shared_folder.path, index, self._ready, self._beats, self._shared_counts)
        arguments = (self._settings, self._listener, slot, theirs, self._coordinator.statuses)
        worker = SPAWN.Process(target=work, args=arguments)
        # They may reach the whole process group. Only the supervisor handles them; workers inherit the blocked signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            worker.start()
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
            theirs.close()
        self._coordinator.admit(ours)
        self._workers[index] = worker
        self._started[index] = time.monotonic()

    def _reap(self, index: int, worker: BaseProcess) -> int:
        """Record that a worker has ended, schedule its replacement while serving, and return the exit status."""
        self._ready[index] = 0
        self._silent[index] = 0
        del self._workers[index]
        exit_code = worker.exitcode
        if self._signals:
            return int(exit_code not in (0, -signal.SIGTERM))  # SIGTERM while it is still loading
        if index == self._leaving:
            self._leaving = None
            self._short_lives[index] = 0
            self._due[index] = time.monotonic()
            log.info("worker_replaced", worker=index, pid=worker.pid, left=len(self._old))
            return 0
        log.error("worker_died", worker=index, pid=worker.pid, exit=exit_code)
        if exit_code == CANNOT_START and not self._announced:
            self._stop()
            return 1
        now = time.monotonic()
        self._short_lives[index] = self._short_lives[index] + 1 if now - self._started[index] < SHORT_LIFE_S else 0
        self._due[index] = now + (backoff_s(PAUSE_S, self._short_lives[index] - 1) if self._short_lives[index] else 0)
        return 0

    def _stop(self, sig: int = 0, frame: FrameType | None = None) -> None:
        """Have the workers answer the requests in flight and stop; on a second call, stop at once."""
        self._signals += 1

    def _replace_all(self, sig: int, frame: FrameType | None) -> None:
        """Have all workers replaced, one after the other."""
        self._old = list(range(self._settings.workers))

    def _replace_next(self) -> None:
        """Tell the next worker that is to be replaced to stop, if all are ready: never more than one is away."""
        if self._old and self._leaving is None and all(self._ready):
            self._leaving = self._old.pop(0)
            pid = self._workers[self._leaving].pid
            if pid is not None:
                os.kill(pid, signal.SIGTERM)

    def _signal_workers(self, *, at_once: bool) -> None:
        """Tell all workers to stop. SIGTERM never means at once, since the process group may send it as well."""
        self._latest = time.monotonic() + 2 * LAST_S + (0 if at_once else self._settings.shutdown_timeout_s)
        for worker in self._workers.values():
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signal.SIGUSR1 if at_once else signal.SIGTERM)

    def _check_heartbeats(self) -> None:
        """Kill workers that cannot stop by themselves: suspended workers, and workers whose threads are all blocked.

        Silence is measured in checks instead of seconds, since a suspended machine makes no checks.
        """
        too_late = time.monotonic() > self._latest
        for index, worker in self._workers.items():
            beats = self._beats[index]
            self._silent[index] = self._silent[index] + 1 if self._ready[index] and beats == self._heard[index] else 0
            self._heard[index] = beats
            if too_late or self._silent[index] * CHECK_S > 2 * self._settings.inference_timeout_s:
                # The watchdog inside of the worker has half of this time.
                log.error("worker_killed", worker=index, pid=worker.pid, reason="late" if too_late else "still")
                worker.kill()
                self._silent[index] = 0
            elif not self._ready[index] and not self._signals and self._loads_too_long(index):
                log.error("worker_killed", worker=index, pid=worker.pid, reason="start")
                worker.kill()
        if too_late:
            self._latest = math.inf

    def _loads_too_long(self, index: int) -> bool:
        """Whether a replacement takes longer to become ready than its models may take to load."""
        versions = sum(len(status.served) for status in self._coordinator.statuses.values())
        limit_s = self._settings.load_timeout_s * max(1, versions)
        return self._announced and time.monotonic() - self._started[index] > limit_s


def work(
    settings: Settings, listener: socket.socket, slot: WorkerSlot, pipe: Connection, statuses: ModelStatuses
) -> None:
    """Run a worker: load the models in ``statuses`` and answer requests on ``listener``.

    ``slot`` tells the other processes when the worker is ready. ``pipe`` leads to the coordinator.
    """
    log_writer = configure_logs(settings, AccessPolicy(settings).redactor())
    stop_with_parent(slot.folder)

    def on_ready() -> None:
        slot.ready[slot.number] = 1

    try:
        models = load_models(settings, present=served_versions(statuses))
        worker = Worker(lambda: all(slot.ready), Participant(settings, models, pipe, statuses), slot)
        server = Server(create_app(settings, models=models, worker=worker, log_writer=log_writer), on_ready)
    except StartError as error:
        log.error("cannot_start", error=str(error))  # noqa: TRY400 - the message is enough
        raise SystemExit(CANNOT_START) from None
    signal.signal(signal.SIGUSR1, lambda *_: server.end_at_once())
    server.serve_on(listener)


def stop_with_parent(shared_folder: Path) -> None:
    """Stop as on SIGTERM when the supervisor dies, and remove its shared folder."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        shutil.rmtree(shared_folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
