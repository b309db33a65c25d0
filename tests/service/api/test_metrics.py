"""GET /metrics of the real process: everything that happens is counted once, under the names that are documented."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.settings import Settings
from tests.conftest import REPOSITORY, START_S, Service, start_service, wait_until
from tests.service.answers import PICTURE, connect, predict, prediction, receive
from tests.service.exposed import Exposed, scrape
from tests.service.pictures import DIGITS, VERSION, Answer, encode
from tests.service.server.test_overload import GOOD, ask, log_events, misbehaving

MODEL = {"model": "digits", "version": VERSION}
HALF = PICTURE[: len(PICTURE) // 2]
STAGES = ("decode", "queue", "inference", "encode")
DOCUMENTED = set(re.findall(r"^\| `(\w+)`", (REPOSITORY / "docs" / "operate" / "metrics.md").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_service() as running:
        yield running


def gain(service: Service, act: Callable[[], object]) -> Callable[..., float]:
    """How much each figure grows by ``act``."""
    before = scrape(service)
    act()
    after = scrape(service)
    return lambda name, **labels: after(name, **labels) - before(name, **labels)


def test_requests_are_counted_by_route_model_and_status(service: Service) -> None:
    def act() -> None:
        predict(service)
        predict(service, version=2)
        service.client.post("/predict", content=b"no picture")
        service.client.get("/models")
        service.client.get("/models/../etc/passwd")
        service.client.get(f"/{time.time()}")

    grown = gain(service, act)
    requests = "stn_requests_total"
    assert grown(requests, route="/predict", status=200, **MODEL) == 1
    assert grown(requests, route="/predict", status=200, model="digits", version=2) == 1
    assert grown(requests, route="/predict", status=415, **MODEL) == 1
    assert grown(requests, route="/models", status=200, model="", version="") == 1
    assert grown(requests, route="other", status=404, model="") == 2
    assert grown(requests) == 7, "the scrape before counts too"
    assert grown("stn_request_duration_seconds_count", route="/predict", **MODEL) == 2
    assert 0 < grown("stn_request_duration_seconds_sum", route="/predict") < START_S


def test_the_stages_are_those_that_the_answers_tell(service: Service) -> None:
    answers: list[Answer] = []
    grown = gain(service, lambda: answers.extend(predict(service, encode(digit)) for digit in DIGITS))
    for stage in STAGES:
        told = sum(answer["timings_ms"][stage] for answer in answers) / 1000
        assert grown("stn_stage_duration_seconds_sum", stage=stage, **MODEL) == pytest.approx(told, abs=1e-5)
        assert grown("stn_stage_duration_seconds_count", stage=stage, **MODEL) == len(DIGITS)
    told = sum(answer["timings_ms"]["total"] for answer in answers) / 1000
    assert grown("stn_prediction_duration_seconds_sum", **MODEL) == pytest.approx(told, abs=1e-3)


def test_a_duration_is_in_the_first_bucket_that_ends_above_it(service: Service) -> None:
    answers: list[Answer] = []
    grown = gain(service, lambda: answers.extend(predict(service) for _ in range(3)))
    for limit in (0.001, 0.005, 0.025, 10.0):
        below = sum(answer["timings_ms"]["inference"] <= 1000 * limit for answer in answers)
        assert grown("stn_stage_duration_seconds_bucket", stage="inference", le=limit, **MODEL) == below


def test_batches_are_counted_by_their_size(service: Service) -> None:
    pictures = [("images", encode(DIGITS[0]))] * 5
    batches: list[int] = []

    def act() -> None:
        answer = service.client.post("/predict/batch", files=pictures).json()
        batches.extend(result["batch_size"] for result in answer["results"])

    grown = gain(service, act)
    inferences = round(sum(1 / size for size in batches))
    assert grown("stn_batch_size_sum", **MODEL) == 5
    assert grown("stn_batch_size_count", **MODEL) == inferences
    assert grown("stn_batch_size_bucket", le=512.0, **MODEL) == inferences
    assert grown("stn_batch_size_bucket", le=1.0, **MODEL) == batches.count(1)


def test_refusals_are_counted_by_their_cause(service: Service) -> None:
    def act() -> None:
        service.client.post("/predict", content=HALF)
        service.client.post("/predict", params={"top_k": 0}, content=PICTURE)
        service.client.post("/predict", params={"model": "none"}, content=PICTURE)
        parts = [("images", PICTURE), ("images", b"no picture"), ("images", HALF)]
        assert service.client.post("/predict/batch", files=parts).status_code == 200
        with connect(service) as connection:
            connection.sendall(b"this is not HTTP\r\n\r\n")
            assert receive(connection).status == 400

    grown = gain(service, act)
    rejected = "stn_rejections_total"
    assert grown(rejected, cause="invalid_image", **MODEL) == 2
    assert grown(rejected, cause="unsupported_media_type", **MODEL) == 1
    assert grown(rejected, cause="invalid_parameter", model="") == 1
    assert grown(rejected, cause="model_not_found", model="") == 1
    assert grown(rejected, cause="bad_request", model="") == 1
    assert grown(rejected) == 6


@pytest.mark.parametrize("pictures", [1, 3])
def test_a_client_that_leaves_is_counted_but_not_refused(pictures: int) -> None:
    with misbehaving("crawling", "--max-batch", 1) as service:
        files = [("images", GOOD)] * pictures
        with pytest.raises(httpx.ReadTimeout):
            if pictures == 1:
                httpx.post(f"{service.url}/predict", content=GOOD, timeout=0.2)
            else:
                httpx.post(f"{service.url}/predict/batch", files=files, timeout=0.2)
        wait_until(lambda: scrape(service)("stn_requests_total", status=499) == 1)
        assert scrape(service)("stn_rejections_total") == 0
        assert scrape(service)("nv_inference_request_failure", reason="CANCELED") == 1
        assert "unhandled_exception" not in log_events(service)


def test_what_waits_and_what_is_under_way_is_told() -> None:
    flags = ("--max-queue", 3, "--max-batch", 1)
    with misbehaving("crawling", *flags) as service, ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(ask, service) for _ in range(3)]
        wait_until(lambda: scrape(service)("stn_pictures_in_flight") == 3)
        during = scrape(service)
        assert ask(service).status_code == 429
        assert 1 <= during("stn_queue_depth", **MODEL) <= 2
        assert during("nv_inference_pending_request_count") == during("stn_queue_depth")
        assert during("stn_pictures_limit", **MODEL) == 3
        assert [answer.result().status_code for answer in waiting] == [200] * 3
        after = scrape(service)
        assert after("stn_queue_depth") == after("stn_pictures_in_flight") == 0
        assert after("stn_rejections_total", cause="queue_full", **MODEL) == 1
        assert after("nv_inference_request_failure", reason="REJECTED") == 1


def test_models_and_workers_are_told(service: Service) -> None:
    found = scrape(service)
    served = {(model["name"], model["version"]) for model in service.client.get("/models").json()["models"]}
    for name, version in served:
        info = {"runtime": "onnx", "device": "cpu", "precision": "float32"}
        assert found("stn_model_info", model=name, version=version, **info) == 1
    assert found("stn_model_info") == len(served)
    assert found("stn_worker_ready", worker=0) == 1
    assert found("stn_worker_cpu_seconds_total", worker=0) > 0
    if Path("/proc/self/statm").exists():
        assert found("stn_worker_resident_bytes", worker=0) > 10 * 2**20


def test_tritons_names_say_the_same(service: Service) -> None:
    def act() -> None:
        predict(service)
        service.client.post("/predict/batch", files=[("images", PICTURE)] * 3)
        service.client.post("/predict", content=b"no picture")

    grown = gain(service, act)
    assert grown("nv_inference_request_success", **MODEL) == 2
    assert grown("nv_inference_request_failure", reason="OTHER", **MODEL) == 1
    assert grown("nv_inference_count", **MODEL) == 4
    assert grown("nv_inference_exec_count", **MODEL) == grown("stn_batch_size_count", **MODEL)
    took = grown("stn_request_duration_seconds_sum", **MODEL)
    assert grown("nv_inference_request_duration_us", **MODEL) == pytest.approx(1e6 * took)
    names = {"compute_input": "decode", "queue": "queue", "compute_infer": "inference", "compute_output": "encode"}
    for theirs, ours in names.items():
        seconds = grown("stn_stage_duration_seconds_sum", stage=ours, **MODEL)
        assert grown(f"nv_inference_{theirs}_duration_us", **MODEL) == pytest.approx(1e6 * seconds)


def test_the_open_inference_protocol_counts_as_well(service: Service) -> None:
    def act() -> None:
        raw = {"Inference-Header-Content-Length": "0"}
        for path in ("/v2/models/digits/infer", f"/v2/models/digits/versions/{VERSION}/infer"):
            assert service.client.post(path, content=DIGITS[0].tobytes(), headers=raw).status_code == 200
        assert service.client.post("/v2/models/none/infer", content=b"{}").status_code == 404

    grown = gain(service, act)
    route = "/v2/models/{name}/infer"
    assert grown("stn_requests_total", route=route, status=200, **MODEL) == 2
    assert grown("stn_requests_total", route=route, status=404, model="") == 1
    assert grown("nv_inference_request_success", **MODEL) == grown("nv_inference_count", **MODEL) == 2
    assert grown("stn_stage_duration_seconds_count", stage="queue", **MODEL) == 2


def test_openmetrics_is_spoken_to_who_asks_for_it(service: Service) -> None:
    answer = service.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(answer.text)}  # type: ignore[no-untyped-call]
    assert {"stn_requests", "nv_inference_count"} <= names


def test_the_documentation_names_all_of_them_and_no_others(service: Service) -> None:
    predict(service)
    text = service.client.get("/metrics").text
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) == DOCUMENTED


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_worker_tells_of_all_and_a_death_takes_nothing_back() -> None:
    with start_service("--workers", 2) as service:

        def fresh() -> Exposed:
            """Over a new connection, which any worker may take."""
            with httpx.Client(base_url=service.url, timeout=START_S, verify=False) as client:
                return scrape(service._replace(client=client))

        def answered() -> float:
            return fresh()("stn_requests_total", route="/predict", status=200, **MODEL)

        def ask_some(count: int) -> None:
            for _ in range(count):
                prediction(ask(service, PICTURE))

        def is_ready() -> bool:
            with suppress(httpx.TransportError):  # it was the dead worker's connection
                return service.ask("GET", "/health/ready").status_code == 200
            return False

        ask_some(20)
        wait_until(lambda: answered() == 20)  # what the other has counted is up to a second old
        found = fresh()
        assert [found("stn_worker_ready", worker=worker) for worker in (0, 1)] == [1, 1]
        assert found("stn_batch_size_sum", **MODEL) == found("stn_stage_duration_seconds_count", stage="queue") == 20
        assert found("stn_pictures_limit", **MODEL) == 2 * Settings.model_fields["max_queue"].default
        assert found("stn_model_info", **MODEL) == 2

        counts = [answered() for _ in range(10)]
        assert counts == [20] * 10, "whichever is asked"
        for _ in range(10):
            (done,) = service.ask("GET", "/v2/models/digits/stats").json()["model_stats"]
            assert done["inference_count"] == 20, "whichever is asked"
        os.kill(workers(service)[0], signal.SIGKILL)
        wait_until(lambda: not is_ready())
        while not is_ready():
            with suppress(httpx.TransportError):
                counts.append(answered())
        ask_some(10)
        wait_until(lambda: answered() == 30)
        counts += [answered() for _ in range(10)]
        assert counts == sorted(counts), "a count went down"
        assert counts[-10:] == [30] * 10, "whichever is asked, the new one too"


def workers(service: Service) -> list[int]:
    """Processes of the service that answer."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
