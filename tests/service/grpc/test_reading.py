"""Calls whose message never comes, is too much, or is none."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.errors import RequestTimeoutError
from service.grpc.reading import Reader
from tests.conftest import start_service, wait_until
from tests.service.api.open_inference.exchange import NAME
from tests.service.pictures import GOLDEN_PICTURES

INFER = "/inference.GRPCInferenceService/ModelInfer"
CHECK = "/grpc.health.v1.Health/Check"
MAX_QUEUE = 6
MAX_BATCH_BYTES = 200_000
MODEST_S = 20
"""Deadline of calls that end sooner."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a service that soon loses patience, but not with probes."""
    flags = ("--grpc-port", 0, "--max-queue", MAX_QUEUE, "--request-timeout-s", 1, "--keep-alive-s", 1)
    with start_service(*flags, "--header-timeout-s", 5, "--max-batch-bytes", MAX_BATCH_BYTES) as service:
        wait_until(lambda: "grpc_listens" in service.log())
        found = re.search(r'"address": "([^"]+)"', service.log())
        assert found is not None
        yield found[1]


def valid_request() -> service_pb2.ModelInferRequest:
    tensor = {"name": NAME, "datatype": "UINT8", "shape": [1, *GOLDEN_PICTURES.shape[1:]]}
    pixels = [GOLDEN_PICTURES[0].tobytes()]
    return service_pb2.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=pixels)


def test_silent_calls_end_and_do_not_keep_others_out(address: str) -> None:
    async def talk() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            silent = [channel.stream_unary(INFER)(timeout=MODEST_S) for _ in range(MAX_QUEUE)]
            for call in silent:
                assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                assert await call.details() == "no whole message arrived within 1 s; send it again"
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            assert (await infer(valid_request(), timeout=MODEST_S)).model_name == "digits"

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("method", "limit_s"),
    [
        ("inference.GRPCInferenceService/ModelStreamInfer", 1),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", 5),
    ],
)
def test_an_idle_stream_ends(address: str, method: str, limit_s: int) -> None:
    async def talk() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_stream(f"/{method}")(timeout=MODEST_S)
            assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert f"within {limit_s} s" in await call.details()

    asyncio.run(talk())


def test_silent_probes_make_way_for_others(address: str) -> None:
    async def talk() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            silent = [channel.stream_unary(CHECK)(timeout=MODEST_S) for _ in range(MAX_QUEUE - 1)]
            check = health_pb2_grpc.HealthStub(channel).Check
            answer = await check(health_pb2.HealthCheckRequest(), timeout=4)  # and not only after the 5 s of a probe
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for call in silent:
                call.cancel()

    asyncio.run(talk())


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_methods_without_parameters_do_not_read_their_message(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        assert call(bytes(3 * MAX_BATCH_BYTES + 2**21), timeout=MODEST_S)  # otherwise RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", [INFER, CHECK])
def test_a_call_without_a_message_or_with_another_is_refused(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as none:
            channel.stream_unary(method)(iter(()), timeout=MODEST_S)
        with pytest.raises(grpc.RpcError) as other:
            channel.unary_unary(method)(b"\xff", timeout=MODEST_S)
    for error, says in ((none.value, "has no message"), (other.value, "cannot be parsed")):
        assert (error.code(), says in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True), error.details()


class Sender:
    """Calls whose messages arrive when the test says so, in place of gRPC's contexts."""

    def __init__(self) -> None:
        self.reads = 0
        self.most = 0
        self.arrived = asyncio.Event()

    async def read(self) -> str:
        self.reads += 1
        self.most = max(self.most, self.reads)
        try:
            await self.arrived.wait()
        finally:
            self.reads -= 1
        return "message"


def test_few_messages_are_read_at_a_time() -> None:
    async def read() -> tuple[list[Any], int]:
        sender, reader = Sender(), Reader(3, within_s=60, patience_s=60)
        reading = [asyncio.create_task(reader.read(sender)) for _ in range(10)]
        await asyncio.sleep(0.01)
        sender.arrived.set()
        return await asyncio.gather(*reading), sender.most

    assert asyncio.run(read()) == (["message"] * 10, 3)


def test_the_wait_for_a_turn_counts_towards_the_time() -> None:
    async def read() -> None:
        sender, reader = Sender(), Reader(1, within_s=0.05, patience_s=60)
        results = await asyncio.gather(*(reader.read(sender) for _ in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [RequestTimeoutError] * 2
        assert (sender.most, sender.reads) == (1, 0)

    asyncio.run(read())


def test_a_slow_message_makes_way_only_if_others_wait() -> None:
    async def read() -> None:
        silent, prompt, reader = Sender(), Sender(), Reader(1, within_s=60, patience_s=0.01)
        prompt.arrived.set()
        slow = asyncio.create_task(reader.read(silent))
        await asyncio.sleep(0.05)
        assert not slow.done()
        assert await reader.read(prompt) == "message"
        with pytest.raises(RequestTimeoutError, match="more slowly than others"):
            await slow

    asyncio.run(read())
