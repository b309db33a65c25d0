"""Several processes that answer on the same address, and the one that starts them again when they die."""

import math
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import structlog

from service.errors import StartError
from service.inference.registry import load_models
from service.logging import configure_logs
from service.metrics.multiprocess import WorkerSlot
from service.server.server import LAST_S, Server
from service.settings import Settings
from service.workers.coordinator import Coordinator, ModelStatuses, Participant, served

CANNOT_START = 3
"""Exit status of a worker that has said why in its log."""
SHORT_LIFE_S = 5.0
"""A worker that dies sooner is replaced only after `PAUSE_S`."""
PAUSE_S = 1.0
LOOK_S = 0.1
"""Between looks at the workers."""
MEMORY = "/dev/shm"  # noqa: S108 - the folder made in it is nobody else's
"""Where Linux keeps files that are never on a disk."""
SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork

log = structlog.get_logger(__name__)


class Supervisor:
    """Keeps ``settings.workers`` processes alive."""

    def __init__(
        self, settings: Settings, listener: socket.socket, on_ready: Callable[[], None], standings: ModelStatuses
    ) -> None:
        """``standings`` is what the workers are to serve."""
        self._settings = settings
        self._leader = Coordinator(settings, standings)
        self._listener = listener
        self._on_ready = on_ready
        self._ready = SPAWN.RawArray("b", settings.workers)
        self._beats = SPAWN.RawArray("L", settings.workers)
        self._heard = [0] * settings.workers
        """Beats of each, as of the last look."""
        self._silent = [0] * settings.workers
        """Looks since each that answers has beaten."""
        self._next_look = 0.0
        self._shared = tempfile.TemporaryDirectory(
            prefix="stn-serve-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
        )
        self._workers: dict[int, BaseProcess] = {}
        self._started: dict[int, float] = {}
        self._due = dict.fromkeys(range(settings.workers), 0.0)
        """When each that does not run is to start."""
        self._signals = 0
        self._latest = math.inf
        """When workers that still have not ended are killed."""
        self._announced = False

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)
        resource_tracker.ensure_running()  # started with the first worker, it would undo what `_start` does to signals
        self._leader.start()
        status = told = 0
        while self._workers or not self._signals:
            if not self._signals:
                self._start_due()
            wait([worker.sentinel for worker in self._workers.values()], timeout=LOOK_S)
            for index, worker in list(self._workers.items()):
                if not worker.is_alive():
                    status = max(status, self._reap(index, worker))
            if not self._announced and all(self._ready):
                self._announced = True
                self._on_ready()
            if told < self._signals:  # here and not in the handler: those that were just started are told too
                self._signal_workers(at_once=told > 0)
                told += 1
            if time.monotonic() > self._next_look:
                self._next_look = time.monotonic() + LOOK_S
                self._check_heartbeats()
        self._shared.cleanup()
        return status

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, due in self._due.items() if due <= now]:
            del self._due[index]
            self._start(index)

    def _start(self, index: int) -> None:
        ours, theirs = SPAWN.Pipe()
        place = WorkerSlot(Path(self._shared.name), index, self._ready, self._beats)
        worker = SPAWN.Process(
            target=work, args=(self._settings, self._listener, place, theirs, self._leader.standings)
        )
        # Ctrl+C reaches the whole group. The supervisor says what it means; workers, which inherit this, get none.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        worker.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        self._leader.admit(ours)
        self._workers[index] = worker
        self._started[index] = time.monotonic()

    def _reap(self, index: int, worker: BaseProcess) -> int:
        """Note that a worker has ended and that another is to start, unless it was to end; the exit status."""
        self._ready[index] = 0
        del self._workers[index]
        if self._signals:
            return int(worker.exitcode not in (0, -signal.SIGTERM))  # the latter while it still loads
        log.error("worker_died", worker=index, pid=worker.pid, exit=worker.exitcode)
        if worker.exitcode == CANNOT_START and not self._announced:
            self._stop()
            return 1
        now = time.monotonic()
        self._due[index] = now + PAUSE_S if now - self._started[index] < SHORT_LIFE_S else now
        return 0

    def _stop(self, sig: int = 0, frame: FrameType | None = None) -> None:
        """Have the workers answer what is under way and end; called again, at once."""
        self._signals += 1

    def _signal_workers(self, *, at_once: bool) -> None:
        """Tell all workers to end. SIGTERM may have reached them by their group too, so it never means at once."""
        self._latest = time.monotonic() + 2 * LAST_S + (0 if at_once else self._settings.shutdown_timeout_s)
        for worker in self._workers.values():
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signal.SIGUSR1 if at_once else signal.SIGTERM)

    def _check_heartbeats(self) -> None:
        """Kill those that cannot end themselves: suspended ones, or those that something holds with all their threads.

        Looks are counted, not time, for those that stand still: while the whole machine is suspended nobody looks.
        """
        too_late = time.monotonic() > self._latest
        for index, worker in self._workers.items():
            beats = self._beats[index]
            self._silent[index] = self._silent[index] + 1 if self._ready[index] and beats == self._heard[index] else 0
            self._heard[index] = beats
            if (
                too_late or self._silent[index] * LOOK_S > 2 * self._settings.inference_timeout_s
            ):  # twice as long as it may itself
                log.error("worker_killed", worker=index, pid=worker.pid, reason="late" if too_late else "still")
                worker.kill()
                self._silent[index] = 0
        if too_late:
            self._latest = math.inf


def work(
    settings: Settings, listener: socket.socket, place: WorkerSlot, pipe: Connection, standings: ModelStatuses
) -> None:
    """A worker: loads what is to be served and answers on ``listener``.

    In its ``place`` it says when it does; ``pipe`` leads to the supervisor, which makes the changes in ``standings``.
    """
    configure_logs(settings)
    end_with_parent()

    def on_ready() -> None:
        place.ready[place.number] = 1

    try:
        models = load_models(settings, present=served(standings))
        repository = Participant(settings, models, pipe, standings)
        server = Server(settings, models, on_ready, lambda: all(place.ready), repository, place)
    except StartError as error:
        log.error("cannot_start", error=str(error))  # noqa: TRY400 - the message says it all
        raise SystemExit(CANNOT_START) from None
    signal.signal(signal.SIGUSR1, lambda *_: server.end_at_once())
    server.serve_on(listener)


def end_with_parent() -> None:
    """Stop as on SIGTERM when the supervisor is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
