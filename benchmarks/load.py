"""stn-serve under every load: few and many connections, constant rates, overload, for long, with more workers.

    python -m benchmarks.load [--seconds 5] [--requests 1000000]

Needs Linux, two cores, wrk and taskset (apt install wrk util-linux), and the `dev` packages. The server has the first
core, the load the second. Only ratios within one run mean anything.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks import artifacts
from benchmarks.open_loop import Result
from benchmarks.serving import ADDRESS, MODELS, PORT, STN_SERVE, Case, running, usage, write_script, wrk

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PICTURE = Path("docs/pictures/digit.png")
URL = f"{ADDRESS}/predict?model=light"
COMMAND = [*STN_SERVE, "--port", str(PORT)]
LONG_S = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=0, help="also watch memory over so many requests")
    options = parser.parse_args()
    artifacts.main(MODELS)
    with tempfile.TemporaryDirectory() as folder:
        script = write_script(Path(folder), "raw", PICTURE)
        start()
        saturated = closed_loop(script, options.seconds)
        open_loop(saturated, options.seconds)
        if options.requests:
            memory(script, options.requests)
        workers(script, options.seconds)


def start() -> None:
    """From the command to the first answer."""
    before = time.monotonic()
    with running(COMMAND):
        httpx.get(f"{ADDRESS}/health/ready").raise_for_status()
        print(f"ready {time.monotonic() - before:.2f} s after the start (two models)\n")


def closed_loop(script: Path, seconds: int) -> float:
    """Throughput by the number of connections; the highest."""
    print("| connections | pictures/s | of the highest | p50 ms | p99 ms |\n|---|---|---|---|---|")
    with running(COMMAND) as process:
        rows = [wrk(Case(COMMAND, "raw"), process, script, count, "light", seconds) for count in CONNECTIONS]
    highest = max(row.pictures_per_s for row in rows)
    for count, row in zip(CONNECTIONS, rows, strict=True):
        share = row.pictures_per_s / highest
        print(f"| {count} | {row.pictures_per_s:.0f} | {share:.2f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} |")
    return highest


def open_loop(saturated: float, seconds: int) -> None:
    """Latency at a constant rate, and what is left of the throughput when twice as much is asked for."""
    print("\n| rate offered | answered/s | to the highest | refused/s | p50 ms | p99 ms | p99 / p50 | health ms | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for share in (0.5, 0.7, 0.9, 2.0):
        with running(COMMAND) as process:
            offer(saturated, 1)
            result = offer(share * saturated, seconds)
            _, megabytes = usage(process)
        good, refused = (result.statuses.get(status, 0) / result.seconds for status in ("200", "429"))
        if sum(result.statuses.values()) < result.sent or result.statuses.keys() - {"200", "429"}:
            sys.exit(f"error: the server failed under load: {result}")
        print(
            f"| {share:.1f} | {good:.0f} | {good / saturated:.2f} | {refused:.0f} | {result.p50_ms:.2f} "
            f"| {result.p99_ms:.2f} | {result.p99_ms / result.p50_ms:.1f} | {result.health_ms:.0f} "
            f"| {megabytes:.0f} |"
        )


def offer(rate: float, seconds: int) -> Result:
    """See `benchmarks.open_loop`, which runs on the second core."""
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.open_loop", URL, str(PICTURE)]
    output = subprocess.run([*command, f"--rate={rate}", f"--seconds={seconds}"], capture_output=True, check=True)
    return Result(**json.loads(output.stdout))


def memory(script: Path, requests: int) -> None:
    """Of the server while it answers so many requests, at 32 connections."""
    print("\n| requests answered | MB |\n|---|---|")
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{LONG_S}s", "-s", str(script), URL]
    answered = 0
    with running(COMMAND) as process:
        while answered < requests:
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            answered += int(re.findall(r"(\d+) requests in", text)[0])
            print(f"| {answered:,} | {usage(process)[1]:.0f} |", flush=True)


def workers(script: Path, seconds: int) -> None:
    """CPU that an answer costs with one worker and with two: on machines with more cores they do not share one."""
    print("\n| workers | pictures/s on one core | CPU us/picture | MB |\n|---|---|---|---|")
    for count in (1, 2):
        command = [*COMMAND, "--workers", str(count)]
        with running(command) as process:
            row = wrk(Case(command, "raw"), process, script, 32, "light", seconds)
        print(f"| {count} | {row.pictures_per_s:.0f} | {row.cpu_us:.0f} | {row.megabytes:.0f} |")


if __name__ == "__main__":
    main()
