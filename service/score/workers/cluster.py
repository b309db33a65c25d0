"""Actors of a Ray cluster that score rows, each with an engine of its own."""

import os
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from export.format.remote import is_url
from service.errors import InputError, OutputError, ScoreError, ServiceError
from service.inference.backends import Device
from service.repository.mirror import copy_at_start
from service.score.places import UnreadableError, describe, read_file
from service.score.rows import UNREADABLE, Row
from service.score.scorer import ScoreOptions, Scorer
from service.score.workers.workers import LEAD, Scored, log_errors_only

DEPTH = 2
"""Chunks that an actor has at a time, so that the next one is there when it has done one."""
ATTEMPTS = 3
"""How many actors may die over a chunk, or at their start, before the run ends."""
START_S = 600.0
"""Longest wait while no actor is ready. A cluster that grows starts machines meanwhile."""
ANSWER_S = 10.0
"""Longest wait for the first sign of a cluster."""
SHARED = "on a cluster, local files must be on a file system that all nodes share, or at a URL"


class Share(NamedTuple):
    """What the actors take of a cluster."""

    actors: int
    """Number of actors."""
    cores: int = 1
    """Cores of each."""
    gpus: int = 0
    """GPUs of each."""

    @property
    def device(self) -> Device:
        """Where their models run."""
        return "cuda" if self.gpus else "cpu"


@dataclass
class Task:
    """A chunk, its position among the chunks, and how many actors have died over it."""

    position: int
    rows: list[Row]
    deaths: int = 0


class Actor:
    """The engine of one actor."""

    def __init__(self, options: ScoreOptions) -> None:
        self._options = options

    def load(self) -> None:
        """Load the model. This is no part of the construction, since Ray hides errors of that."""
        log_errors_only()
        copy_at_start(self._options.settings)
        self._scorer = Scorer(self._options)

    def score(self, rows: list[Row]) -> pa.RecordBatch:
        """Return the output of ``rows``."""
        return self._scorer.score(rows)


class Cluster:
    """Actors that score chunks. An actor that dies, alone or with its node, loses nothing.

    Its chunks go to others, and another actor takes its place as soon as the cluster has room for it. Leaving the
    context ends all actors and leaves the cluster.
    """

    def __init__(self, options: ScoreOptions, share: Share, start_s: float = START_S) -> None:
        """``connect`` comes before. ``start_s`` is the longest wait while no actor is ready."""
        self._options = options
        self._start_s = start_s
        self._actors = share.actors
        self._class = ray.remote(Actor).options(num_cpus=share.cores, num_gpus=share.gpus)
        self._starting: dict[Any, Any] = {}
        """Actors that load their model, by the reference of that call."""
        self._ready: list[Any] = []
        self._failed_starts = 0
        """Actors in a row that have died before they were ready."""
        for _ in range(share.actors):
            self._start()

    def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
        """See `service.score.workers.workers.Workers`."""
        tasks = (Task(position, list(map(absolute, rows))) for position, rows in enumerate(chunks))
        waiting: deque[Task] = deque()
        running: dict[Any, tuple[Any, Task]] = {}
        done: dict[int, Scored] = {}
        taken = 0
        while True:
            self._hand_out(tasks, waiting, running, self._actors * LEAD - len(done))
            if not waiting and not running:
                return
            self._take_one(waiting, running, done)
            while taken in done:
                yield done.pop(taken)
                taken += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    def _start(self) -> None:
        actor = self._class.remote(self._options)
        self._starting[actor.load.remote()] = actor

    def _hand_out(
        self, tasks: Iterator[Task], waiting: deque[Task], running: dict[Any, tuple[Any, Task]], most: int
    ) -> None:
        """Give each ready actor chunks, while fewer than ``most`` are there. At least one is read ahead."""
        while True:
            if not waiting and len(running) < most:
                waiting.extend(islice(tasks, 1))
            chunks_of = Counter(actor for actor, _ in running.values())
            actor = min(self._ready, key=lambda actor: chunks_of[actor], default=None)
            if not waiting or actor is None or chunks_of[actor] >= DEPTH:
                return
            task = waiting.popleft()
            running[actor.score.remote(task.rows)] = actor, task

    def _take_one(self, waiting: deque[Task], running: dict[Any, tuple[Any, Task]], done: dict[int, Scored]) -> None:
        """Wait until an actor is ready, has done a chunk or has died."""
        finished, _ = ray.wait([*running, *self._starting], timeout=None if running else self._start_s)
        if not finished:
            raise ScoreError(
                f"no actor could start in {self._start_s:.0f} s; `ray status` shows whether the cluster has free "
                "cores or GPUs; the same command goes on, if need be with fewer --workers"
            )
        (reference,) = finished
        actor, task = running.pop(reference) if reference in running else (self._starting.pop(reference), None)
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, ServiceError):
                raise ScoreError(f"on a node of the cluster: {error.cause}; {SHARED}") from error
            raise
        except RayError as error:
            if task is None or isinstance(error, RayActorError):
                self._replace(actor, task, error)
            if task is not None:
                task.deaths += 1
                if task.deaths == ATTEMPTS:
                    raise ScoreError(
                        f"{ATTEMPTS} actors have ended over the rows {task.rows[0].number} to "
                        f"{task.rows[-1].number}, perhaps for want of memory; the same command goes on from there"
                    ) from error
                waiting.appendleft(task)
            return
        if task is None:
            self._ready.append(actor)
            self._failed_starts = 0
        else:
            check_shared(task.rows, answer, self._options.rectified)
            done[task.position] = Scored(answer, task.rows[-1].number + 1)

    def _replace(self, actor: Any, task: Task | None, error: RayError) -> None:
        """Start another actor in the place of a dead one, once."""
        if task is None:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS * self._actors:
                cause = str(error).strip().splitlines()[-1].strip()
                raise ScoreError(
                    f"the actors end while they start: {cause}; every node needs the same stn-serve, and memory for a "
                    "model on each core or GPU"
                ) from error
        elif actor not in self._ready:
            return
        else:
            self._ready.remove(actor)
        self._start()


def connect(address: str) -> None:
    """Join the Ray cluster at ``address``; ``auto`` is that of ``RAY_ADDRESS``, or the one on this machine.

    Raises:
        InputError: there is none.
    """
    host, _, port = address.rpartition(":")
    try:
        if "://" not in address and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), ANSWER_S).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"there is no Ray cluster at {address}: {describe(error)}; start one with `ray start --head`, or name "
            "its address"
        ) from error


def find_share(device: Device, workers: int | None) -> Share:
    """Return what the actors take of the cluster: one a GPU if it has some, else one a core."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus and device != "cpu":
        cores = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpus)
        return Share(workers or sum(int(node["GPU"]) for node in with_gpus), max(1, cores), 1)
    if device == "cuda":
        raise InputError("the cluster has no GPU; choose --device cpu, or start its nodes with --num-gpus")
    return Share(workers or max(1, sum(int(node.get("CPU", 0)) for node in nodes)))


def absolute(row: Row) -> Row:
    """Return ``row`` with the absolute path of its file, since actors work in other folders."""
    if not row.location or is_url(row.location):
        return row
    return row._replace(location=os.path.abspath(row.location))  # noqa: PTH100 - many rows


def check_shared(rows: list[Row], answers: pa.RecordBatch, rectified: Path | None) -> None:
    """Raise `ScoreError` if the node of an actor sees other files than this machine."""
    for row, code in zip(rows, answers.column("error").to_pylist(), strict=True):
        if code == UNREADABLE and row.location and not is_url(row.location) and is_readable(row.location):
            raise InputError(f"a node of the cluster cannot read {row.path}, and this machine can; {SHARED}")
    if rectified is not None:
        name = next(filter(None, answers.column("rectified").to_pylist()), None)
        if name is not None and not (rectified / name).exists():
            raise OutputError(f"a node of the cluster has written {name}, and it is not in {rectified}; {SHARED}")


def is_readable(file: str) -> bool:
    """Whether this machine can read the picture ``file``."""
    try:
        read_file(file, 0)
    except UnreadableError:
        return False
    return True
