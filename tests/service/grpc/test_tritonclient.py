"""Triton's own gRPC clients, as they are, and plain calls where these hide what comes back."""

import asyncio
import json
import queue
import re
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.inference.outputs import angle
from service.middleware.api_keys import make_key
from tests.conftest import Service, fail_to_start, start_service, wait_until
from tests.service.answers import PICTURE
from tests.service.api.open_inference.exchange import NAME, PROBABILITIES, golden
from tests.service.pictures import DIGITS, GOLDEN_PICTURES, MANIFEST, TRANSFORM, VERSION, encode

COUNT = len(GOLDEN_PICTURES)
FILES = np.array([encode(digit) for digit in DIGITS], dtype=np.object_)
LABELS = ["7", "2", "1", "0"]
KEY, ENTRY = make_key("ada")
HEADERS = {"authorization": f"Bearer {KEY}"}
MAX_BATCH_BYTES = 200_000
SERVICE = "/inference.GRPCInferenceService"
TENSOR = {"name": NAME, "datatype": "UINT8", "shape": [1, *GOLDEN_PICTURES.shape[1:]]}
"""One golden picture."""


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    """A service with gRPC, keys and small limits."""
    flags = ("--grpc-port", 0, "--api-keys", ENTRY, "--max-batch-bytes", MAX_BATCH_BYTES, "--max-json-bytes", 5000)
    with start_service(*flags, "--max-pictures", 20) as service:
        yield service


@pytest.fixture(scope="module")
def address(server: Service) -> str:
    wait_until(lambda: "grpc_listens" in server.log())
    found = re.search(r'"address": "([^"]+)"', server.log())
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as opened:
        yield opened


def pixels() -> list[triton.InferInput]:
    """The golden pictures as a tensor."""
    tensor = triton.InferInput(NAME, list(GOLDEN_PICTURES.shape), "UINT8")
    tensor.set_data_from_numpy(GOLDEN_PICTURES)
    return [tensor]


def files(content: Any = FILES) -> list[triton.InferInput]:
    """Pictures as encoded files."""
    tensor = triton.InferInput(NAME, [len(content)], "BYTES")
    tensor.set_data_from_numpy(np.array(content, dtype=np.object_))
    return [tensor]


def is_golden(result: triton.InferResult) -> None:
    golden({output.name: result.as_numpy(output.name) for output in result.get_response().outputs})


def labels(result: triton.InferResult) -> list[str]:
    """The best class of each picture."""
    return [row[0].split(b":")[2].decode() for row in result.as_numpy(PROBABILITIES).astype(bytes)]


def message(**changes: Any) -> service_pb2.ModelInferRequest:
    """A request for one golden picture."""
    given: dict[str, Any] = {"model_name": "digits", "inputs": [TENSOR]}
    return service_pb2.ModelInferRequest(**given | {"raw_input_contents": [GOLDEN_PICTURES[0].tobytes()]} | changes)


def refused(channel: grpc.Channel, request: service_pb2.ModelInferRequest, **options: Any) -> grpc.RpcError:
    """The error of a call that is refused."""
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    with pytest.raises(grpc.RpcError) as error:
        infer(request, **{"metadata": [*HEADERS.items()]} | options)
    return error.value


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", headers=HEADERS)
    assert client.is_model_ready("digits", str(VERSION), headers=HEADERS)
    assert client.get_server_metadata(headers=HEADERS).name == "stn-serve"
    described = client.get_model_metadata("digits", headers=HEADERS)
    assert list(described.inputs[0].shape) == [-1, *GOLDEN_PICTURES.shape[1:]]
    assert [output.name for output in described.outputs] == list(MANIFEST.outputs)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tensors(client: triton.InferenceServerClient, compression: str | None) -> None:
    result = client.infer("digits", pixels(), request_id="seven", compression_algorithm=compression, headers=HEADERS)
    is_golden(result)
    assert result.get_response().id == "seven"
    assert result.get_response().model_version == str(VERSION)


def test_outputs_that_are_asked_for(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in reversed(MANIFEST.outputs)]
    is_golden(client.infer("digits", pixels(), outputs=outputs, model_version=str(VERSION), headers=HEADERS))


def test_encoded_pictures_classes_and_rectified_files(client: triton.InferenceServerClient) -> None:
    is_golden(client.infer("digits", files(), headers=HEADERS))
    outputs = [
        triton.InferRequestedOutput(PROBABILITIES, class_count=2),
        triton.InferRequestedOutput("rectified_source"),
    ]
    result = client.infer("digits", files(), outputs=outputs, headers=HEADERS)
    assert result.as_numpy(PROBABILITIES).shape == (COUNT, 2)
    assert labels(result) == LABELS
    assert all(file.startswith(b"\x89PNG") for file in result.as_numpy("rectified_source"))


def test_regions_hints_views_and_reliability(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in (PROBABILITIES, "reliability", TRANSFORM.theta)]
    parameters = {"region": "0,0,42,42;5,5,40,40", "angle_hint": -90.5, "reliability": 4, "views": 4}
    turned = [encode(np.rot90(DIGITS[0]))]  # counter-clockwise
    result = client.infer("digits", files(turned), outputs=outputs, parameters=parameters, headers=HEADERS)
    assert result.as_numpy(PROBABILITIES).argmax(axis=1).tolist() == [7, 7]
    assert [json.loads(told)["views"] for told in result.as_numpy("reliability")] == [4, 4]
    assert (np.array([angle(theta, 42, 42) for theta in result.as_numpy(TRANSFORM.theta).tolist()]) < -60).all()


def test_contents_that_are_not_raw(channel: grpc.Channel) -> None:
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    numbers = TENSOR | {"contents": {"uint_contents": GOLDEN_PICTURES[0].ravel().tolist()}}
    pictures = {"name": NAME, "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [PICTURE]}}
    expected = infer(message(), metadata=[*HEADERS.items()])
    for tensor in (numbers, pictures):
        answer = infer(message(inputs=[tensor], raw_input_contents=[]), metadata=[*HEADERS.items()])
        assert answer.raw_output_contents == expected.raw_output_contents


def test_a_stream_goes_on_after_an_error(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=HEADERS)
    for name in ("digits", "nobody", "digits"):
        client.async_stream_infer(name, pixels())
    (first, _), (_, error), (last, _) = (answers.get(timeout=60) for _ in range(3))
    client.stop_stream()
    is_golden(first)
    is_golden(last)
    assert "no model is called 'nobody'" in str(error)


def test_the_asynchronous_client_shares_inferences(address: str) -> None:
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            for result in await asyncio.gather(*(client.infer("digits", pixels(), headers=HEADERS) for _ in range(8))):
                is_golden(result)
            with pytest.raises(InferenceServerException, match="no model is called 'nobody'"):
                await client.infer("nobody", files(), headers=HEADERS)

    asyncio.run(talk())


TOO_MANY = {"name": NAME, "datatype": "BYTES", "shape": [21]}
WRONG: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
    ({"model_name": "nobody"}, grpc.StatusCode.NOT_FOUND, "no model is called 'nobody'"),
    ({"model_name": ""}, grpc.StatusCode.NOT_FOUND, "no model is called ''"),
    ({"model_version": "9"}, grpc.StatusCode.NOT_FOUND, "has no version 9"),
    ({"model_version": "latest"}, grpc.StatusCode.NOT_FOUND, "is not a version"),
    ({"inputs": []}, grpc.StatusCode.INVALID_ARGUMENT, "1 raw_input_contents for 0 inputs"),
    ({"inputs": [], "raw_input_contents": []}, grpc.StatusCode.INVALID_ARGUMENT, "takes one input"),
    ({"inputs": [TENSOR] * 2}, grpc.StatusCode.INVALID_ARGUMENT, "takes one input, not several"),
    ({"raw_input_contents": [b""] * 2}, grpc.StatusCode.INVALID_ARGUMENT, "takes one input, not several"),
    ({"inputs": [{}] * 6000}, grpc.StatusCode.INVALID_ARGUMENT, "takes one input, not several"),
    ({"inputs": [TENSOR | {"shape": [1, 2, 3, 1]}]}, grpc.StatusCode.INVALID_ARGUMENT, "must have the shape"),
    ({"inputs": [TENSOR | {"datatype": "FP32"}]}, grpc.StatusCode.INVALID_ARGUMENT, "must be UINT8"),
    ({"inputs": [TENSOR | {"name": "other"}]}, grpc.StatusCode.INVALID_ARGUMENT, "takes one input"),
    ({"inputs": [TENSOR | {"shape": [-1, 42, 42, 1]}]}, grpc.StatusCode.INVALID_ARGUMENT, "shape"),
    ({"raw_input_contents": [b"seven"]}, grpc.StatusCode.INVALID_ARGUMENT, "and not 5"),
    ({"raw_input_contents": []}, grpc.StatusCode.INVALID_ARGUMENT, "and not 0"),
    (
        {"inputs": [TENSOR | {"contents": {"uint_contents": [256]}}], "raw_input_contents": []},
        grpc.StatusCode.INVALID_ARGUMENT,
        "numbers from 0 to 255",
    ),
    ({"inputs": [TENSOR | {"contents": {}}]}, grpc.StatusCode.INVALID_ARGUMENT, "not both"),
    ({"outputs": [{"name": "nothing"}]}, grpc.StatusCode.INVALID_ARGUMENT, "outputs must be some of"),
    ({"inputs": [TOO_MANY], "raw_input_contents": [b""]}, grpc.StatusCode.INVALID_ARGUMENT, "more than the 20"),
    ({"parameters": {"triton_x": {"bool_param": True}}}, grpc.StatusCode.INVALID_ARGUMENT, "is reserved"),
    ({"parameters": {"top_k": {"int64_param": 1}}}, grpc.StatusCode.INVALID_ARGUMENT, "'top_k' is not offered"),
    ({"parameters": {"views": {"int64_param": 3}}}, grpc.StatusCode.INVALID_ARGUMENT, "parameters: views"),
    (
        {"parameters": {"region": {"string_param": "1,1,2,2"}}},
        grpc.StatusCode.INVALID_ARGUMENT,
        "need pictures",
    ),
    ({"parameters": {"timeout": {"int64_param": 1}}}, grpc.StatusCode.DEADLINE_EXCEEDED, "within the time given"),
    ({"id": "x" * 6000}, grpc.StatusCode.INVALID_ARGUMENT, "more than 5000 bytes besides tensors"),
]


@pytest.mark.parametrize(("changes", "code", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_a_wrong_request_has_a_code_and_a_message(
    channel: grpc.Channel, changes: dict[str, Any], code: grpc.StatusCode, says: str
) -> None:
    error = refused(channel, message(**changes))
    assert (error.code(), says in error.details()) == (code, True), error.details()


def test_a_bad_picture_is_named(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="picture 2: this is not a picture"):
        client.infer("digits", files([PICTURE, b"seven"]), headers=HEADERS)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_refused_also_if_it_was_compressed(
    channel: grpc.Channel, compression: grpc.Compression
) -> None:
    error = refused(channel, message(raw_input_contents=[bytes(2 * MAX_BATCH_BYTES)]), compression=compression)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("metadata", "says"),
    [([], "a key is needed"), ([("x-api-key", "stn_wrong")], "not known"), ([("authorization", "Basic x")], "needed")],
)
def test_a_call_needs_a_key(channel: grpc.Channel, metadata: list[tuple[str, str]], says: str) -> None:
    error = refused(channel, message(), metadata=metadata)
    assert (error.code(), says in error.details()) == (grpc.StatusCode.UNAUTHENTICATED, True)


def test_without_a_key_a_message_is_not_even_read(channel: grpc.Channel) -> None:
    error = refused(channel, message(raw_input_contents=[bytes(2 * MAX_BATCH_BYTES)]), metadata=[])
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED  # and not RESOURCE_EXHAUSTED


def test_a_call_has_an_id_a_log_line_and_counts_as_http_has(server: Service, channel: grpc.Channel) -> None:
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    metadata = [("x-api-key", KEY), ("x-request-id", "grpc-1")]
    _, call = infer.with_call(message(), metadata=metadata)
    assert ("x-request-id", "grpc-1") in call.trailing_metadata()
    refused(channel, message(model_name="nobody"), metadata=[("x-api-key", KEY), ("x-request-id", "grpc-2")])

    def lines() -> dict[str, dict[str, Any]]:
        found = [json.loads(line) for line in server.log().splitlines() if '"event":"request"' in line]
        return {line["request_id"]: line for line in found}

    wait_until(lambda: {"grpc-1", "grpc-2"} <= lines().keys())
    good, bad = lines()["grpc-1"], lines()["grpc-2"]
    assert (good["method"], good["path"], good["status"]) == ("POST", f"{SERVICE}/ModelInfer", 200)
    assert (good["key"], good["client"], good["model"], good["pictures"]) == ("ada", "127.0.0.1", "digits", 1)
    assert (bad["status"], bad["error"]) == (404, "model_not_found")
    assert KEY not in server.log()
    metrics = server.client.get("/metrics").text
    assert re.search(rf'^stn_requests_total\{{.*"{SERVICE}/ModelInfer".*\}} [1-9]', metrics, re.MULTILINE)


def test_a_deadline_of_the_client_ends_the_call(channel: grpc.Channel) -> None:
    assert refused(channel, message(), timeout=0).code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_probes_and_reflection_need_no_key(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService"):
        assert (
            health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
        )
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= {*services}


def test_health_says_what_it_does_not_offer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        next(health.Watch(health_pb2.HealthCheckRequest()))
    assert (error.value.code(), "call Check" in error.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)
    with pytest.raises(grpc.RpcError) as error:
        health.List(health_pb2.HealthListRequest())
    assert (error.value.code(), "call Check" in error.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)


def test_a_port_that_is_taken_is_one_line(server: Service) -> None:
    taken = server.address[1]
    done = fail_to_start("--grpc-port", taken)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot listen on 127.0.0.1:{taken} ")
    assert line.endswith("choose another --host or --grpc-port")


def test_workers_need_a_port_that_they_share() -> None:
    done = fail_to_start("--grpc-port", 0, "--workers", 2)
    assert (done.returncode, done.stderr) == (
        1,
        "error: --grpc-port 0 is for one worker; with several, choose a port\n",
    )
