"""The OpenAPI document says what the service does, and the documentation needs no other host."""

import re
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.api.open_inference.rollout import RolloutInfo
from service.api.open_inference.schemas import (
    InferenceError,
    InferenceResponse,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    Statistics,
)
from service.schemas.answers import BatchPrediction, ErrorBody, Prediction
from service.schemas.models import ModelList, Status
from tests.conftest import Service
from tests.service.answers import PICTURE, as_schema
from tests.service.broken import HUGE

V2_MODELS = ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"]
SUCCESSES: dict[tuple[str, str], type[BaseModel]] = {
    ("/predict", "post"): Prediction,
    ("/predict/batch", "post"): BatchPrediction,
    ("/rectify", "post"): Prediction,
    ("/models", "get"): ModelList,
    ("/health/live", "get"): Status,
    ("/health/ready", "get"): Status,
    ("/v2", "get"): ServerMetadata,
    ("/v2/health/live", "get"): Live,
    ("/v2/health/ready", "get"): Ready,
    ("/v2/models/stats", "get"): Statistics,
    **{(path, "get"): ModelMetadata for path in V2_MODELS},
    **{(f"{path}/ready", "get"): ModelReady for path in V2_MODELS},
    **{(f"{path}/config", "get"): ModelConfig for path in V2_MODELS},
    **{(f"{path}/stats", "get"): Statistics for path in V2_MODELS},
    **{(f"{path}/infer", "post"): InferenceResponse for path in V2_MODELS},
}
REPOSITORY = "/v2/repository"
ADMIN_PATHS = [f"{REPOSITORY}/{path}" for path in ("index", "models/{name}/load", "models/{name}/unload")]
ERRORS: dict[tuple[str, str], set[str]] = {
    ("/predict", "post"): {"400", "404", "408", "413", "415", "422", "429", "500", "503", "504"},
    ("/predict/batch", "post"): {"400", "404", "408", "413", "415", "422", "429", "503"},
    ("/rectify", "post"): {"400", "404", "406", "408", "413", "415", "422", "429", "500", "503", "504"},
    ("/metrics", "get"): set(),
    ("/models", "get"): set(),
    ("/health/live", "get"): {"503"},
    ("/health/ready", "get"): {"503"},
    ("/v2", "get"): set(),
    ("/v2/health/live", "get"): {"503"},
    ("/v2/health/ready", "get"): {"503"},
    ("/v2/models/stats", "get"): set(),
    **{(path, "get"): {"404"} for path in V2_MODELS},
    (f"{REPOSITORY}/index", "post"): {"400", "401", "403", "408", "413", "503"},
    (f"{REPOSITORY}/models/{{name}}/load", "post"): {"400", "401", "403", "404", "408", "413", "503"},
    (f"{REPOSITORY}/models/{{name}}/unload", "post"): {"401", "403", "404", "503"},
    (f"{REPOSITORY}/models/{{name}}/rollout", "get"): {"401", "403", "404", "503"},
    (f"{REPOSITORY}/models/{{name}}/rollout", "post"): {"400", "401", "403", "404", "408", "409", "413", "503"},
    **{(f"{path}/ready", "get"): {"404", "503"} for path in V2_MODELS},
    **{(f"{path}/{about}", "get"): {"404"} for path in V2_MODELS for about in ("config", "stats")},
    **{
        (f"{path}/infer", "post"): {"400", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
        for path in V2_MODELS
    },
}
OPTIONS = {
    *("top_k", "points", "model", "version", "x-timeout-ms"),
    *("rectified", "rectified_size", "padding", "margin", "region", "reliability", "views", "angle_hint"),
}
PICTURES: Any = {"files": [("images", PICTURE), ("images", b"seven")]}
FORM = {"content-type": "multipart/form-data; boundary=x"}
REQUESTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("post", "/predict", {"content": PICTURE}, 200),
    ("post", "/predict", {"content": PICTURE, "params": {"rectified": "none", "top_k": 1}}, 200),
    ("post", "/predict", {"content": PICTURE[:30]}, 400),
    ("post", "/predict", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ("post", "/predict", {"content": PICTURE, "params": {"model": "x"}}, 404),
    ("post", "/predict", {"content": HUGE["PNG"]}, 413),
    ("post", "/predict", {"content": b"seven"}, 415),
    ("post", "/predict", {"content": PICTURE, "params": {"top_k": 0}}, 422),
    ("post", "/predict/batch", PICTURES, 200),
    ("post", "/predict/batch", PICTURES | {"params": {"rectified": "jpeg"}}, 200),
    ("post", "/predict/batch", {"content": b"", "headers": FORM}, 400),
    ("post", "/predict/batch", PICTURES | {"params": {"version": 999}}, 404),
    ("post", "/predict/batch", {"files": [("images", b"7")] * 300}, 413),
    ("post", "/predict/batch", {"content": PICTURE}, 415),
    ("post", "/predict/batch", {"files": {"image": PICTURE}}, 422),
    ("post", "/predict/batch", PICTURES | {"params": {"unknown": 1}}, 422),
    ("post", "/predict", {"content": PICTURE, "params": {"rectified_size": "9x7", "rectified": "webp"}}, 200),
    ("post", "/rectify", {"content": PICTURE, "headers": {"accept": "application/json"}}, 200),
    ("post", "/rectify", {"content": PICTURE, "headers": {"accept": "text/html"}}, 406),
    ("post", "/rectify", {"content": b"seven"}, 415),
    ("get", "/models", {}, 200),
    ("get", "/health/live", {}, 200),
    ("get", "/health/ready", {}, 200),
]


@pytest.fixture(scope="module")
def document(server: Service) -> dict[str, Any]:
    response = server.client.get("/openapi.json")
    assert response.status_code == 200
    content: dict[str, Any] = response.json()
    return content


def schema(document: dict[str, Any], path: str, method: str, status: str) -> dict[str, Any]:
    """What the document says of the JSON of an answer, wherever it says it."""
    content = document["paths"][path][method]["responses"][status]["content"]
    as_bytes = {"/infer": {"application/octet-stream"}, "/rectify": {"image/png", "image/jpeg", "image/webp"}}
    last = path[path.rindex("/") :]
    assert content.keys() == {"application/json"} | (as_bytes.get(last, set()) if status == "200" else set())
    described = content["application/json"]["schema"]
    reference = described.get("anyOf", [described])[0]["$ref"]  # the second is with regions
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def test_it_names_every_route_and_every_answer(document: dict[str, Any]) -> None:
    found = {
        (path, method): {status for status in operation["responses"] if status != "200"}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert found == ERRORS


def definitions(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schemas of ``model`` and of its parts, without defaults of null, which FastAPI leaves out."""
    described = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    parts: dict[str, Any] = described.pop("$defs", {}) | {model.__name__: described}
    for part in parts.values():
        for field in part["properties"].values():
            if field.get("default", ...) is None:
                del field["default"]
    return parts


@pytest.mark.parametrize(("path", "method"), SUCCESSES)
def test_it_describes_the_schema_of_every_answer(document: dict[str, Any], path: str, method: str) -> None:
    models: dict[str, type[BaseModel]] = {"200": SUCCESSES[path, method]}
    models |= dict.fromkeys(ERRORS[path, method], InferenceError if path.startswith("/v2") else ErrorBody)
    for status, model in models.items():
        expected = definitions(model)
        assert schema(document, path, method, status) == expected[model.__name__]
        assert document["components"]["schemas"] | expected == document["components"]["schemas"]


@pytest.mark.parametrize(("method", "path", "content", "status"), REQUESTS)
def test_every_answer_is_as_it_says(
    server: Service, document: dict[str, Any], method: str, path: str, content: dict[str, Any], status: int
) -> None:
    response: httpx.Response = server.client.request(method, path, **content)
    assert response.status_code == status, response.text
    assert str(status) in document["paths"][path][method]["responses"]
    as_schema(SUCCESSES[path, method] if status == 200 else ErrorBody, response.content)


def test_it_explains_every_option_and_every_way_to_send_a_picture(document: dict[str, Any]) -> None:
    for path, types in {
        "/predict": {"multipart/form-data", "image/*", "application/json"},
        "/rectify": {"multipart/form-data", "image/*", "application/json"},
        "/predict/batch": {"multipart/form-data"},
    }.items():
        operation = document["paths"][path]["post"]
        assert {option["name"] for option in operation["parameters"]} == OPTIONS
        assert all(option["description"] for option in operation["parameters"])
        assert operation["requestBody"]["content"].keys() == types


def test_it_explains_what_clients_of_the_open_inference_protocol_send(document: dict[str, Any]) -> None:
    for path in V2_MODELS:
        operation = document["paths"][f"{path}/infer"]["post"]
        in_path = set(re.findall(r"{(\w+)}", path))
        headers = {"Inference-Header-Content-Length", "Content-Encoding", "x-timeout-ms"}
        assert {option["name"] for option in operation["parameters"]} == in_path | headers
        assert all(option["description"] for option in operation["parameters"])
        content = operation["requestBody"]["content"]
        assert content.keys() == {"application/json", "application/octet-stream"}
        assert content["application/json"]["schema"]["$ref"].endswith("/InferenceRequest")
        for about in "", "/ready", "/config", "/stats":
            options = document["paths"][path + about]["get"]["parameters"]
            assert {option["name"] for option in options} == in_path


def test_it_describes_the_body_and_the_answer_of_a_rollout(document: dict[str, Any]) -> None:
    rollout = document["paths"][f"{REPOSITORY}/models/{{name}}/rollout"]
    body = rollout["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert body.keys() == {"version", "shadow", "canary", "promote_when", "action"}
    assert all(field["description"] for field in body.values())
    for method in ("get", "post"):
        reference = rollout[method]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert reference.endswith("/RolloutInfo")
    parts = definitions(RolloutInfo)
    assert document["components"]["schemas"] | parts == document["components"]["schemas"]


def test_it_describes_the_bodies_and_answers_of_the_admin_routes(document: dict[str, Any]) -> None:
    index, load, unload = (document["paths"][path]["post"] for path in ADMIN_PATHS)
    options = {
        name: operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
        for name, operation in (("index", index), ("load", load))
    }
    assert options["index"].keys() == {"ready"}
    config = options["load"]["parameters"]["properties"]["config"]["anyOf"][0]
    assert config["contentMediaType"] == "application/json"
    policies = config["contentSchema"]["properties"]["version_policy"]["properties"]
    assert policies.keys() == {"latest", "specific", "all"}
    entries = index["responses"]["200"]["content"]["application/json"]["schema"]["items"]["$ref"]
    assert document["components"]["schemas"][entries.rpartition("/")[2]]["properties"].keys() == {
        "name",
        "version",
        "state",
        "reason",
    }
    assert "requestBody" not in unload
    for operation in (load, unload):
        assert [option["name"] for option in operation["parameters"]] == ["name"]
        assert not operation["responses"]["200"].get("content")
    schemes = document["components"]["securitySchemes"]
    for operation in (index, load, unload):
        assert {name for choice in operation["security"] for name in choice} == schemes.keys()
        for status in ("400", "404", "503"):
            if status in operation["responses"]:
                assert "InferenceError" in str(operation["responses"][status]["content"])


def test_every_route_has_a_summary_and_every_error_its_code(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for status, answer in operation["responses"].items():
                assert status == "200" or re.match(r"`[a-z_]+`: ", answer["description"])


def test_every_reference_in_it_leads_somewhere(server: Service, document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/schemas/(\w+)"', server.client.get("/openapi.json").text))
    assert references == document["components"]["schemas"].keys()


def test_the_documentation_comes_from_the_service_alone(server: Service) -> None:
    page = server.client.get("/docs", headers={"host": "a.proxy.example"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    references = set(re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text))
    kinds = set()
    for reference in references:
        assert httpx.URL(reference).is_relative_url, "whose scheme and host are the proxy's"
        asset = server.client.get(httpx.URL(f"{server.url}/docs").join(reference))
        assert asset.status_code == 200, reference
        assert asset.content
        kinds.add(asset.headers["content-type"].partition(";")[0])
    assert kinds == {"text/javascript", "text/css", "image/png", "application/json"}
    assert "://" not in page.text


def test_of_the_package_behind_the_documentation_nothing_else_is_shown(server: Service) -> None:
    for name in ("__init__.py", "__pycache__", "", "..%2fmain.py"):
        assert server.client.get(f"/swagger/{name}").status_code == 404
