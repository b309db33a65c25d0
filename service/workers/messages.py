"""The messages between the coordinator and its participants, and the pipes that carry them."""

import socket
import struct
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from service.repository.plan import Change, ModelStatus
from service.repository.traffic import Traffic

ModelStatuses = Mapping[str, ModelStatus]
"""The status of each model by name."""
IO_TIMEOUT_S = 10
"""Longest time to send or receive one message."""


class Ready(NamedTuple):
    """A worker answers requests and serves these models."""

    statuses: ModelStatuses


class ChangeRequest(NamedTuple):
    """A change that a client requested from a worker."""

    number: int
    change: Change


class ChangePending(NamedTuple):
    """The coordinator is alive and has yet to finish the changes that were requested."""


class ChangeResult(NamedTuple):
    """The outcome of a requested change; None if the coordinator failed."""

    number: int
    status: ModelStatus | None


class Prepare(NamedTuple):
    """Load the versions of a change and report them as a `ModelStatus`."""

    change: Change


class PrepareFailed(NamedTuple):
    """A worker could not carry out `Prepare`."""


class Commit(NamedTuple):
    """Serve these versions from now on and reply with `Committed`."""

    name: str
    status: ModelStatus


class Committed(NamedTuple):
    """A worker serves the versions of a `Commit`."""


class Restart(NamedTuple):
    """Stop, so that a new worker takes over."""


class Deregister(NamedTuple):
    """A worker is stopping and takes no part in further changes."""


def limit_waits(pipe: Connection) -> None:
    """Make ``pipe`` fail with an OSError if the other end stops in the middle of a message."""
    with socket.socket(fileno=pipe.fileno()) as end:
        limit = struct.pack("ll", IO_TIMEOUT_S, 0)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        end.detach()


def shut(pipe: Connection) -> None:
    """Shut ``pipe`` down for both ends."""
    with socket.socket(fileno=pipe.fileno()) as end:
        end.shutdown(socket.SHUT_RDWR)
        end.detach()


def readable(pipes: Sequence[Connection], timeout_s: float) -> list[Connection]:
    """Wait up to ``timeout_s`` for messages, and return the ``pipes`` with a message or at their end, in order."""
    found = wait(pipes, timeout_s)
    return [pipe for pipe in pipes if pipe in found]


def are_equal(some: ModelStatuses, others: ModelStatuses) -> bool:
    """Whether both serve the same versions and divide requests alike."""
    return served_versions(some) == served_versions(others) and traffic(some) == traffic(others)


def traffic(statuses: ModelStatuses) -> dict[str, Traffic]:
    """Return the traffic by model, where it is not that of the settings."""
    return {name: status.traffic for name, status in statuses.items() if status.traffic is not None}


def served_versions(statuses: ModelStatuses) -> dict[str, dict[int, str]]:
    """Return the digests of the served versions by model."""
    return {name: dict(status.served) for name, status in statuses.items() if status.served}
