"""What a shadow costs live pictures, in one run: answered pictures a second without and with one.

    python -m benchmarks.serving.rollout [--rounds 3] [--seconds 5] [--connections 64] [--share 0.1]
        [--model digits --default 2 --version 3 --picture docs/pictures/digit.png]

Needs Linux and two cores, and the `dev` packages. The server with its shadow has the first core, the load the second.
First the most pictures a second are measured without a shadow. Then half of that is offered at a constant rate, and as
much as can be answered, in turn without and with the shadow. Every answer is compared with the expected one. Medians
of the rounds are printed, and their ratios, which alone mean anything.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvloop

from service.middleware.api_keys import make_key

PORT = 8766
URL = f"http://127.0.0.1:{PORT}"
START_S = 60
WARM_UP_S = 1.0
KEY, ENTRY = make_key("benchmark")
HEADERS = {"X-API-Key": KEY}


class Measured(NamedTuple):
    """Of one interval."""

    per_s: float
    p50_ms: float
    p99_ms: float
    wrong: int
    """Answers that are no success, or have another class or another version."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--default", type=int, default=2)
    parser.add_argument("--version", type=int, default=3)
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/digit.png"))
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with serving(options):
        answer = httpx.post(f"{URL}/predict", params={"model": options.model}, content=options.picture.read_bytes())
        uvloop.run(measure(options, answer.raise_for_status().json()))


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[None]:
    """The server on the first core."""
    flags = ["--models", options.models, "--load", options.model, "--default", f"{options.model}/{options.default}"]
    flags += ["--port", PORT, "--threads", 1, "--admin-keys", ENTRY, "--log-level", "error", "--access-log", "none"]
    command = ["taskset", "-c", "0", sys.executable, "-m", "service", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(START_S * 20):
            try:
                httpx.get(f"{URL}/health/ready")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


async def measure(options: argparse.Namespace, expected: dict[str, Any]) -> None:
    """Measure in turn without and with a shadow, and print. Every answer must be as ``expected``."""
    load = Load(options, expected)
    await load.run(None, WARM_UP_S)
    most = (await load.run(None, options.seconds)).per_s
    found: dict[tuple[str, bool], list[Measured]] = {}
    for _ in range(options.rounds):
        for with_shadow in (False, True):
            await asyncio.to_thread(switch, options, with_shadow=with_shadow)
            for name, rate in (("half load", most / 2), ("full load", None)):
                await load.run(rate, WARM_UP_S)
                found.setdefault((name, with_shadow), []).append(await load.run(rate, options.seconds))
            if with_shadow:
                comparison = (await asyncio.to_thread(state, options))["rollout"]["comparison"]
                print(f"compared {comparison['pictures']} pictures; dropped: {comparison['dropped']}")
    print(f"most without a shadow: {most:.0f}/s over {options.connections} connections; the share is {options.share}")
    for name in ("half load", "full load"):
        without, beside = (medians(found[name, with_shadow]) for with_shadow in (False, True))
        for text, each in (("without", without), ("with", beside)):
            print(
                f"{name} {text:7}: {each.per_s:7.0f}/s  p50 {each.p50_ms:6.2f} ms  p99 {each.p99_ms:6.2f} ms  "
                f"wrong or failed: {each.wrong}"
            )
        print(f"{name} ratio  : {beside.per_s / without.per_s:7.3f}")


def medians(found: list[Measured]) -> Measured:
    """Over the rounds; wrong answers are added up."""
    rates, halves, tails, wrong = zip(*found, strict=True)
    return Measured(statistics.median(rates), statistics.median(halves), statistics.median(tails), sum(wrong))


def switch(options: argparse.Namespace, *, with_shadow: bool) -> None:
    """Begin or end the rollout, and wait until its shadow works."""
    url = f"{URL}/v2/repository/models/{options.model}/rollout"
    if not with_shadow:
        if state(options)["rollout"] is not None:
            httpx.post(url, json={"action": "rollback"}, headers=HEADERS).raise_for_status()
        return
    content = {"version": str(options.version), "shadow": 1.0}
    httpx.post(url, json=content, headers=HEADERS, timeout=START_S).raise_for_status()
    deadline = time.monotonic() + START_S
    while not state(options)["rollout"]["comparison"]["pictures"]:
        if time.monotonic() > deadline:
            sys.exit("error: the shadow does not compare; see GET .../rollout")
        httpx.post(f"{URL}/predict", params={"model": options.model}, content=options.picture.read_bytes())
    content["shadow"] = options.share
    httpx.post(url, json=content, headers=HEADERS).raise_for_status()


def state(options: argparse.Namespace) -> dict[str, Any]:
    """What the service says of the rollout."""
    url = f"{URL}/v2/repository/models/{options.model}/rollout"
    found: dict[str, Any] = httpx.get(url, headers=HEADERS).raise_for_status().json()
    return found


class Load:
    """Clients that each have one request under way."""

    def __init__(self, options: argparse.Namespace, expected: dict[str, Any]) -> None:
        body = options.picture.read_bytes()
        head = f"POST /predict?model={options.model} HTTP/1.1\r\nHost: benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._connections = options.connections
        best = expected["predictions"][0]["label"]
        self._marks = [f'"version":{expected["model"]["version"]}'.encode(), f'"label":"{best}"'.encode()]

    async def run(self, rate: float | None, seconds: float) -> Measured:
        """Send for so long, ``rate`` requests a second or as many as are answered."""
        times: list[float] = []
        wrong = 0
        began = time.perf_counter()
        sent = 0

        async def client() -> None:
            nonlocal wrong, sent
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            while True:
                due = time.perf_counter()
                if rate is not None:
                    due, sent = began + sent / rate, sent + 1
                    await asyncio.sleep(max(0, due - time.perf_counter()))
                if max(due, time.perf_counter()) > began + seconds:
                    break
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                content = await reader.readexactly(length)
                times.append(time.perf_counter() - due)
                wrong += not (head.startswith(b"HTTP/1.1 200") and all(mark in content for mark in self._marks))
            writer.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(client())
        took = max(seconds, time.perf_counter() - began)
        ordered = sorted(times)
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        return Measured(len(times) / took, p50, p99, wrong)


if __name__ == "__main__":
    main()
