"""stn-serve next to other model servers doing the same work, in one run.

    python -m benchmarks.serving.comparison [--rounds 5] [--seconds 3] [--model light]
        [--picture docs/pictures/digit.png] [--connections 1 32] [--only stn-serve mosec] [--proxied] [--photograph]

Needs Linux, two cores, wrk and taskset (apt install wrk util-linux), and the `dev` packages; TorchServe needs Java, and
is left out without it. Makes environments for the peers (benchmarks/serving/*requirements.txt; TorchServe's takes
several GB) and untrained models (benchmarks/inference/artifacts.py) in build/. All processes of a server have the first
core and wrk the second; rounds of the servers are interleaved and medians are taken, after the answers of all have been
compared. Only ratios within one run mean anything.
"""

import argparse
import mimetypes
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from benchmarks.inference import artifacts

BUILD = Path("build")
MODELS = BUILD / "benchmark-models"
PEERS = BUILD / "benchmark-peers"
OLD_FASTAPI = BUILD / "benchmark-mlserver"
WITH_TORCH = BUILD / "benchmark-torchserve"
REQUIREMENTS = {
    PEERS: Path("benchmarks/serving/requirements.txt"),
    OLD_FASTAPI: Path("benchmarks/serving/mlserver-requirements.txt"),
    WITH_TORCH: Path("benchmarks/serving/torchserve-requirements.txt"),
}
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"
BATCH = 64
START_S = 60
STOP_S = 5
PYTHON, OLD_PYTHON, TORCH_PYTHON = (str(environment / "bin" / "python") for environment in REQUIREMENTS)
BENTOML = [PYTHON, "-m", "bentoml", "serve", "bentoml_server:Model", "--working-dir", "benchmarks/serving/peers"]
STN_SERVE = [sys.executable, "-m", "service", "--models", str(MODELS), "--threads", "1", "--log-level", "error"]
ECHO = [sys.executable, *["-m", "uvicorn", "benchmarks.serving.echo:app", "--log-level", "error", "--no-access-log"]]
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""
PROXIED_LUA = """
local count = 0
function request()
    count = count + 1
    wrk.headers["X-Request-Id"] = string.format("%032x", count)
    wrk.headers["X-Forwarded-For"] = string.format("203.0.%d.%d", math.floor(count / 250) % 250, count % 250)
    wrk.headers["X-Forwarded-Proto"] = "https"
    wrk.headers["traceparent"] = string.format("00-%032x-%016x-01", count, count)
    return wrk.format()
end
"""
"""What nginx and a tracing proxy add: different for each request."""


class Case(NamedTuple):
    """A server, and the kind of body that it gets."""

    command: list[str]
    body: str
    path: str = "/predict"
    pictures: int = 1
    settle_s: int = 0
    """Seconds from its first answer until it has started whole."""
    warm_up_s: int = 1
    """Seconds of requests until it is as fast as it gets."""


CASES = {
    "stn-serve": Case([*STN_SERVE, "--port", str(PORT)], "raw"),
    "stn-serve without the fast path": Case([*STN_SERVE, "--fast-path", "false", "--port", str(PORT)], "raw"),
    "stn-serve with busy polling": Case([*STN_SERVE, "--busy-poll-us", "100", "--port", str(PORT)], "raw"),
    "stn-serve, multipart": Case([*STN_SERVE, "--port", str(PORT)], "multipart"),
    "stn-serve, batches of 64": Case([*STN_SERVE, "--port", str(PORT)], "batch", "/predict/batch", BATCH),
    "mosec": Case([PYTHON, "benchmarks/serving/peers/mosec_server.py", str(PORT)], "raw"),
    "LitServe": Case([PYTHON, "benchmarks/serving/peers/litserve_server.py", str(PORT)], "multipart"),
    "BentoML": Case([*BENTOML, "--port", str(PORT)], "raw"),
    "MLServer": Case([OLD_PYTHON, "benchmarks/serving/peers/mlserver_server.py", str(PORT)], "raw"),
    "Ray Serve": Case([PYTHON, "benchmarks/serving/peers/ray_server.py", str(PORT)], "raw", settle_s=15),
    "TorchServe": Case(
        [TORCH_PYTHON, "benchmarks/serving/peers/torchserve_server.py", str(PORT)],
        "raw",
        "/predictions/model",
        settle_s=5,
        warm_up_s=20,  # Java compiles what has run often
    ),
    "FastAPI, ORT call in an async route": Case(
        [PYTHON, "benchmarks/serving/peers/fastapi_route.py", str(PORT)], "raw"
    ),
    "FastAPI, the same from an UploadFile": Case(
        [PYTHON, "benchmarks/serving/peers/fastapi_route.py", str(PORT)], "multipart", "/upload"
    ),
    "bare FastAPI echo": Case([*ECHO, "--port", str(PORT)], "raw"),
}
LOOP = "no server: a plain Python loop, batches of 64"


class Measured(NamedTuple):
    """What wrk and the kernel said."""

    pictures_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of all processes of the server, for a picture."""
    megabytes: float


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--model", choices=("light", "signs"), default="light")
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/digit.png"))
    parser.add_argument("--proxied", action="store_true", help="with the headers of a proxy, for every server")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--photograph", action="store_true", help="a JPEG of some 50 kB into the signs model instead")
    options = parser.parse_args()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"error: {tool} is missing; apt install wrk util-linux")
    if "TorchServe" in options.only and shutil.which("java") is None:
        print("TorchServe is left out: java is missing; apt install default-jre-headless", file=sys.stderr)
        options.only.remove("TorchServe")
    artifacts.main(MODELS)
    if options.photograph:
        options.model, options.picture = "signs", artifacts.write_photograph(BUILD / "photograph.jpg")
    make_peers(options.only)
    os.environ |= {"ARTIFACT": str(MODELS.resolve() / options.model / "1"), "OPENBLAS_NUM_THREADS": "1"}
    os.environ |= {"BENTOML_DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        scripts = {
            body: write_script(Path(folder), body, options.picture, proxied=options.proxied)
            for body in ("raw", "multipart", "batch")
        }
        compare(options.only, options.picture, options.model)
        results: dict[tuple[str, int], list[Measured]] = defaultdict(list)
        loops = []
        for _ in range(options.rounds):
            for name in options.only:
                case = CASES[name]
                with running(case.command) as process:
                    time.sleep(case.settle_s)
                    for connections in options.connections:
                        measured = wrk(case, process, scripts[case.body], connections, options.model, options.seconds)
                        results[name, connections].append(measured)
            loops.append(loop(options.picture, options.seconds))
    show(results, statistics.median(loops), options)


def make_peers(names: list[str]) -> None:
    """The environments that these servers and the plain loop run in."""
    pythons = {PYTHON, *(CASES[name].command[0] for name in names)}
    for environment, requirements in REQUIREMENTS.items():
        if str(environment / "bin" / "python") not in pythons:
            continue
        installed = environment / requirements.name
        if not installed.exists() or installed.read_text() != requirements.read_text():
            print(f"Installing peers into {environment} (once) ...", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
            subprocess.run([environment / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
            shutil.copy(requirements, installed)


def write_script(folder: Path, body: str, picture: Path, *, proxied: bool = False) -> Path:
    """A wrk script that posts ``picture``, with its body beside it; ``proxied`` as if it came through a proxy."""
    content, content_type = write_body(body, picture)
    (folder / f"{body}.bin").write_bytes(content)
    script = folder / f"{body}.lua"
    head = LUA.format(content_type=content_type, body=folder / f"{body}.bin")
    script.write_text(head + (PROXIED_LUA if proxied else ""))
    return script


def write_body(body: str, picture: Path) -> tuple[bytes, str]:
    """A body with ``picture``, and its type."""
    content, content_type = picture.read_bytes(), media_type(picture)
    if body == "raw":
        return content, content_type
    file = (picture.name, content, content_type)
    files = [("image", file)] if body == "multipart" else [("images", file)] * BATCH
    request = httpx.Request("POST", ADDRESS, files=files)
    return request.read(), request.headers["content-type"]


def media_type(picture: Path) -> str:
    """By its suffix."""
    return mimetypes.guess_type(picture.name)[0] or "application/octet-stream"


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """A server on the first core; its process."""
    process = subprocess.Popen(
        ["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(ADDRESS, timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        else:
            sys.exit(f"error: {' '.join(command)} did not come up on {ADDRESS}")
        yield process.pid
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):  # some leave their workers behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(case: Case, picture: Path, model: str) -> dict[str, Any]:
    """A server's answer, once it is ready to give one."""
    content = picture.read_bytes()
    kinds: dict[str, dict[str, Any]] = {
        "raw": {"content": content, "headers": {"content-type": media_type(picture)}},
        "multipart": {"files": {"image": content}},
        "batch": {"files": {"images": content}},
    }
    for _ in range(START_S):
        response = httpx.post(f"{ADDRESS}{case.path}", params={"model": model}, timeout=START_S, **kinds[case.body])
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer["results"][0] if case.body == "batch" else answer
        time.sleep(1)
    sys.exit(f"error: no answer: {response.text}")


def compare(names: list[str], picture: Path, model: str) -> None:
    """End if a server answers otherwise than the first."""
    expected: dict[str, Any] = {}
    for name in names:
        if "echo" in name:
            continue
        with running(CASES[name].command):
            found = ask(CASES[name], picture, model)
        expected = expected or found
        same = (
            [entry["label"] for entry in found["predictions"]] == [entry["label"] for entry in expected["predictions"]]
            and np.allclose(found["theta"], expected["theta"], atol=1e-4)
            and len(found["rectified"]["data"]) > 0
        )
        if not same:
            sys.exit(f"error: {name} answers {found}, not {expected}")


def wrk(case: Case, process: int, script: Path, connections: int, model: str, seconds: int) -> Measured:
    """Run wrk on the second core."""
    address = f"{ADDRESS}{case.path}?model={model}"
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script)]
    subprocess.run([*command, f"-d{case.warm_up_s}s", address], capture_output=True, check=True)
    before, _ = usage(process)
    text = subprocess.run([*command, f"-d{seconds}s", address], capture_output=True, text=True, check=True).stdout
    after, megabytes = usage(process)
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"error: the server failed under load:\n{text}")
    (count,) = re.findall(r"(\d+) requests in", text)
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", text)
    cpu_us = (after - before) / (int(count) * case.pictures) * 1e6
    return Measured(
        float(rate) * case.pictures, milliseconds(text, "50%"), milliseconds(text, "99%"), cpu_us, megabytes
    )


def usage(process: int) -> tuple[float, float]:
    """Seconds of CPU that a process and its descendants have used, and megabytes that they hold."""
    seconds, megabytes = 0.0, 0.0
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        megabytes = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                more_seconds, more_megabytes = usage(int(child))
                seconds, megabytes = seconds + more_seconds, megabytes + more_megabytes
    except FileNotFoundError:  # it has just ended
        pass
    return seconds, megabytes


def loop(picture: Path, seconds: int) -> float:
    """Pictures per second without a server."""
    command = ["taskset", "-c", "0", PYTHON, "benchmarks/serving/peers/loop.py", str(picture), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def milliseconds(text: str, percentile: str) -> float:
    """A latency out of wrk's table."""
    ((number, unit),) = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", text)
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def show(results: dict[tuple[str, int], list[Measured]], plain_loop: float, options: argparse.Namespace) -> None:
    """Print a Markdown table of medians."""
    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "imagecodecs", "onnxruntime-gpu", "numpy")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    for requirements in REQUIREMENTS.values():
        print("peers: " + ", ".join(line for line in requirements.read_text().splitlines() if "==" in line))
    print(f"model {options.model}, {options.picture}, median of {options.rounds} rounds of {options.seconds} s\n")
    print("| server | connections | pictures/s | to mosec | p50 ms | p99 ms | CPU us/picture | to mosec | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    medians = {key: Measured(*map(statistics.median, zip(*rows, strict=True))) for key, rows in results.items()}
    for (name, connections), row in medians.items():
        base = medians.get(("mosec", connections), row)
        print(
            f"| {name} | {connections} | {row.pictures_per_s:.0f} | {row.pictures_per_s / base.pictures_per_s:.2f} "
            f"| {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.cpu_us:.0f} | {row.cpu_us / base.cpu_us:.2f} "
            f"| {row.megabytes:.0f} |"
        )
    mosec = medians.get(("mosec", options.connections[-1]))
    ratio = f"{plain_loop / mosec.pictures_per_s:.2f}" if mosec else ""
    print(f"| {LOOP} | | {plain_loop:.0f} | {ratio} | | | | | |")


if __name__ == "__main__":
    main()
