"""The application under the servers that other projects run."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY, START_S, STOP_S, clean_environment, end, wait_until
from tests.service.embedding.applications import ADMIN_ENTRY, ENTRY, works_with_keys

FACTORY = "service.app:create_app"
ENVIRONMENT = {
    "STN_LOAD": "digits",
    "STN_VERSIONS": "latest",
    "STN_API_KEYS": ENTRY,
    "STN_ADMIN_KEYS": ADMIN_ENTRY,
    "STN_DEVICE": "cpu",
    "STN_THREADS": "1",
}
SERVERS = {
    "uvicorn": (["uvicorn", FACTORY, "--factory", "--port", "{port}"], ""),
    "uvicorn below a path": (["uvicorn", FACTORY, "--factory", "--port", "{port}", "--root-path", "/ml"], ""),
    "hypercorn": (["hypercorn", f"{FACTORY}()", "--bind", "127.0.0.1:{port}"], ""),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A server in a process of its own, once it answers."""
    port = free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *(argument.replace("{port}", str(port)) for argument in arguments)],
            cwd=REPOSITORY,
            env=clean_environment(ENVIRONMENT),
            stdout=output,
            stderr=output,
            text=True,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=STOP_S) as client:

                def answers() -> bool:
                    assert process.poll() is None, "it has ended"
                    try:
                        return client.get("/health/ready").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(answers)
                yield client, process
        finally:
            end(process)


@pytest.mark.parametrize("name", SERVERS)
def test_it_works_under_other_servers_with_its_keys(name: str) -> None:
    arguments, prefix = SERVERS[name]
    with running(arguments) as (client, process):
        works_with_keys(client, prefix)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) in (0, -signal.SIGTERM)


def test_a_start_that_fails_under_uvicorn_ends_with_one_clear_line(tmp_path: Path) -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "uvicorn", FACTORY, "--factory", "--port", str(free_port())],
        cwd=REPOSITORY,
        env=clean_environment({"STN_MODELS": os.fspath(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert failed.returncode != 0
    assert f"error: there is no model in {tmp_path}" in failed.stderr
    assert "Traceback" not in failed.stderr
