"""Versions are rolled out, compared, promoted and rolled back, through the real process."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.open_inference.rollout import RolloutInfo
from service.middleware.api_keys import make_key
from tests.conftest import REPOSITORY, STOP_S, Service, fail_to_start, start_service, wait_until
from tests.service import artifacts
from tests.service.answers import PICTURE, predict, prediction, well
from tests.service.exposed import scrape
from tests.service.pictures import DIGITS, encode

KEY, ENTRY = make_key("operator")
ADMIN = ("--admin-keys", ENTRY)
HEADERS = {"X-API-Key": KEY}
ROLLOUT = "/v2/repository/models/digits/rollout"
BAD = encode(np.maximum(DIGITS[0], np.eye(1, DIGITS[0].size, dtype=np.uint8).reshape(DIGITS[0].shape) * 200))
"""A picture whose first pixel makes moody models hang or fail."""


def ask(service: Service, content: Any) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return service.ask("POST", ROLLOUT, content=body, headers=HEADERS)


def change(service: Service, **content: Any) -> dict[str, Any]:
    response = ask(service, content)
    assert response.status_code == 200, response.text
    return checked(response)


def look(service: Service) -> dict[str, Any]:
    return checked(service.ask("GET", ROLLOUT, headers=HEADERS))


def checked(response: httpx.Response) -> dict[str, Any]:
    """The state as JSON; it must be what is described."""
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(response.content)
    assert RolloutInfo.model_validate_json(response.content).model_dump(mode="json") == found
    return found


def compared(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = look(service)["rollout"]["comparison"]
    return found


def settled(service: Service) -> int:
    """Pictures that were compared or dropped."""
    found = compared(service)
    return sum((found["pictures"], *found["dropped"].values()))


def ask_until(service: Service, true: Callable[[], bool], picture: bytes = PICTURE, **options: object) -> None:
    """Send pictures, each of which must be answered, until something is true; wait for the shadow after each."""

    def one_more() -> bool:
        before = settled(service)
        predict(service, picture, **options)
        wait_until(lambda: settled(service) > before)
        return true()

    wait_until(one_more)


def children(service: Service) -> set[int]:
    """The processes that shadow, which have another name than all others that it starts."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = status.read_text().partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == service.process.pid:
                found.add(int(pid))
    return {pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    artifacts.write(tmp_path / "digits" / "1")
    return tmp_path


@pytest.fixture
def service(models: Path) -> Iterator[Service]:
    """Version 1 is the default; version 2 is put into the folder by the test, and loaded by its rollout."""
    with start_service("--models", models, "--inference-timeout-s", "1", *ADMIN) as service:
        yield service


def test_a_shadow_is_compared_and_then_promoted(service: Service, models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    begun = change(service, version="2", shadow=1.0)
    assert (begun["default"], begun["rollout"]["version"], begun["rollout"]["shadow"]) == ("1", "2", 1.0)
    ask_until(service, lambda: compared(service)["pictures"] >= 10)
    found = compared(service)
    assert predict(service)["model"]["version"] == 1, "the shadow answers nobody"
    assert found["agreement"] == 1.0
    assert found["classes"] == {"7": {"pictures": found["pictures"], "agreement": 1.0}}
    assert found["corners_px"]["p95"] == pytest.approx(0, abs=1e-3)
    assert found["probability_change"]["p99"] == pytest.approx(0, abs=1e-3)
    assert found["default_inference_ms"]["median"] > 0
    assert found["version_inference_ms"]["p99"] > 0
    seen = scrape(service)
    assert seen("stn_rollout_pictures_total", model="digits", version=2, default=1, agrees="true") >= 10
    assert seen("stn_rollout_corner_distance_pixels_count", model="digits") >= 10
    assert seen("stn_rollout_inference_seconds_count", by="version") >= 10
    assert seen("stn_requests_total", version=2) == 0

    ended = change(service, action="promote")
    assert (ended["default"], ended["rollout"]) == ("2", None)
    assert (ended["last"]["outcome"], ended["last"]["version"]) == ("promoted", "2")
    assert predict(service)["model"]["version"] == 2
    assert predict(service, version=1)["model"]["version"] == 1, "the way back is open"
    assert change(service, action="promote", version="1")["default"] == "1"
    assert predict(service)["model"]["version"] == 1
    wait_until(lambda: not children(service))
    well(service)


def test_versions_with_other_inputs_and_classes_are_compared_by_name(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / "signs").mkdir(exist_ok=True)
        (tmp_path / "signs" / str(version)).symlink_to(REPOSITORY / "models" / "signs" / str(version))
    sign = (REPOSITORY / "docs" / "pictures" / "sign.jpg").read_bytes()
    flags = ("--models", tmp_path, "--rollout", "signs/2", "--rollout-shadow", 1, *ADMIN)
    with start_service(*flags) as service:
        path = "/v2/repository/models/signs/rollout"

        def found() -> dict[str, Any]:
            state: dict[str, Any] = service.ask("GET", path, headers=HEADERS).json()
            assert (state["default"], state["rollout"]["version"]) == ("1", "2")
            comparison: dict[str, Any] = state["rollout"]["comparison"]
            return comparison

        whole = predict(service, sign)
        other = predict(service, sign, version=2)
        assert whole["model"]["version"] == 1
        wait_until(lambda: bool(predict(service, sign)) and found()["pictures"] >= 1)
        distance = np.hypot(*(np.array(whole["corners"]) - np.array(other["corners"])).T).mean()
        assert found()["corners_px"]["median"] == pytest.approx(distance, abs=0.05)
        assert found()["agreement"] == float(whole["predictions"][0]["label"] == other["predictions"][0]["label"])
        before = found()["pictures"]
        region = "10,10,120,120"
        wait_until(
            lambda: (
                service.client.post("/predict", params={"region": region}, content=sign).status_code == 200
                and found()["pictures"] > before
            )
        )
        tensor = {"inputs": [{"name": "image", "shape": [1, 48, 48, 3], "datatype": "UINT8", "data": [0] * 6912}]}
        assert service.client.post("/v2/models/signs/infer", json=tensor).status_code == 200
        assert found()["dropped"]["unlike"] == 1
        well_answered = service.client.get("/v2/models/signs").json()
        assert well_answered["inputs"][0]["shape"][1:] == [48, 48, 3]


def test_the_rule_promotes_a_version_that_fulfils_it_and_no_other(models: Path) -> None:
    artifacts.write_labelled(models / "digits" / "2", "other-")
    artifacts.write(models / "digits" / "3")
    flags = ("--rollout", "digits/2", "--rollout-shadow", 1, "--promote-pictures", 5, "--default", "digits/1")
    with start_service("--models", models, *flags, *ADMIN) as service:
        assert look(service)["rollout"]["promote_when"]["pictures"] == 5
        ask_until(service, lambda: compared(service)["pictures"] >= 8)
        assert compared(service)["agreement"] == 0
        assert scrape(service)("stn_rollout_disagreements_total", **{"class": "7"}) >= 8
        rule = {"pictures": 5, "agreement": 0.99, "corner_p95_px": 0.5, "p99_ratio": 100.0}
        assert change(service, action="rollback")["last"]["outcome"] == "rolled back"
        begun = change(service, version="3", shadow=1.0, promote_when=rule)
        assert begun["rollout"]["promote_when"] == rule
        wait_until(lambda: predict(service)["model"]["version"] == 3)
        assert look(service)["last"]["outcome"] == "promoted"
        assert "rollout_fulfilled" in service.log()
        well(service)


def test_a_canary_answers_the_same_callers_each_time(service: Service, models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    change(service, version="2", canary=0.5)

    def version(caller: str, path: str = "/predict", **request: Any) -> int:
        content = request or {"content": PICTURE}
        response = service.client.post(path, headers={"X-Request-Id": caller}, **content)
        assert response.status_code == 200, response.text
        answer = response.json()
        answer = answer["results"][0] if "results" in answer else answer
        return int(answer["model"]["version"] if "model" in answer else answer["model_version"])

    callers = [f"caller-{number}" for number in range(60)]
    first = [version(caller) for caller in callers]
    assert 10 < first.count(2) < 50
    assert [version(caller) for caller in callers] == first
    form: dict[str, Any] = {"files": {"image": PICTURE}}
    assert [version(caller, **form) for caller in callers[:20]] == first[:20]
    batch: dict[str, Any] = {"files": [("images", PICTURE)]}
    assert [version(caller, "/predict/batch", **batch) for caller in callers[:20]] == first[:20]
    tensor = {"inputs": [{"name": "image", "shape": [1, *DIGITS[0].shape, 1], "datatype": "UINT8"}]}
    tensor["inputs"][0]["data"] = DIGITS[0].ravel().tolist()
    assert [version(caller, "/v2/models/digits/infer", json=tensor) for caller in callers[:20]] == first[:20]
    assert {version(caller, "/predict?version=1") for caller in callers[:20]} == {1}, "who names a version gets it"
    change(service, version="2", canary=0.9)
    more = [version(caller) for caller in callers]
    assert all(now == 2 for before, now in zip(first, more, strict=True) if before == 2), "none is sent back"
    assert more.count(2) > first.count(2)
    assert change(service, action="rollback")["rollout"] is None
    assert {version(caller) for caller in callers[:20]} == {1}
    well(service)


def test_a_key_has_the_same_version_whatever_the_request(models: Path) -> None:
    keys = [make_key(f"client-{number}") for number in range(16)]
    artifacts.write(models / "digits" / "2")
    flags = ("--rollout", "digits/2", "--rollout-shadow", 0, "--rollout-canary", 0.5)
    with start_service("--models", models, *flags, "--api-keys", ",".join(entry for _, entry in keys)) as service:

        def versions(key: str) -> set[int]:
            answers = [
                service.client.post("/predict", content=PICTURE, headers={"X-API-Key": key, "X-Request-Id": f"r{n}"})
                for n in range(4)
            ]
            return {prediction(answer)["model"]["version"] for answer in answers}

        found = [versions(key) for key, _ in keys]
        assert all(len(each) == 1 for each in found)
        assert set().union(*found) == {1, 2}


def test_a_shadow_that_fails_touches_no_live_answer(service: Service, models: Path) -> None:
    artifacts.write_moody(models / "digits" / "2", hangs=False)
    change(service, version="2", shadow=1.0)
    ask_until(service, lambda: compared(service)["dropped"].get("failed", 0) >= 2, BAD)
    ask_until(service, lambda: compared(service)["pictures"] >= 2)
    assert '"task": "shadow"' in service.log()
    assert scrape(service)("stn_rollout_dropped_total", reason="failed") >= 2


def test_a_shadow_that_hangs_or_dies_is_replaced_and_touches_no_live_answer(service: Service, models: Path) -> None:
    artifacts.write_moody(models / "digits" / "2", hangs=True)
    change(service, version="2", shadow=1.0)
    ask_until(service, lambda: compared(service)["pictures"] >= 1)
    (first,) = children(service)
    ask_until(service, lambda: compared(service)["dropped"].get("hung", 0) >= 1, BAD)
    assert "did not answer" in look(service)["rollout"]["trouble"]
    assert service.client.get("/health/ready").status_code == 200
    before = compared(service)["pictures"]
    ask_until(service, lambda: compared(service)["pictures"] > before)
    assert look(service)["rollout"]["trouble"] is None
    (second,) = children(service)
    assert second != first
    os.kill(second, signal.SIGKILL)
    ask_until(service, lambda: compared(service)["dropped"].get("crashed", 0) >= 1)
    before = compared(service)["pictures"]
    ask_until(service, lambda: compared(service)["pictures"] > before)


def test_a_service_ends_during_a_shadow_that_hangs(models: Path) -> None:
    artifacts.write_moody(models / "digits" / "2", hangs=True)
    flags = ("--rollout", "digits/2", "--rollout-shadow", 1)
    with start_service("--models", models, *flags) as service:
        wait_until(lambda: bool(predict(service)) and bool(children(service)))
        for _ in range(20):
            predict(service, BAD)
        present = children(service)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_S) == 0
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in present))
        assert "Traceback" not in service.log()


def test_a_version_that_is_unloaded_is_rolled_out_no_more(service: Service, models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    change(service, version="2", shadow=1.0, canary=1.0)
    assert predict(service)["model"]["version"] == 2
    ask_until(service, lambda: bool(children(service)) or compared(service)["pictures"] > 0, version=1)
    load = {"parameters": {"config": json.dumps({"version_policy": {"specific": {"versions": [1]}}})}}
    path = "/v2/repository/models/digits"
    assert service.ask("POST", f"{path}/load", json=load, headers=HEADERS).status_code == 200
    assert look(service)["rollout"] is None
    assert look(service)["last"]["outcome"] == "unloaded"
    assert predict(service)["model"]["version"] == 1
    change(service, version="2", shadow=1.0)
    assert service.ask("POST", f"{path}/load", headers=HEADERS).status_code == 200
    assert look(service)["rollout"]["version"] == "2", "an ordinary load leaves it as it is"
    assert look(service)["default"] == "1"
    assert service.ask("POST", f"{path}/unload", headers=HEADERS).status_code == 200
    assert service.ask("GET", ROLLOUT, headers=HEADERS).status_code == 404
    assert service.ask("POST", f"{path}/load", headers=HEADERS).status_code == 200
    assert predict(service)["model"]["version"] == 2, "as the settings have it"
    wait_until(lambda: not children(service))


@pytest.fixture(scope="module")
def administered() -> Iterator[Service]:
    """The service over the bundled models; no test changes what it serves."""
    with start_service("--default", "digits/2", *ADMIN) as service:
        yield service


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 400, "name a version"),
        (b"{", 400, "Invalid JSON"),
        (b"[]", 400, "body"),
        (b"\xff", 400, "Invalid JSON"),
        (b" " * 20_000, 413, "more than"),
        ({"version": "3"}, 400, "give a shadow or a canary"),
        ({"version": "3", "shadow": 0}, 400, "give a shadow or a canary"),
        ({"version": "3", "shadow": 1.1}, 400, "shadow"),
        ({"version": "3", "shadow": -0.1}, 400, "shadow"),
        ({"version": "3", "shadow": "0.1"}, 400, "shadow"),
        ({"version": "3", "shadow": True}, 400, "shadow"),
        (b'{"version": "3", "shadow": NaN}', 400, "shadow"),
        (b'{"version": "3", "canary": 1e999}', 400, "canary"),
        ({"version": 3, "shadow": 0.1}, 400, "version"),
        ({"version": "0", "shadow": 0.1}, 400, "version"),
        ({"version": "../3", "shadow": 0.1}, 400, "version"),
        ({"version": "9" * 30, "shadow": 0.1}, 400, "version"),
        ({"version": "3", "shadow": 0.1, "promote_when": {}}, 400, "promote_when.pictures"),
        ({"version": "3", "shadow": 0.1, "promote_when": {"pictures": 0}}, 400, "promote_when.pictures"),
        ({"version": "3", "canary": 0.1, "promote_when": {"pictures": 9}}, 400, "promote_when needs a shadow"),
        ({"version": "3", "shadow": 0.1, "promote_when": {"pictures": 9, "p99_ms": 2}}, 400, "p99_ms"),
        ({"version": "3", "share": 0.1}, 400, "share"),
        ({"action": "explode"}, 400, "action"),
        ({"action": "rollback", "version": "3"}, 400, "send it alone"),
        ({"action": "promote", "shadow": 0.5}, 400, "send it alone"),
        ({"action": "promote"}, 409, "nothing is rolled out"),
        ({"action": "rollback"}, 409, "nothing is rolled out"),
        ({"version": "2", "shadow": 0.1}, 409, "the default version already"),
        ({"version": "7", "shadow": 0.1}, 400, "there is no digits/7"),
        ({"action": "promote", "version": "7"}, 400, "there is no digits/7"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    administered: Service, content: Any, status: int, says: str
) -> None:
    response = ask(administered, content)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert says in response.json()["error"]
    assert look(administered) == {"model": "digits", "default": "2", "rollout": None, "last": None}


def test_only_admins_may_look_or_change(administered: Service) -> None:
    for method in ("GET", "POST"):
        assert administered.client.request(method, ROLLOUT).status_code == 401
    missing = administered.client.get("/v2/repository/models/letters/rollout", headers=HEADERS)
    assert missing.status_code == 404


def test_a_rollout_that_the_settings_ask_for_in_vain_ends_the_start(models: Path) -> None:
    assert "--rollout names digits/7" in fail_to_start("--models", models, "--rollout", "digits/7").stderr
    alone = fail_to_start("--models", models, "--rollout", "digits/1").stderr
    assert "no other version of digits is served" in alone
    assert "rollout" in fail_to_start("--models", models, "--rollout", "digits").stderr


def test_all_workers_change_together_and_a_new_one_joins(models: Path) -> None:
    artifacts.write(models / "digits" / "2")
    flags = ("--models", models, "--default", "digits/1", "--workers", 2, *ADMIN)
    with start_service(*flags) as service:

        def versions() -> set[int]:
            """Of many connections, which are of any worker."""
            answers = [service.ask("POST", "/predict", content=PICTURE) for _ in range(24)]
            return {prediction(answer)["model"]["version"] for answer in answers}

        assert versions() == {1}
        change(service, version="2", canary=1.0)
        assert versions() == {2}
        victim = next(iter(children(service)))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in children(service) and len(children(service)) == 2)
        wait_until(lambda: service.ask("GET", "/health/ready").status_code == 200)
        assert versions() == {2}, "the replacement knows of the canary"
        change(service, action="rollback")
        assert versions() == {1}
        change(service, action="promote", version="2")
        assert versions() == {2}
