"""Trials in the application, in one process with the test."""

from collections.abc import Iterator
from math import cos, radians, sin
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app, get_state
from service.middleware.api_keys import make_key
from service.request_context import RequestContext, current
from service.rollout.manager import RolloutManager, draw
from service.rollout.messages import Compared, Said
from service.settings import Settings
from tests.service import artifacts
from tests.service.exposed import Exposed

KEY, ENTRY = make_key("operator")
HEADERS = {"X-API-Key": KEY}
ROLLOUT = "/v2/repository/models/digits/rollout"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Version 2 is rolled out beside version 1."""
    for version in (1, 2):
        artifacts.write(tmp_path / "digits" / str(version))
    settings = Settings(models=tmp_path, admin_keys=ENTRY, rollout="digits/2", rollout_canary=0.5, device="cpu")
    with TestClient(create_app(settings)) as client:
        yield client


def manager(client: TestClient) -> RolloutManager:
    return get_state(client.app).rollouts  # type: ignore[arg-type]


def turned(degrees: float) -> Said:
    a, b = cos(radians(degrees)) / 2, sin(radians(degrees)) / 2
    return Said(("7",), 0.9, [[a, -b, 0.0], [b, a, 0.0]], 0.001)


def test_geometry_drift_between_the_versions_is_shown_and_exposed(client: TestClient) -> None:
    trial = manager(client).trial("digits")
    assert trial is not None
    for number in range(200):
        trial.comparison.add(Compared(turned(number / 10), turned(number / 10 + 15), 0.0, 3.0))
    found = client.get(ROLLOUT, headers=HEADERS).json()["rollout"]["comparison"]["geometry_drift"]["rotation"]
    assert found["distance"] > 0.25
    assert found["version_mean"] - found["default_mean"] == pytest.approx(15, abs=1e-3)
    seen = Exposed(client.get("/metrics").text)
    labels = {"model": "digits", "version": 2, "default": 1, "quantity": "rotation"}
    assert seen("stn_rollout_drift_distance", **labels) == pytest.approx(found["distance"])


def test_other_shares_continue_a_comparison_and_another_rollout_begins_one(client: TestClient) -> None:
    trial = manager(client).trial("digits")
    assert trial is not None
    trial.comparison.add(Compared(turned(0), turned(0), 0.0, 0.0))
    changed = client.post(ROLLOUT, headers=HEADERS, json={"version": "2", "shadow": 0.5, "canary": 0.1}).json()
    assert (changed["rollout"]["shadow"], changed["rollout"]["comparison"]["pictures"]) == (0.5, 1)
    assert manager(client).trial("digits") is trial
    assert trial.shadow is not None
    client.post(ROLLOUT, headers=HEADERS, json={"version": "2", "canary": 0.1})
    assert trial.shadow is None
    client.post(ROLLOUT, headers=HEADERS, json={"action": "rollback"})
    again = client.post(ROLLOUT, headers=HEADERS, json={"version": "2", "canary": 0.1}).json()
    assert again["rollout"]["comparison"]["pictures"] == 0
    assert again["last"]["comparison"]["pictures"] == 1


def test_metrics_of_a_pair_of_versions_never_decrease(client: TestClient) -> None:
    for _ in range(2):
        trial = manager(client).trial("digits")
        assert trial is not None
        trial.comparison.add(Compared(turned(0), turned(0), 0.0, 0.0))
        client.post(ROLLOUT, headers=HEADERS, json={"action": "rollback"})
        client.post(ROLLOUT, headers=HEADERS, json={"version": "2", "shadow": 0.1})
    assert Exposed(client.get("/metrics").text)("stn_rollout_pictures_total", agrees="true") == 2


def test_a_caller_is_drawn_by_its_key_else_by_its_request_id_else_by_chance(client: TestClient) -> None:
    trial = manager(client).trial("digits")
    assert trial is not None

    def drawn(request_id: str, key: str | None = None) -> float:
        context = RequestContext(request_id)
        context.key = key
        token = current.set(context)
        try:
            return draw(trial)
        finally:
            current.reset(token)

    assert drawn("a") == drawn("a") != drawn("b")
    assert drawn("a", "gate") == drawn("b", "gate") != drawn("a", "camera")
    assert len({drawn("") for _ in range(10)}) > 1
    shares = [drawn(str(number)) for number in range(2000)]
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.03)
    assert max(shares) < 1
