"""The process as its operator sees it: how it starts, what it says when it cannot, and how it stops."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from export.format.artifact import GOLDEN, MANIFEST, pack_golden
from service import __version__
from service.inference.backends import cuda_obstacle
from service.settings import Settings
from tests.conftest import (
    REPOSITORY,
    START_S,
    STOP_S,
    Service,
    clean_environment,
    command,
    end,
    fail_to_start,
    start_service,
    wait_until,
)
from tests.service import artifacts
from tests.service.answers import PICTURE, connect, post, predict, receive, refused, well
from tests.service.broken import png, rows
from tests.service.pictures import ARTIFACT, TRANSFORM

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HEAVY = {"torch", "torchvision", "lightning", "matplotlib", "onnx", "onnxscript", "tensorboard", "scipy", "training"}


def stopped(service: Service) -> int:
    """Waits for the end of a service that was told to stop; its exit status."""
    return service.process.wait(STOP_S)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """What a service says that cannot start: one line after the log, and exit code 1."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *log, line = result.stderr.splitlines()
    assert all(json.loads(entry)["level"] in {"info", "warning"} for entry in log), result.stderr
    assert line.startswith("error: ")
    return line


def test_it_says_what_it_serves_and_where(server: Service) -> None:
    assert server.line.startswith(f"stn-serve {__version__} serves digits/2 on c")
    assert f" at {server.url} (docs: {server.url}/docs)" in server.line
    event = json.loads(server.log().splitlines()[0])
    assert (event["event"], event["model"], event["version"]) == ("model_ready", "digits", 2)


def test_it_is_live_and_ready(server: Service) -> None:
    for state in ("live", "ready"):
        response = server.client.get(f"/health/{state}")
        assert (response.status_code, response.json()) == (200, {"status": state})


@pytest.mark.parametrize("state", ["live", "ready"])
def test_a_load_balancer_may_ask_by_head(server: Service, state: str) -> None:
    response = server.client.head(f"/health/{state}")
    assert (response.status_code, response.content) == (200, b"")


def write_bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def without(*names: str) -> Callable[[Path], object]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / artifacts.MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / artifacts.MODEL).write_bytes(content)


def change(**changes: object) -> Callable[[Path], object]:
    return lambda folder: artifacts.edit_manifest(folder, **changes)


def tampered(outputs: str, by: float) -> Callable[[Path], object]:
    return lambda folder: artifacts.write(folder, golden=artifacts.golden(artifacts.shifted(outputs, by)))


def misname_probabilities(folder: Path) -> None:
    manifest = ARTIFACT.manifest
    outputs = tuple("chances" if name == manifest.probabilities else name for name in manifest.outputs)
    images, golden = ARTIFACT.golden()
    answers = {"chances": golden[manifest.probabilities]} | golden
    changed = manifest.model_copy(update={"probabilities": "chances", "outputs": outputs})
    artifacts.write(folder, changed, golden=pack_golden(manifest.input.name, images, answers))


AS_EXPORTED = "differ from those at its export"
UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "other golden probabilities": (tampered(ARTIFACT.manifest.probabilities, 0.01), AS_EXPORTED),
    "other golden pictures": (tampered(TRANSFORM.rectified, 20), AS_EXPORTED),
    "fewer golden answers": (
        lambda folder: artifacts.write(
            folder, golden=artifacts.golden(lambda outputs: {name: output[1:] for name, output in outputs.items()})
        ),
        "as many answers as pictures",
    ),
    "a golden answer that is missing": (
        lambda folder: artifacts.write(folder, golden=artifacts.golden(lambda _: {})),
        "export the model again",
    ),
    "golden answers that are no file of arrays": (
        lambda folder: artifacts.write(folder, golden=b"no arrays"),
        "export the model again",
    ),
    "a model that is none": (
        lambda folder: artifacts.write(folder, model=onnx.ModelProto(ir_version=8).SerializeToString()),
        "no graph",
    ),
    "a flipped byte in the model": (flip_a_byte, "its sha256 differs"),
    "golden answers cut short": (write_bytes(GOLDEN, b"PK"), "copy it again"),
    "an empty model": (write_bytes(artifacts.MODEL, b""), "copy it again"),
    "a missing model": (lambda folder: (folder / artifacts.MODEL).unlink(), "copy the whole folder again"),
    "a missing manifest and model": (without(MANIFEST, artifacts.MODEL), "cannot read"),
    "a manifest that is no JSON": (write_bytes(MANIFEST, b"{"), "export the model again"),
    "a newer format": (change(format_version=4), "upgrade stn-serve"),
    "an unknown runtime": (change(runtime="crystal ball"), "runtime"),
    "a manifest without classes": (change(classes=None), "classes"),
    "outputs that the model does not have": (misname_probabilities, "differs from the manifest"),
}


@pytest.mark.parametrize("defect", UNFIT)
def test_it_does_not_start_on_a_model_with(defect: str, tmp_path: Path) -> None:
    folder = artifacts.write(tmp_path / "digits" / "1")
    spoil, says = UNFIT[defect]
    spoil(folder)
    line = one_line(fail_to_start("--models", tmp_path))
    assert says in line
    assert str(folder) in line


@pytest.mark.parametrize("missing", [True, False])
def test_it_does_not_start_without_models(missing: bool, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    if not missing:
        (folder / "digits" / "latest").mkdir(parents=True)
    line = one_line(fail_to_start(env={"STN_MODELS": str(folder)}))
    assert str(folder) in line
    assert missing or "NAME/VERSION" in line


@pytest.mark.parametrize(
    ("flags", "env", "says"),
    [
        (["--prot", "1"], {}, "--prot"),
        (["--port", "many"], {}, "port='many'"),
        (["serves"], {}, "serves"),
        ([], {"STN_PROT": "1"}, "unknown setting STN_PROT; known are"),
        ([], {"STN_PORT": "70000"}, "port='70000'"),
        ([], {"stn_max_batch": "0"}, "max_batch='0'"),
        ([], {"STN_DEVICE": "gpu"}, "'auto', 'cpu' or 'cuda'"),
        ([], {"STN_LOG_FORMAT": ""}, "log_format=''"),
        (["--host", "no.such.invalid"], {}, "choose another --host or --port"),
    ],
)
def test_it_does_not_start_with_a_wrong_setting(flags: list[str], env: dict[str, str], says: str) -> None:
    assert says in one_line(fail_to_start(*flags, env=env))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the libraries of a process as Linux shows them")
def test_ctrl_c_ends_the_start_without_a_traceback(tmp_path: Path) -> None:
    artifacts.write_endless(tmp_path / "digits" / "1")
    process = subprocess.Popen(
        command(["--models", tmp_path]), env=clean_environment({}), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: "onnxruntime" in Path(f"/proc/{process.pid}/maps").read_text())
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=STOP_S)
    finally:
        end(process)
    assert (process.returncode, stderr) == (-signal.SIGINT, ""), "a shell shows 130"


def test_it_does_not_start_on_a_port_that_is_taken(server: Service) -> None:
    _, port = server.address
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use" in one_line(fail_to_start("--port", port))
    well(server)


@pytest.mark.skipif(cuda_obstacle() is None, reason="there is a GPU")
def test_it_does_not_fall_back_when_it_is_told_to_use_a_gpu_that_is_not_there() -> None:
    line = one_line(fail_to_start("--device", "cuda"))
    assert line.startswith("error: device=cuda, but ")
    assert "device=auto" in line


def test_help_explains_every_setting() -> None:
    result = fail_to_start("--help")
    assert (result.returncode, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    for name, field in Settings.model_fields.items():
        assert f" --{name.replace('_', '-')} " in text
        assert " ".join((field.description or "missing").split()) in text


def test_flags_and_environment_are_the_same_and_flags_win() -> None:
    environment = {"STN_MAX_BYTES": "1000", "stn_max_pixels": "50", "STN_LOG_LEVEL": "warning", "STN_PORT": "1"}
    with start_service("--max-pixels", 3600, env=environment) as service:
        refused(service.client.post("/predict", content=bytes(1001)), 413, "too_large", "more than 1000 bytes")
        predict(service, png(60, 60, rows(60, 60)))
        refused(service.client.post("/predict", content=png(61, 60, rows(61, 60))), 413, "too_large", "at most 3600")
        assert service.log() == "", "model_ready is of level info"


def test_logs_can_be_text_for_people() -> None:
    with start_service("--log-format", "console") as service:
        assert "model_ready" in service.log()
        assert not service.log().startswith("{")


def test_it_listens_on_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6")
    with start_service("--host", "::1") as service:
        assert "http://[::1]:" in service.line
        predict(service)


@LINUX
def test_serving_onnx_loads_nothing_that_is_for_training() -> None:
    with start_service(python=["-X", "importtime"]) as service:
        predict(service)
        names = {line.rpartition("|")[2].strip() for line in service.log().splitlines() if "import time:" in line}
        maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert {"service.inference.engine", "onnxruntime"} <= names, "or this test would not see what is imported"
    assert {name.partition(".")[0] for name in names} & HEAVY == set()
    loaded = {Path(line.split(maxsplit=5)[5]).parts for line in maps.splitlines() if line.count("/")}
    assert not [path for path in loaded if HEAVY & set(path) or path[-1].startswith("libtorch")]
    assert any("onnxruntime" in path for path in loaded)


@pytest.fixture
def patient() -> Iterator[Service]:
    """A service that waits long for requests under way, and has answered one on a connection that stays open."""
    with start_service("--shutdown-timeout-s", 10 * STOP_S) as service:
        predict(service)
        yield service


def begin_upload(service: Service) -> socket.socket:
    """A request that the service has begun to read; its picture is still to be sent."""
    connection = connect(service)
    connection.sendall(post(PICTURE, "Expect: 100-continue")[: -len(PICTURE)])
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


def wait_until_it_takes_no_connections(service: Service) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            connect(service).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the service still takes connections after it was told to stop")


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_under_way_and_takes_nothing_new(
    patient: Service, told_by: signal.Signals
) -> None:
    with begin_upload(patient) as connection:
        patient.process.send_signal(told_by)
        wait_until_it_takes_no_connections(patient)
        assert patient.process.poll() is None
        connection.sendall(PICTURE)
        answer = receive(connection)
    assert answer.status == 200
    assert answer.json()["batch_size"] == 1
    assert stopped(patient) == 0
    assert "Traceback" not in patient.log()


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(patient: Service, told_by: signal.Signals) -> None:
    patient.process.send_signal(told_by)
    assert stopped(patient) == 0
    assert all(json.loads(line)["level"] == "info" for line in patient.log().splitlines())


def test_a_second_ctrl_c_stops_it_with_a_request_under_way(patient: Service) -> None:
    with begin_upload(patient):
        patient.process.send_signal(signal.SIGINT)
        wait_until_it_takes_no_connections(patient)
        patient.process.send_signal(signal.SIGINT)
        assert stopped(patient) == 0
    assert "Traceback" not in patient.log()


def test_its_patience_with_requests_under_way_ends_after_the_grace_time() -> None:
    with start_service("--shutdown-timeout-s", 1) as service, begin_upload(service):
        service.process.send_signal(signal.SIGTERM)
        assert stopped(service) == 0
