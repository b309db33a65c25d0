"""Limits the pictures and bytes in flight for a model. Requests beyond the limits are rejected before decoding."""

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Self

from service.errors import QueueFullError, RequestTimeoutError, TooLargeError

SHARE_OF_ARRIVING = 0.5
"""Share of the bytes of a limiter that bodies may take while they are still arriving."""
MAX_RETRY_AFTER_S = 60
"""The longest time that a client is told to wait."""
MEMORY_S = 1.0
"""Time constant of the average of the rate at which a body arrives."""


class CapacityLimiter:
    """Capacity for pictures and their bytes, from the arrival of the bytes to the answers."""

    def __init__(self, max_pictures: int, max_bytes: int, concurrency: int) -> None:
        """``concurrency`` is the number of pictures to process at a time while others wait in the admission queue."""
        self.concurrency = concurrency
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._max_arriving = int(max_bytes * SHARE_OF_ARRIVING)
        self._arrivals: set[Arrival] = set()
        self.arriving = 0
        """Bytes of bodies that have not arrived in full."""
        self.pictures = 0
        self.bytes = 0
        self.queued = 0
        """Pictures in the admission queue."""
        self.admitted = self.admitted_bytes = 0
        """Pictures that have left the admission queue and take their capacity in the next turn of the loop."""
        self._rate = 0.0
        """Pictures a second that were answered in the last window; 0 before the first."""
        self._window_began = 0.0
        self._answered = 0
        """Pictures that were answered since then."""

    def fits(self, pictures: int, size: int) -> bool:
        """Whether there is capacity for this much besides the pictures that have just left the admission queue."""
        return (
            self.pictures + self.admitted + pictures <= self._max_pictures
            and self.bytes - self._excess + self.admitted_bytes + size <= self._max_bytes
        )

    def could_fit(self, pictures: int, size: int) -> bool:
        """Whether an empty limiter has capacity for this much."""
        return pictures <= self._max_pictures and size <= self._max_bytes

    def take(self, pictures: int, size: int) -> None:
        """Take capacity for ``pictures`` with a total of ``size`` bytes.

        Raises:
            QueueFullError: there is not enough.
        """
        if self.pictures + pictures > self._max_pictures:
            raise self.full()
        while self.bytes + size > self._max_bytes and self._excess:
            self._slowest().drop()
        if self.bytes + size > self._max_bytes:
            raise self.full()
        if not self.pictures and pictures:
            self._window_began, self._answered = monotonic(), 0
        self.pictures += pictures
        self.bytes += size

    def full(self) -> QueueFullError:
        """The error for a request that does not fit, which says when there will be capacity."""
        waiting = f"{self.pictures} pictures of together {self.bytes} bytes"
        return QueueFullError(f"{waiting} are waiting already; try again a little later", self.retry_after_s())

    def retry_after_s(self) -> int:
        """Seconds in which the waiting pictures will be answered at the latest rate; 1 while no rate is known."""
        elapsed_s = monotonic() - self._window_began
        rate = self._answered / elapsed_s if self._answered and elapsed_s > 0 else self._rate
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self.pictures / rate))) if rate else 1

    def record_answered(self, pictures: int) -> None:
        """Count ``pictures`` of an answered request towards the rate."""
        self._answered += pictures
        elapsed_s = monotonic() - self._window_began
        if elapsed_s > MEMORY_S:
            self._rate, self._window_began, self._answered = self._answered / elapsed_s, monotonic(), 0

    def give_back(self, pictures: int, size: int) -> None:
        """Return capacity that was taken."""
        self.pictures -= pictures
        self.bytes -= size

    def begin(self, arrival: "Arrival") -> None:
        """Register a body that begins to arrive."""
        self._arrivals.add(arrival)

    def end(self, arrival: "Arrival") -> None:
        """Deregister a body that has arrived or was dropped."""
        self._arrivals.discard(arrival)
        self.arriving -= arrival.size

    def make_way(self, arrival: "Arrival", size: int) -> None:
        """Drop the slowest bodies while the next ``size`` bytes would exceed the share of arriving bodies.

        A body that arrives alone may exceed the share.
        """
        while self.arriving + size > self._max_arriving and self.arriving > arrival.size:
            self._slowest().drop()
            arrival.check()

    @property
    def _excess(self) -> int:
        """Bytes of arriving bodies beyond their share, which can be reclaimed."""
        return max(0, self.arriving - self._max_arriving)

    def _slowest(self) -> "Arrival":
        now = monotonic()
        return max(self._arrivals, key=lambda arrival: arrival.slowness(now))


class Arrival:
    """A body that arrives in pieces. Read it inside of this asynchronous context."""

    __slots__ = ("_is_dropped", "_last", "_limiter", "_permit", "_rate", "_timeout", "size")

    def __init__(self, permit: "Permit", limiter: CapacityLimiter) -> None:
        self.size = 0
        self._limiter = limiter
        self._permit = permit
        self._timeout = asyncio.timeout(None)
        self._is_dropped = False
        self._rate = 0.0
        self._last = monotonic()

    def slowness(self, now: float) -> float:
        """Logarithm of the seconds that the bytes so far would take at the latest rate."""
        if not self.size:
            return -math.inf
        return math.log(self.size) - math.log(self._rate) + (now - self._last) / MEMORY_S

    def add(self, size: int) -> None:
        """Take capacity for the next piece.

        Raises:
            QueueFullError: there is not enough.
            TooLargeError: there will never be enough.
            RequestTimeoutError: the body is the slowest, and other bodies need its capacity.
        """
        if self._is_dropped:
            raise too_slow()
        if not size:
            return
        now = monotonic()
        self._rate = self._rate * math.exp((self._last - now) / MEMORY_S) + size / MEMORY_S
        self._last = now
        self._limiter.make_way(self, size)
        self._permit.take(size=size)
        self._limiter.arriving += size
        self.size += size

    def check(self) -> None:
        """Raise `RequestTimeoutError` if the body was dropped."""
        if self._is_dropped:
            raise too_slow()

    def drop(self) -> None:
        """Return the capacity at once and stop reading the body."""
        self._is_dropped = True
        self._limiter.end(self)
        self._permit.give_back(self.size)
        self._timeout.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._limiter.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise `RequestTimeoutError` if the body was dropped, whatever else happened."""
        if not self._is_dropped:
            self._limiter.end(self)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise too_slow() from None
        if kind is None:
            self.check()


def too_slow() -> RequestTimeoutError:
    """Make the error for a body that was dropped in favour of others."""
    return RequestTimeoutError("the body arrives more slowly than others, which need its capacity; send it again later")


class Permit:
    """The capacity that one request has taken from a `CapacityLimiter`. Leaving the context returns it."""

    __slots__ = ("_bytes", "_limiter", "_pictures")

    def __init__(self, limiter: CapacityLimiter) -> None:
        self._limiter = limiter
        self._pictures = 0
        self._bytes = 0

    def take(self, *, pictures: int = 0, size: int = 0) -> None:
        """See `CapacityLimiter.take`.

        Raises:
            TooLargeError: there will never be capacity for all that the request takes.
        """
        if not self._limiter.could_fit(self._pictures + pictures, self._bytes + size):
            raise TooLargeError(
                "the request exceeds the capacity of the model; send fewer or smaller pictures in one request"
            )
        self._limiter.take(pictures, size)
        self._pictures += pictures
        self._bytes += size

    def move_to(self, limiter: CapacityLimiter) -> None:
        """Take the same capacity from another limiter instead; see `take`."""
        if limiter is self._limiter:
            return
        moved = Permit(limiter)
        moved.take(pictures=self._pictures, size=self._bytes)
        self._limiter.give_back(self._pictures, self._bytes)
        self._limiter = limiter

    def arrival(self) -> "Arrival":
        """Register a body that arrives in pieces."""
        return Arrival(self, self._limiter)

    def give_back(self, size: int) -> None:
        """Return bytes that were taken."""
        self._limiter.give_back(0, size)
        self._bytes -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter.give_back(self._pictures, self._bytes)
        if self._pictures:
            self._limiter.record_answered(self._pictures)
