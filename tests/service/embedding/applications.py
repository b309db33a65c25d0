"""Applications in this process, and what is expected of each."""

from pathlib import Path

import httpx
from starlette.testclient import TestClient

from export.format.artifact import find_artifacts
from service.middleware.api_keys import make_key
from service.settings import Settings
from tests.service.answers import PICTURE, prediction, refused

KEY, ENTRY = make_key("camera")
ADMIN, ADMIN_ENTRY = make_key("operator")
HEADERS = {"X-API-Key": KEY}
MODELS = Path(__file__).parents[3] / "models"


def settings(**changes: object) -> Settings:
    """Settings of a service with keys over one of the bundled models."""
    values: dict[str, object] = {
        "models": MODELS,
        "load": "digits",
        "versions": "latest",
        "device": "cpu",
        "threads": 1,
        "access_log": "none",
        "api_keys": ENTRY,
        "admin_keys": ADMIN_ENTRY,
    }
    return Settings.model_validate(values | changes)


def infer_body() -> dict[str, object]:
    """A request of the Open Inference Protocol for one blank picture."""
    name, version, folder = max(entry for entry in find_artifacts(MODELS) if entry[0] == "digits")
    from export.format.artifact import read_artifact

    taken = read_artifact(folder).manifest.input
    shape = [1, taken.height, taken.width, taken.channels]
    size = taken.height * taken.width * taken.channels
    assert (name, version) == ("digits", 3)
    return {"inputs": [{"name": taken.name, "shape": shape, "datatype": "UINT8", "data": [0] * size}]}


def works_with_keys(client: httpx.Client | TestClient, prefix: str = "") -> None:
    """Predictions, other routes and the protective parts work below ``prefix``, and keys are needed."""
    post, get = client.post, client.get
    answered = post(f"{prefix}/predict", content=PICTURE, headers=HEADERS | {"X-Request-ID": "mine"})
    assert prediction(answered)["model"]["name"] == "digits"
    assert answered.headers["x-request-id"] == "mine"
    assert answered.headers["x-content-type-options"] == "nosniff"
    several = post(f"{prefix}/predict/batch", files=[("images", PICTURE)] * 2, headers=HEADERS)
    assert len(several.json()["results"]) == 2
    inferred = post(f"{prefix}/v2/models/digits/infer", json=infer_body(), headers=HEADERS)
    assert inferred.status_code == 200, inferred.text
    for path in ("/predict", "/predict/batch", "/v2/models/digits/infer"):
        for headers in ({}, {"X-API-Key": KEY[:-1]}):
            refused_answer = post(prefix + path, content=PICTURE, headers=headers)
            assert refused_answer.status_code == 401, path
            assert "x-request-id" in refused_answer.headers
    refused(post(f"{prefix}/predict"), 401, "unauthorized")
    assert get(f"{prefix}/models").status_code == 401
    assert get(f"{prefix}/models", headers=HEADERS).json()["models"][0]["name"] == "digits"
    assert get(f"{prefix}/health/ready").json() == {"status": "ready"}
    assert "stn_requests_total" in get(f"{prefix}/metrics").text
    index = f"{prefix}/v2/repository/index"
    assert [post(index, headers={"X-API-Key": key}).status_code for key in (KEY, ADMIN)] == [403, 200]
    refused(get(f"{prefix}/nowhere", headers=HEADERS), 404, "not_found")
    page = get(f"{prefix}/docs")
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
