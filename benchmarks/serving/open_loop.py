"""An open-loop load generator: requests leave at a constant rate, whether or not the answers come.

    python -m benchmarks.serving.open_loop http://127.0.0.1:8000/predict docs/pictures/digit.png --rate 2000 --seconds 5

A request's time counts from the moment at which it was due, not from when a connection was free to send it, so that a
server that stalls cannot hide it ("coordinated omission"; Tene, How NOT to Measure Latency). Prints one JSON object.
"""

import argparse
import asyncio
import json
from collections import Counter, defaultdict, deque
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray

TICK_S = 0.0005
PATIENCE_S = 10.0
"""How long answers are waited for when the last request has left."""
HEALTH_EVERY_S = 0.1


class Result(NamedTuple):
    """Of one run."""

    sent: int
    statuses: dict[str, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    """Of the answers with status 200: the median of those of each second, so that a pause of the machine spoils one."""
    worst_p99_ms: float
    """Of the second with the highest."""
    in_time_per_s: float
    """Answers with status 200 within the deadline, divided by the seconds until the last of them."""
    health_ms: float
    """The slowest answer of ``/health/live``, asked ten times a second on a connection of its own."""


class Connection(asyncio.Protocol):
    """A connection that has at most one request under way."""

    def __init__(self, idle: deque["Connection"], answered: "Answered") -> None:
        self._idle = idle
        self._answered = answered
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Servers close those that are idle for long."""
        with suppress(ValueError):
            self._idle.remove(self)

    def send(self, request: bytes, due: float) -> None:
        """Send ``request``, which should have left at ``due``."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._received = b""
            self._answered.note(head[9:12].decode(), self._due, perf_counter())
            self._idle.append(self)


class Answered:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.times: list[tuple[float, float]] = []
        """When an answer with status 200 was due to be asked for, and the seconds until it came."""
        self._expected = float("inf")
        self._complete = asyncio.Event()

    def note(self, status: str, due: float, came: float) -> None:
        """An answer."""
        self.statuses[status] += 1
        if status == "200":
            self.times.append((due, came - due))
        if self.statuses.total() >= self._expected:
            self._complete.set()

    async def all_of(self, expected: int) -> None:
        """Wait for so many answers."""
        self._expected = expected
        if self.statuses.total() < expected:
            await self._complete.wait()


async def offer(
    url: str, body: bytes, content_type: str, rate: float, seconds: float, connections: int, deadline_s: float
) -> Result:
    """POST ``body`` to ``url``, ``rate`` times a second for so long."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    address = parts.hostname, parts.port or 80
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    idle: deque[Connection] = deque()
    answered, healthy = Answered(), Answered()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(idle, answered), *address)
    watch = asyncio.create_task(watch_health(address, parts.netloc, healthy))

    total = int(rate * seconds)
    sent = 0
    started = perf_counter()
    while sent < total and perf_counter() < started + 2 * seconds:
        due = min(total, int((perf_counter() - started) * rate) + 1)
        while sent < due and idle:
            idle.pop().send(request, started + sent / rate)  # the one last used: others may be closed while idle
            sent += 1
        await asyncio.sleep(TICK_S)
    with suppress(TimeoutError):
        await asyncio.wait_for(answered.all_of(sent), PATIENCE_S)
    took = perf_counter() - started
    watch.cancel()
    p50, p99 = percentiles(answered.times, started)
    in_time = [due + seconds for due, seconds in answered.times if seconds <= deadline_s]
    slowest = max((seconds for _, seconds in healthy.times), default=float("nan"))
    return Result(
        sent,
        dict(answered.statuses),
        took,
        float(np.median(p50)) * 1000,
        float(np.median(p99)) * 1000,
        float(np.max(p99)) * 1000,
        len(in_time) / max(seconds, max(in_time, default=started) - started),
        slowest * 1000,
    )


def percentiles(times: list[tuple[float, float]], started: float) -> NDArray[np.float64]:
    """``(2, S)``: the 50th and 99th percentile of the times of those that were due in each second."""
    seconds: dict[int, list[float]] = defaultdict(list)
    for due, took in times:
        seconds[int(due - started)].append(took)
    rows = [np.percentile(found, [50, 99]) for found in seconds.values()]
    return np.array(rows).T if rows else np.full((2, 1), np.nan)


async def watch_health(address: tuple[str, int], netloc: str, healthy: Answered) -> None:
    """Ask for the health until cancelled."""
    idle: deque[Connection] = deque()
    await asyncio.get_running_loop().create_connection(lambda: Connection(idle, healthy), *address)
    request = f"GET /health/live HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode()
    while True:
        if idle:
            idle.popleft().send(request, perf_counter())
        await asyncio.sleep(HEALTH_EVERY_S)


def main() -> None:
    """Offer the load that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=1200)
    parser.add_argument("--content-type", default="image/png")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds within which an answer counts as in time")
    options = parser.parse_args()
    body, content_type = options.body.read_bytes(), options.content_type
    load = options.rate, options.seconds, options.connections, options.deadline
    print(json.dumps(uvloop.run(offer(options.url, body, content_type, *load))._asdict()))


if __name__ == "__main__":
    main()
