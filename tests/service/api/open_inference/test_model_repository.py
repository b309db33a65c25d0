"""The API that loads and unloads models, through the real process."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.open_inference.model_repository import MAX_BYTES
from service.middleware.api_keys import make_key
from service.schemas.models import ModelList
from tests.conftest import START_S, STOP_S, Service, fail_to_start, start_service
from tests.service import artifacts
from tests.service.answers import PICTURE, as_schema, predict, refused, well

KEY, ENTRY = make_key("operator")
ADMIN = ("--admin-keys", ENTRY)
HEADERS = {"X-API-Key": KEY}
LATEST = {"version_policy": {"latest": {"num_versions": 1}}}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    artifacts.write_labelled(tmp_path / "digits" / "1", "one-")
    artifacts.write_labelled(tmp_path / "digits" / "2", "two-")
    return tmp_path


@pytest.fixture
def service(models: Path) -> Iterator[Service]:
    with start_service("--models", models, *ADMIN) as service:
        yield service
        assert "Traceback" not in service.log()


def post(service: Service, path: str, content: Any = None) -> httpx.Response:
    """On a connection of its own, so that any worker may answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode() if content is not None else b""
    return service.ask("POST", f"/v2/repository/{path}", content=body, headers=HEADERS)


def load(service: Service, name: str = "digits", config: object = None) -> httpx.Response:
    parameters = {"parameters": {"config": json.dumps(config)}} if config is not None else {}
    return post(service, f"models/{name}/load", parameters)


def states(service: Service) -> dict[str, str]:
    response = post(service, "index")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert all(entry.keys() == {"name", "version", "state", "reason"} for entry in response.json())
    return {f"{entry['name']}/{entry['version']}": entry["state"] for entry in response.json()}


def done(response: httpx.Response) -> None:
    assert (response.status_code, response.content) == (200, b"")


def wrong(response: httpx.Response, status: int, says: str) -> None:
    """An error in the form of /v2."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    assert says in response.json()["error"]


def test_it_is_closed_where_nobody_has_an_admin_key(server: Service) -> None:
    for path in ("index", "models/digits/load", "models/digits/unload"):
        assert post(server, path).status_code == 403


def test_models_come_and_go(service: Service, models: Path) -> None:
    assert states(service) == {"digits/1": "READY", "digits/2": "READY"}
    artifacts.write_labelled(models / "signs" / "5", "s-")
    assert states(service) == {"digits/1": "READY", "digits/2": "READY", "signs/5": "UNAVAILABLE"}
    done(load(service, "signs"))
    assert predict(service, model="signs")["predictions"][0]["label"].startswith("s-")
    done(post(service, "models/signs/unload", {"parameters": {"unload_dependents": False}}))
    refused(service.client.post("/predict?model=signs", content=PICTURE), 404, "model_not_found", "there are: digits")
    done(load(service, config={"version_policy": {"specific": {"versions": [1]}}}))
    assert predict(service)["model"] == {"name": "digits", "version": 1}
    done(load(service, config=LATEST))
    assert predict(service)["model"] == {"name": "digits", "version": 2}
    done(load(service, config={"version_policy": {"all": {}}}))
    ready = post(service, "index", {"ready": True}).json()
    assert [(entry["name"], entry["version"]) for entry in ready] == [("digits", "1"), ("digits", "2")]
    well(service)


def test_a_failed_load_is_answered_with_its_reason_and_changes_nothing_else(service: Service, models: Path) -> None:
    (artifacts.write_labelled(models / "digits" / "3", "three-") / artifacts.MODEL).write_bytes(b"no model")
    wrong(load(service), 400, "digits/3: ")
    entries = {entry["version"]: entry for entry in post(service, "index").json()}
    assert "cut off" in entries["3"]["reason"]
    assert entries["1"]["reason"] == entries["2"]["reason"] == ""
    assert service.client.get("/health/ready").status_code == 200
    assert predict(service)["model"]["version"] == 2


def test_models_shows_users_what_is_served_by_default_and_what_is_not(service: Service, models: Path) -> None:
    (artifacts.write_labelled(models / "digits" / "3", "three-") / artifacts.MODEL).write_bytes(b"no model")
    load(service)
    listed = as_schema(ModelList, service.client.get("/models").content)
    assert [(m["version"], m["default"]) for m in listed["models"]] == [(1, False), (2, True)]
    assert listed["not_served"] == [{"name": "digits", "version": 3, "state": "UNAVAILABLE"}]
    assert str(models) not in json.dumps(listed), "reasons are for the operator"


@pytest.mark.parametrize(
    ("path", "content", "status", "says"),
    [
        ("models/letters/load", None, 404, "there is no model 'letters'"),
        ("models/letters/unload", None, 404, "there is no model 'letters'"),
        ("models/..%2f..%2fetc/load", None, 404, ""),
        ("models/digits/load", b"{", 400, "Invalid JSON"),
        ("models/digits/load", {"parameters": {"config": "{"}}, 400, "parameters.config"),
        ("models/digits/load", {"parameters": {"config": '{"backend": "x"}'}}, 400, "backend"),
        ("models/digits/load", {"parameters": {"file:1/model.onnx": "AAAA"}}, 400, "come from the models folder"),
        ("index", {"ready": "perhaps"}, 400, "ready"),
        ("index", b"[]", 400, "body"),
        ("index", b" " * (MAX_BYTES + 1), 413, "more than"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    administered: Service, path: str, content: object, status: int, says: str
) -> None:
    response = post(administered, path, content)
    if says:
        wrong(response, status, says)
    assert response.status_code == status
    well(administered)


@pytest.fixture(scope="module")
def administered() -> Iterator[Service]:
    """The service over the bundled models; no test changes what it serves."""
    with start_service(*ADMIN) as service:
        yield service


def test_it_is_described_for_people_and_programs(administered: Service) -> None:
    paths = administered.client.get("/openapi.json").json()["paths"]
    for path in ("index", "models/{name}/load", "models/{name}/unload"):
        assert paths[f"/v2/repository/{path}"]["post"]["summary"]


def test_tritons_own_client_loads_and_unloads(service: Service) -> None:
    triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        client.unload_model("digits", headers=HEADERS)
        assert {entry["state"] for entry in client.get_model_repository_index(headers=HEADERS)} == {"UNAVAILABLE"}
        client.load_model("digits", config=json.dumps(LATEST), headers=HEADERS)
        index = client.get_model_repository_index(headers=HEADERS)
        assert [entry["version"] for entry in index if entry["state"] == "READY"] == ["2"]
        with pytest.raises(triton.InferenceServerException, match="there is no model 'letters'"):
            client.load_model("letters", headers=HEADERS)


def test_the_settings_say_what_is_served_from_the_start(models: Path) -> None:
    artifacts.write_labelled(models / "alpha" / "1", "a-")
    flags = ("--load", "digits,alpha", "--versions", "latest:1", "--default", "digits/1")
    with start_service("--models", models, *flags) as service:
        assert " serves alpha/1 on cpu, digits/1 on cpu, digits/2 on cpu at " in service.line
        assert predict(service)["model"] == {"name": "digits", "version": 1}
    for wrong_flags, says in ((("--load", "letters"), "no model letters"), (("--load", "digits/9"), "no digits/9 in")):
        failed = fail_to_start("--models", models, *wrong_flags)
        assert failed.returncode == 1
        assert says in failed.stderr


def test_a_load_that_never_ends_is_given_up_and_does_not_keep_the_service_from_stopping(models: Path) -> None:
    with start_service("--models", models, *ADMIN, "--load-timeout-s", 1) as service:
        artifacts.write_endless(models / "digits" / "3")
        wrong(load(service), 400, "not loaded within 1 s")
        assert predict(service)["model"]["version"] == 2
        service.process.terminate()
        assert service.process.wait(STOP_S) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")
def test_a_load_of_what_is_no_file_is_refused_at_once(models: Path) -> None:
    with start_service("--models", models, *ADMIN) as service:
        folder = artifacts.write_labelled(models / "digits" / "3", "three-")
        (folder / artifacts.MODEL).unlink()
        os.mkfifo(folder / artifacts.MODEL)  # a reader would wait for ever
        wrong(load(service), 400, "model.onnx is not a regular file")
        assert predict(service)["model"]["version"] == 2
        shutil.rmtree(folder)
        done(load(service))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_workers_follow_and_those_that_are_replaced_come_up_with_the_present_set(models: Path) -> None:
    def workers(service: Service) -> set[int]:
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    def seen(service: Service) -> set[str]:
        """What a number of new connections are told is ready, which reach all workers."""
        answers = {json.dumps(states(service)) for _ in range(20)}
        assert len(answers) == 1, answers
        return {name for name, state in json.loads(answers.pop()).items() if state == "READY"}

    artifacts.write_labelled(models / "signs" / "1", "s-")
    with start_service("--models", models, *ADMIN, "--load", "digits/1", "--workers", 2) as service:
        assert seen(service) == {"digits/1"}
        done(load(service, "signs"))
        done(load(service, config=LATEST))
        assert seen(service) == {"digits/2", "signs/1"}
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + START_S
        while len(workers(service) - before) < 1 or not ready(service):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(max(before), signal.SIGKILL)  # now only the replacement answers
        assert seen(service) == {"digits/2", "signs/1"}
        assert predict(service, model="digits")["model"]["version"] == 2


def ready(service: Service) -> bool:
    try:
        return service.ask("GET", "/health/ready").status_code == 200
    except httpx.TransportError:
        return False
