"""stn-serve under every load: few and many connections, constant rates, overload, for long, with more workers.

    python -m benchmarks.serving.load [--seconds 5] [--requests 1000000] [--models models --model digits] [--echo]
    python -m benchmarks.serving.load --peers [--rounds 3] [--seconds 5] [--models models --model digits]

Needs Linux, two cores, wrk and taskset (apt install wrk util-linux), and the `dev` packages. The server has the first
core, the load the second. The model is the untrained one of `benchmarks.serving.comparison`, if no other is named. Only
ratios within one run mean anything.

With ``--peers``, several servers are asked for twice as much as they can answer, and for the same as stn-serve is. Only
answers within a deadline count. The times count from when requests were due.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.inference import artifacts
from benchmarks.serving.comparison import (
    ADDRESS,
    CASES,
    ECHO,
    MODELS,
    PORT,
    STN_SERVE,
    Case,
    ask,
    make_peers,
    running,
    usage,
    write_body,
    write_script,
    wrk,
)
from benchmarks.serving.open_loop import Result
from benchmarks.serving.pauses import Pauses

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PICTURE = Path("docs/pictures/digit.png")
LONG_S = 20
PEERS = ("stn-serve", "mosec", "LitServe", "FastAPI, ORT call in an async route")
CLOSED_LOOP = 32
"""Connections by which the highest throughput of a server is measured."""


class Target(NamedTuple):
    """A model, and the server of it."""

    model: str
    command: list[str]

    @property
    def url(self) -> str:
        """Where pictures go."""
        return f"{ADDRESS}/predict?model={self.model}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=0, help="also watch memory over so many requests")
    parser.add_argument("--models", type=Path, default=MODELS, help="a folder of models; its pictures are 42x42 grey")
    parser.add_argument("--model", default="light")
    parser.add_argument(
        "--echo", action="store_true", help="a bare FastAPI echo instead: what machine and libraries do"
    )
    parser.add_argument("--peers", action="store_true", help="twice the load for several servers, and nothing else")
    parser.add_argument("--rounds", type=int, default=3, help="of --peers")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds within which an answer counts, of --peers")
    options = parser.parse_args()
    if options.models == MODELS:
        artifacts.main(MODELS)
    if options.peers:
        overload(options)
        return
    server = ECHO if options.echo else [*STN_SERVE, "--models", str(options.models)]
    target = Target(options.model, [*server, "--port", str(PORT)])
    with tempfile.TemporaryDirectory() as folder:
        script = write_script(Path(folder), "raw", PICTURE)
        if not options.echo:
            start(target)
        pauses(options.seconds)
        saturated = closed_loop(target, script, options.seconds)
        open_loop(target, saturated, options.seconds)
        if options.requests:
            memory(target, script, options.requests)
        if not options.echo:
            workers(target, script, options.seconds)


def start(target: Target) -> None:
    """From the command to the first answer."""
    before = time.monotonic()
    with running(target.command):
        httpx.get(f"{ADDRESS}/health/ready").raise_for_status()
        print(f"ready {time.monotonic() - before:.2f} s after the start\n")


def pauses(seconds: int) -> None:
    """What the machine takes of the server's core while the other core is busy too."""
    look = [sys.executable, "-m", "benchmarks.serving.pauses", f"--seconds={seconds}"]
    with subprocess.Popen(["taskset", "-c", "1", *look], stdout=subprocess.DEVNULL):
        output = subprocess.run(["taskset", "-c", "0", *look], capture_output=True, check=True).stdout
    found = Pauses(**json.loads(output))
    print(
        f"without a server, its core was taken away {found.number} times in {found.seconds:.0f} s for over 1 ms, "
        f"{found.lost_ms:.1f} ms together, {found.longest_ms:.1f} ms at most\n"
    )


def closed_loop(target: Target, script: Path, seconds: int) -> float:
    """Throughput by the number of connections; the highest."""
    print("| connections | pictures/s | of the highest | p50 ms | p99 ms |\n|---|---|---|---|---|")
    case = Case(target.command, "raw")
    with running(target.command) as process:
        rows = [wrk(case, process, script, count, target.model, seconds) for count in CONNECTIONS]
    highest = max(row.pictures_per_s for row in rows)
    for count, row in zip(CONNECTIONS, rows, strict=True):
        share = row.pictures_per_s / highest
        print(f"| {count} | {row.pictures_per_s:.0f} | {share:.2f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} |")
    return highest


def open_loop(target: Target, saturated: float, seconds: int) -> None:
    """Latency at a constant rate, and what is left of the throughput when twice as much is asked for."""
    print(
        "\n| rate offered | answered/s | to the highest | refused/s | p50 ms | p99 ms | p99 / p50 | worst p99 ms "
        "| health ms | MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for share in (0.5, 0.7, 0.9, 2.0):
        with running(target.command) as process:
            offer(target.url, saturated, 1)
            result = offer(target.url, share * saturated, seconds)
            _, megabytes = usage(process)
        good, refused = (result.statuses.get(status, 0) / result.seconds for status in ("200", "429"))
        if sum(result.statuses.values()) < result.sent or result.statuses.keys() - {"200", "429"}:
            sys.exit(f"error: the server failed under load: {result}")
        print(
            f"| {share:.1f} | {good:.0f} | {good / saturated:.2f} | {refused:.0f} | {result.p50_ms:.2f} "
            f"| {result.p99_ms:.2f} | {result.p99_ms / result.p50_ms:.1f} | {result.worst_p99_ms:.2f} "
            f"| {result.health_ms:.0f} | {megabytes:.0f} |"
        )


def offer(url: str, rate: float, seconds: int) -> Result:
    """See `benchmarks.serving.open_loop`, which runs on the second core."""
    return offer_body(url, PICTURE, "image/png", rate, seconds)


def offer_body(url: str, body: Path, content_type: str, rate: float, seconds: int, deadline_s: float = 1.0) -> Result:
    """See `offer`; the file ``body`` is of ``content_type``."""
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.serving.open_loop", url, str(body)]
    command += [f"--content-type={content_type}", f"--rate={rate}", f"--seconds={seconds}", f"--deadline={deadline_s}"]
    return Result(**json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def overload(options: argparse.Namespace) -> None:
    """Answers within a deadline while more is asked for than a server can answer."""
    make_peers(list(PEERS))
    versions = (options.models / options.model).iterdir()
    artifact = max((folder for folder in versions if folder.name.isdigit()), key=lambda folder: int(folder.name))
    os.environ |= {"ARTIFACT": str(artifact.resolve()), "OPENBLAS_NUM_THREADS": "1"}
    cases = {name: CASES[name] for name in PEERS}
    ours = [*STN_SERVE, "--models", str(options.models), "--port", str(PORT)]
    cases["stn-serve"] = cases["stn-serve"]._replace(command=ours)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [overload_once(cases, options, Path(folder)) for _ in range(options.rounds)]
    print(f"median of {options.rounds} rounds of {options.seconds} s; in time is within {options.deadline:g} s\n")
    print("| server | highest/s | offered/s | in time/s | to the highest | refused/s | p50 ms |")
    print("|---|---|---|---|---|---|---|")
    for name, share in rounds[0]:
        highest, rate, in_time, refused, p50_ms = map(
            statistics.median, zip(*(found[name, share] for found in rounds), strict=True)
        )
        print(
            f"| {name} | {highest:.0f} | {rate:.0f} | {in_time:.0f} | {in_time / highest:.2f} | {refused:.0f} "
            f"| {p50_ms:.0f} |"
        )


def overload_once(
    cases: dict[str, Case], options: argparse.Namespace, folder: Path
) -> dict[tuple[str, str], tuple[float, ...]]:
    """One round: for each server what it is asked for, and how it fares."""
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    ours = 0.0
    for name, case in cases.items():
        print(f"{name} ...", file=sys.stderr)
        script = write_script(folder, case.body, PICTURE)
        body, content_type = folder / f"{case.body}.bin", write_body(case.body, PICTURE)[1]
        url = f"{ADDRESS}{case.path}?model={options.model}"
        with running(case.command) as process:
            ask(case, PICTURE, options.model)  # when it is ready to answer
            highest = wrk(case, process, script, CLOSED_LOOP, options.model, options.seconds).pictures_per_s
        ours = ours or highest
        for load, rate in (("its own", 2 * highest), ("ours", 2 * ours)):
            if load == "ours" and ours == highest:
                continue
            with running(case.command):
                ask(case, PICTURE, options.model)
                result = offer_body(url, body, content_type, rate, options.seconds, options.deadline)
            refused = sum(count for status, count in result.statuses.items() if status != "200") / result.seconds
            found[name, load] = (highest, rate, result.in_time_per_s, refused, result.p50_ms)
    return found


def memory(target: Target, script: Path, requests: int) -> None:
    """Of the server while it answers so many requests, at 32 connections."""
    print("\n| requests answered | MB |\n|---|---|")
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{LONG_S}s", "-s", str(script), target.url]
    answered = 0
    with running(target.command) as process:
        while answered < requests:
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            answered += int(re.findall(r"(\d+) requests in", text)[0])
            print(f"| {answered:,} | {usage(process)[1]:.0f} |", flush=True)


def workers(target: Target, script: Path, seconds: int) -> None:
    """CPU that an answer costs with one worker and with two: on machines with more cores they do not share one."""
    print("\n| workers | pictures/s on one core | CPU us/picture | MB |\n|---|---|---|---|")
    for count in (1, 2):
        command = [*target.command, "--workers", str(count)]
        with running(command) as process:
            row = wrk(Case(command, "raw"), process, script, 32, target.model, seconds)
        print(f"| {count} | {row.pictures_per_s:.0f} | {row.cpu_us:.0f} | {row.megabytes:.0f} |")


if __name__ == "__main__":
    main()
