"""Health, metadata, configuration and statistics, and the form of everything that goes wrong under /v2."""

import pytest

from service import __version__
from service.api.open_inference.schemas import (
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    Statistics,
)
from tests.conftest import Service, start_service
from tests.service.answers import PICTURE, as_schema, connect, post, receive
from tests.service.api.open_inference.exchange import INFER, NAME, answered, ask, refused, tensor
from tests.service.pictures import GOLDEN_PICTURES, MANIFEST, VERSION, Answer

MODEL = "/v2/models/digits"
OF_VERSION = f"{MODEL}/versions/{VERSION}"


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_service_says_who_it_is_and_what_it_knows(server: Service, path: str) -> None:
    response = server.client.get(path)
    assert response.status_code == 200
    found = as_schema(ServerMetadata, response.content)
    assert (found["name"], found["version"]) == ("stn-serve", __version__)
    assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= set(found["extensions"])


def test_health_answers_with_json_for_clients_that_read_it(server: Service) -> None:
    assert as_schema(Live, server.client.get("/v2/health/live").content) == {"live": True}
    assert as_schema(Ready, server.client.get("/v2/health/ready").content) == {"ready": True}
    for path in MODEL, OF_VERSION:
        response = server.client.get(f"{path}/ready")
        assert response.status_code == 200
        assert as_schema(ModelReady, response.content) == {"name": "digits", "ready": True}


def test_metadata_describes_the_model(server: Service) -> None:
    for path in MODEL, OF_VERSION:
        found = as_schema(ModelMetadata, server.client.get(path).content)
        assert found == {
            "name": "digits",
            "versions": ["2", "3"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": NAME, "datatype": "UINT8", "shape": [-1, 42, 42, 1]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "theta", "datatype": "FP32", "shape": [-1, 2, 3]},
                {"name": "rectified", "datatype": "UINT8", "shape": [-1, 20, 20, 1]},
            ],
        }


def test_config_says_how_the_model_is_run() -> None:
    with start_service("--max-batch", 7, "--max-queue", 8, "--timeout-ms", 90) as service:
        for path in MODEL, OF_VERSION:
            found = as_schema(ModelConfig, service.client.get(f"{path}/config").content)
            assert found["name"] == "digits"
            assert found["backend"] == "onnxruntime"
            assert found["max_batch_size"] == 7
            assert found["input"] == [{"name": NAME, "data_type": "TYPE_UINT8", "dims": [42, 42, 1]}]
            assert [output["name"] for output in found["output"]] == list(MANIFEST.outputs)
            policy = found["dynamic_batching"]["default_queue_policy"]
            assert (policy["max_queue_size"], policy["default_timeout_microseconds"]) == (8, 90_000)


def statistics(service: Service, path: str) -> list[Answer]:
    response = service.client.get(path)
    assert response.status_code == 200
    found: list[Answer] = as_schema(Statistics, response.content)["model_stats"]
    return found


def test_statistics_count_pictures_inferences_and_their_time() -> None:
    with start_service() as service:
        (before,) = statistics(service, f"{MODEL}/stats")
        assert (before["inference_count"], before["last_inference"], before["batch_stats"]) == (0, 0, [])
        for _ in range(3):
            answered(ask(service, {"inputs": [tensor()]}))
        service.client.post("/predict", content=PICTURE)
        (after,) = statistics(service, f"{OF_VERSION}/stats")
        assert after["inference_count"] == 3 * len(GOLDEN_PICTURES) + 1
        assert after["execution_count"] == 4
        assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]} == {1: 1, 4: 3}
        times = after["inference_stats"]
        assert times["success"]["count"] == times["queue"]["count"] == times["compute_infer"]["count"] == 13
        assert times["success"]["ns"] == pytest.approx(times["queue"]["ns"] + times["compute_infer"]["ns"], abs=2)
        shared = sum(batch["batch_size"] * batch["compute_infer"]["ns"] for batch in after["batch_stats"])
        assert times["compute_infer"]["ns"] == pytest.approx(shared, abs=10)
        assert times["fail"] == {"count": 0, "ns": 0}
        assert after["last_inference"] > 1.7e12
        found = {(model["name"], model["version"]): model for model in statistics(service, "/v2/models/stats")}
        assert found["digits", str(VERSION)] == after
        assert found["digits", "2"]["inference_count"] == 0


@pytest.mark.parametrize("route", ["", "/ready", "/config", "/stats", "/infer"])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("/v2/models/nobody", "no model is called 'nobody'; there are: digits, signs"),
        ("/v2/models/nobody/versions/1", "there are: digits, signs"),
        ("/v2/models/digits/versions/9", "digits has no version 9; it has: 2, 3"),
        ("/v2/models/digits/versions/latest", "'latest' is not a version"),
        ("/v2/models/digits/versions/0", "'0' is not a version"),
        ("/v2/models/digits/versions/-1", "'-1' is not a version"),
        (f"/v2/models/digits/versions/{'9' * 5000}", "is not a version"),
        ("/v2/models/..%2f..%2fetc", ""),
        ("/v2/models/%00", ""),
    ],
)
def test_unknown_models_and_versions_are_404(server: Service, model: str, says: str, route: str) -> None:
    method = "POST" if route == "/infer" else "GET"
    refused(server.client.request(method, model + route, content=b"{}" if method == "POST" else None), 404, says)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/digits/nothing", 404),
        ("GET", INFER, 405),
        ("PUT", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2", 405),
        ("POST", "/v2/models/digits", 405),
    ],
)
def test_unknown_paths_and_methods_have_the_form_of_the_protocol(
    server: Service, method: str, path: str, status: int
) -> None:
    refused(server.client.request(method, path), status, "/docs lists the routes")


def test_the_form_is_that_of_the_protocol_under_v2_alone(server: Service) -> None:
    for path in "/v2x", "/v1", "/nothing":
        assert set(server.client.get(path).json()["error"]) == {"code", "message"}


def test_a_wrong_timeout_is_422_in_the_form_of_the_protocol(server: Service) -> None:
    refused(ask(server, {"inputs": [tensor()]}, **{"X-Timeout-Ms": "soon"}), 422, "X-Timeout-Ms")


def test_what_is_refused_on_the_wire_has_the_form_of_the_protocol() -> None:
    with start_service("--request-timeout-s", 1) as service, connect(service) as connection:
        connection.sendall(post(b"{", target=f"{INFER}?x=1", length=100))
        answer = receive(connection)
    assert (answer.status, answer.headers["content-type"]) == (408, "application/json")
    assert "did not arrive whole" in answer.json()["error"]


def test_what_is_no_http_on_a_path_of_the_protocol_has_its_form(server: Service) -> None:
    with connect(server) as connection:
        connection.sendall(post(b"", length="x", target=INFER))
        answer = receive(connection)
    assert answer.status == 400
    assert isinstance(answer.json()["error"], str)
