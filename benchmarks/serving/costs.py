"""The most that one kind of input costs the service: memory, and how long a look at its health waits meanwhile.

    python -m benchmarks.serving.costs [NAME…]

prints a row of a Markdown table for each input whose name begins with a NAME, or for all. Each is sent by `CLIENTS` at
once for `ATTACK_S`, to a service of its own with default settings. Of requests with status 0 the connection was closed
before they were sent. A new kind of input is one more `Input` in `INPUTS`.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

from benchmarks.serving.costly_bodies import BODIES, Input
from tests.conftest import Service, start_service
from tests.imaging.limits import attacks

CLIENTS = 4
ATTACK_S = 4.0
PAUSE_S = 0.005
"""Between two looks at the health."""
MIB = 2**20
PHOTOGRAPH = attacks.save(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)), "JPEG", quality=90
)


def pictures() -> dict[str, Input]:
    """Pictures: what is refused, what makes as much work as is allowed, and the largest ordinary ones."""
    large = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)).resize((8000, 6200))
    ordinary: dict[str, Callable[[], bytes]] = {
        "ordinary photograph, 800 x 600": lambda: PHOTOGRAPH,
        "largest JPEG, 8,000 x 6,200": lambda: attacks.save(large, "JPEG", quality=80),
        "largest progressive JPEG, 4:4:4": lambda: attacks.save(
            large, "JPEG", quality=80, progressive=True, subsampling=0
        ),
        "largest WebP": lambda: attacks.save(large, "WEBP", quality=70, method=0),
        "largest PNG, RGBA of 16 bits": lambda: attacks.png(8000, 6200, 16, 6),
        "largest TIFF, deflate": lambda: attacks.tiff((8000, 6200), attacks.zeros(8000 * 6200 * 3), samples=3),
        "TIFF with a tile of 46,000 x 46,000, whole": lambda: attacks.tiff(
            (16, 16), attacks.zeros(46_000**2), tile=(46_000, 46_000)
        ),
    }
    return {name: Input(make) for name, make in (ordinary | attacks.LONG_WORK | attacks.REFUSED).items()}


INPUTS: dict[str, Input] = pictures() | BODIES


class Measured(NamedTuple):
    """What was seen while requests were sent."""

    statuses: Counter[int]
    peak: int
    """Bytes of the service and its processes together."""
    longest_s: float
    """Of all looks at the health."""


def resident(service: Service) -> int:
    """Memory of the service and the processes that it has started, in bytes."""
    pids, total = [service.process.pid], 0
    while pids:
        folder = Path(f"/proc/{pids.pop()}")
        try:
            total += int((folder / "statm").read_text().split()[1]) * 4096
            pids += [int(pid) for each in folder.glob("task/*/children") for pid in each.read_text().split()]
        except OSError:  # it has ended
            continue
    return total


def measure(service: Service, sent: Input, body: bytes, seconds: float) -> Measured:
    """Send ``body`` again and again."""
    end = time.monotonic() + seconds
    statuses: Counter[int] = Counter()
    looks: list[tuple[int, float]] = []
    done = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while time.monotonic() < end:
                try:
                    statuses[client.post(sent.path, content=body, headers=sent.headers).status_code] += 1
                except httpx.TransportError:  # refused before all of it was sent
                    statuses[0] += 1

    def look() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not done.is_set():
                started = time.perf_counter()
                client.get("/health/live")
                looks.append((resident(service), time.perf_counter() - started))
                time.sleep(PAUSE_S)

    watcher = threading.Thread(target=look)
    watcher.start()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for sending in [clients.submit(send) for _ in range(CLIENTS if body else 0)]:
            sending.result()
        time.sleep(max(0.0, end - time.monotonic()))
    done.set()
    watcher.join()
    return Measured(statuses, max(size for size, _ in looks), max(waited for _, waited in looks))


def main(names: list[str]) -> None:
    """Print the table."""
    print("| input | bytes | answers | memory at most | health waits at most | the same when idle |")
    print("|---|---|---|---|---|---|")
    for name, sent in INPUTS.items():
        if names and not name.startswith(tuple(names)):
            continue
        body = sent.make()
        with start_service("--access-log", "none") as service:
            measure(service, INPUTS["ordinary photograph, 800 x 600"], PHOTOGRAPH, 1.0)
            idle = measure(service, sent, b"", 1.0)
            seen = measure(service, sent, body, ATTACK_S)
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(seen.statuses.items()))
        memory = f"+{max(0, seen.peak - idle.peak) // MIB} MiB"
        waits = f"{seen.longest_s * 1000:.0f} ms | {idle.longest_s * 1000:.0f} ms"
        print(f"| {name} | {len(body):,} | {answers} | {memory} | {waits} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
