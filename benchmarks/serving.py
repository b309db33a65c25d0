"""Requests per second of POST /predict next to a bare FastAPI echo of the same body, in one run.

    python benchmarks/serving.py [--rounds 3] [--seconds 5] [--picture docs/pictures/digit.png]

Needs Linux, two cores, wrk and taskset (apt install wrk util-linux). The server has the first core and wrk the second;
rounds of the servers are interleaved and medians are taken. Only ratios within one run mean anything.
"""

import argparse
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import httpx

CONNECTIONS = (1, 32)
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"
SERVERS = {
    "stn-serve": ["-m", "service", "--port", str(PORT), "--threads", "1", "--log-level", "error"],
    "FastAPI echo": [
        "-m",
        "uvicorn",
        "benchmarks.echo:app",
        "--port",
        str(PORT),
        "--log-level",
        "error",
        "--no-access-log",
    ],
}
BODIES = ("raw", "multipart")
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""


class Measured(NamedTuple):
    """What wrk said."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/digit.png"))
    options = parser.parse_args()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"error: {tool} is missing; apt install wrk util-linux")
    with tempfile.TemporaryDirectory() as folder:
        scripts = {body: write_script(Path(folder), body, options.picture) for body in BODIES}
        results: dict[tuple[str, str, int], list[Measured]] = defaultdict(list)
        for _ in range(options.rounds):
            for server, command in SERVERS.items():
                with running(command):
                    for body, script in scripts.items():
                        for connections in CONNECTIONS:
                            results[server, body, connections].append(load(script, connections, options.seconds))
    show(results, options.rounds, options.seconds)


def write_script(folder: Path, body: str, picture: Path) -> Path:
    """A wrk script that posts ``picture``, with its body beside it."""
    content, content_type = picture.read_bytes(), "image/png"
    if body == "multipart":
        request = httpx.Request("POST", ADDRESS, files={"image": (picture.name, content, content_type)})
        content, content_type = request.read(), request.headers["content-type"]
    (folder / f"{body}.bin").write_bytes(content)
    script = folder / f"{body}.lua"
    script.write_text(LUA.format(content_type=content_type, body=folder / f"{body}.bin"))
    return script


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A server on the first core, warmed up."""
    process = subprocess.Popen(["taskset", "-c", "0", sys.executable, *command], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                httpx.get(ADDRESS)
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        else:
            sys.exit(f"error: no server came up on {ADDRESS}")
        if process.poll() is not None:
            sys.exit(f"error: {' '.join(command)} ended; is another server listening on port {PORT}?")
        yield
    finally:
        process.terminate()
        process.wait()


def load(script: Path, connections: int, seconds: int) -> Measured:
    """Run wrk on the second core."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), f"{ADDRESS}/predict"]
    text = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"error: the server failed under load:\n{text}")
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", text)
    return Measured(float(rate), milliseconds(text, "50%"), milliseconds(text, "99%"))


def milliseconds(text: str, percentile: str) -> float:
    """A latency out of wrk's table."""
    ((number, unit),) = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", text)
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def show(results: dict[tuple[str, str, int], list[Measured]], rounds: int, seconds: int) -> None:
    """Print a Markdown table of medians."""
    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "pillow")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    print(f"median of {rounds} rounds of {seconds} s\n")
    print("| server | body | connections | requests/s | to the echo | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for (server, body, connections), rows in results.items():
        rate, p50, p99 = (statistics.median(values) for values in zip(*rows, strict=True))
        echo = statistics.median(row.requests_per_s for row in results["FastAPI echo", body, connections])
        print(f"| {server} | {body} | {connections} | {rate:.0f} | {rate / echo:.2f} | {p50:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
