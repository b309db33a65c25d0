"""The service as a process of its own, for the tests that talk to it."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests already run in as many processes as there are cores

pytest_plugins = ["tests.small_runs"]  # data_root, small_recipe, trained_run, sequence_run

REPOSITORY = Path(__file__).parents[1]
START_S = 60
"""Longest time to the first line or, for a start that fails, to the exit; generous, as the machine may be busy."""
STOP_S = 30
FAST_PATH = os.environ.get("TEST_FAST_PATH", "on")
"""With ``off``, all services that tests start answer through the application alone."""


COSTLY_NAMES = {
    "start_service",
    "fail_to_start",
    "subprocess",
    "fit",
    "begin",
    "evaluate",
    "adopt_in",
    "misbehaving",
    "Processes",
    "OnnxRuntime",
    "working",
}
"""What test modules import to start programs, train, export, or run several processes."""
COSTLY_FIXTURES = {"server", "service", "browser", "data_root", "trained_run", "sequence_run", "exported"}
"""Fixtures that start a program, train a network or export one."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark as ``unit`` all tests that neither start programs nor train or export; `make check` runs them alone."""
    for item in items:
        if isinstance(item, pytest.Function):
            names, fixtures = vars(item.module).keys(), {*item.fixturenames}
            if COSTLY_NAMES.isdisjoint(names) and COSTLY_FIXTURES.isdisjoint(fixtures):
                item.add_marker("unit")


class Service(NamedTuple):
    """A running ``python -m service``."""

    line: str
    """What it printed when it listened."""
    url: str
    process: subprocess.Popen[str]
    client: httpx.Client
    stderr: IO[bytes]

    def log(self) -> str:
        """Everything it has written to stderr."""
        file = self.stderr.fileno()  # whose position is the service's too, so it must not be moved
        return os.pread(file, os.fstat(file).st_size, 0).decode()

    def ask(self, method: str, path: str, timeout: float = STOP_S, **request: Any) -> httpx.Response:
        """Send a request on a connection of its own, which any worker may take."""
        # There is no TLS here; to read the certificates of all authorities would take longer than most answers.
        with httpx.Client(base_url=self.url, timeout=timeout, verify=False) as client:
            return client.request(method, path, **request)

    @property
    def address(self) -> tuple[str, int]:
        """For raw sockets."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail if ``condition`` does not come true in a generous time."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def command(flags: Sequence[object], python: Sequence[str] = (), module: Sequence[str] = ("service",)) -> list[str]:
    """The command line of ``module`` and its own arguments, with options of Python itself before ``-m``."""
    return [sys.executable, *python, "-m", *module, *map(str, flags)]


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of the service, and ``env``."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("STN_")}
    return kept | {"STN_FAST_PATH": FAST_PATH} | dict(env)


@contextmanager
def start_service(
    *flags: object,
    env: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
    module: Sequence[str] = ("service",),
) -> Iterator[Service]:
    """The service with ``flags``, on a free port unless they name one; it has ended when the context has."""
    port = [] if "--port" in flags else ["--port", "0"]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command([*port, *flags], python, module),
            cwd=REPOSITORY,
            env=clean_environment(env or {}),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        watchdog = threading.Timer(START_S, process.kill)  # then the line below ends as well
        watchdog.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            watchdog.cancel()
            if " at http" not in line:
                stderr.seek(0)
                pytest.fail(f"the service did not start; it printed {line!r} and:\n{stderr.read().decode()}")
            url = line.split(" at ")[1].split()[0]
            with httpx.Client(base_url=url, timeout=STOP_S, verify=False) as client:
                yield Service(line, url, process, client, stderr)
        finally:
            watchdog.cancel()
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Stop ``process``, politely first."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def fail_to_start(*flags: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What the service leaves behind when it cannot start."""
    return subprocess.run(
        command(flags),
        cwd=REPOSITORY,
        env=clean_environment(env or {}),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


@pytest.fixture(scope="session")
def server() -> Iterator[Service]:
    """The service over the bundled models, with default settings; one for all tests, so none may stop it."""
    with start_service() as service:
        yield service
