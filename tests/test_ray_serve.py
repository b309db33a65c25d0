"""The service under Ray Serve, really run: ``make test-ray``."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import REPOSITORY

pytest.importorskip("ray", reason="Ray is not installed; `make test-ray` installs it and runs this")

FOLDER = REPOSITORY / "deploy" / "ray"
BIN = Path(sys.executable).parent
REQUESTS = 40
START_S = 300.0
"""Longest start, of a cluster and two replicas."""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port of the service on a cluster of one node, and the first one of its replicas' metrics."""
    port, metrics_port = free_port(), free_port()
    config = yaml.safe_load((FOLDER / "serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    changed = {"STN_MODELS": REPOSITORY / "models", "PYTHONPATH": FOLDER, "RAY_STN_METRICS_PORT": metrics_port}
    application["runtime_env"]["env_vars"] |= {name: str(value) for name, value in changed.items()}
    file = tmp_path_factory.mktemp("serve") / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    # Without `ray start`, `serve run` has a cluster of its own, which ends with it.
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "200",
    }
    command = [BIN / "serve", "run", file]
    with subprocess.Popen(list(map(str, command)), env=environment, cwd=file.parent) as process:
        try:
            deadline = time.monotonic() + START_S
            while not is_ready(port):
                assert process.poll() is None, "see the lines above"
                assert time.monotonic() < deadline
                time.sleep(1)
            yield port, metrics_port
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.create_server(("", 0)) as listener:
        return int(listener.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


def test_two_replicas_answer_and_each_has_its_metrics(ports: tuple[int, int]) -> None:
    port, metrics_port = ports
    picture = (REPOSITORY / "docs" / "pictures" / "digit.png").read_bytes()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(REQUESTS):
            answer = client.post("/predict", files={"image": picture})
            assert answer.json()["predictions"][0]["label"] == "7"
        assert client.post("/predict", files={"image": b"none"}).status_code == 415
    counts = [answered(metrics_port + number) for number in range(2)]
    assert sum(counts) == REQUESTS
    assert min(counts) > 0


def answered(port: int) -> int:
    """Predictions of a replica so far, by its metrics."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.findall(r'stn_requests_total\{[^}]*route="/predict"[^}]*status="200"[^}]*\} (\S+)', text)
    return int(sum(map(float, found)))
